//! Inspecting what a source sends, while it is relayed.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use multifd::Side;
use multifd::inspect::{Inspector, Report, Severity};
use multifd::relay::{Tap, Wire};

use crate::output;

/// Inspects the source's side of a relay. Violations of the format are printed at once, everything
/// else is in the [`Report`] at the end.
///
/// The threads that move the bytes inspect them first, one at a time, so nothing piles up. A packet
/// costs them a look at its header and offsets. The order is what an [`Inspector`] needs: before the
/// main channel has listed the RAM blocks, a relay reads only a channel's initial packet.
#[derive(Debug)]
pub(super) struct Inspection(Mutex<State>);

#[derive(Debug)]
struct State {
    inspector: Inspector,
    channels: usize,
    /// When the first bytes came.
    began: Option<Instant>,
    /// The number of findings that have been looked at.
    seen: usize,
}

impl Inspection {
    /// An inspection of a migration with `channels` channels.
    pub(super) fn new(channels: u8) -> Self {
        Self(Mutex::new(State::new(channels)))
    }

    /// Ends all connections and reports what they carried. A connection that is cut off is then only
    /// in the report.
    pub(super) fn finish(&self) -> Report {
        mem::replace(&mut *self.lock(), State::new(0)).inspector.finish()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another thread does not make the report useless.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap for Inspection {
    fn pass(&self, side: Side, wire: Wire, bytes: &[u8]) {
        if side == Side::From {
            self.lock().pass(wire, bytes);
        }
    }
}

impl State {
    fn new(channels: u8) -> Self {
        let mut inspector = Inspector::new();
        // Their indices are the numbers in their initial packets.
        let channels = (0..channels).map(|_| inspector.connect()).count();
        Self { inspector, channels, began: None, seen: 0 }
    }

    fn pass(&mut self, wire: Wire, mut bytes: &[u8]) {
        let time = self.began.get_or_insert_with(Instant::now).elapsed();
        match wire {
            Wire::Main => while self.inspector.main_bytes(&mut bytes).is_some() {},
            Wire::Channel(number) => {
                let number = usize::from(number);
                // The relay refuses a channel of another number.
                if number < self.channels {
                    while self.inspector.channel_bytes(number, &mut bytes, Some(time)).is_some() {}
                }
            }
            Wire::ReturnPath => {}
        }
        self.say();
    }

    /// Prints new errors.
    fn say(&mut self) {
        for finding in self.inspector.findings().iter().skip(self.seen) {
            self.seen += 1;
            if finding.kind.severity() == Severity::Error {
                output::note(&format!("multifd: inspecting the source: {finding}"));
            }
        }
    }
}
