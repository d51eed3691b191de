//! What the destination says on the return path.

use std::time::Duration;

use super::session::{Session, Waiter};
use crate::error::Error;

/// How long a side whose connection broke waits for the destination's word on why.
pub(crate) const LAST_WORD: Duration = Duration::from_millis(500);

/// The state of the return path at the side that hears it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReturnPath {
    /// The source has opened it.
    open: bool,
    /// Everything is sent, or the last of it is being sent: the destination may confirm.
    complete: bool,
    heard: Heard,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Heard {
    #[default]
    Nothing,
    /// The destination has everything.
    Confirmed,
    /// The destination has closed without a word.
    Closed,
}

impl ReturnPath {
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The last bytes are about to be sent.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The destination has said that it has everything.
    pub(crate) fn confirm(&mut self) -> Result<(), Error> {
        if !self.complete {
            return Err(Error::EarlyConfirmation);
        }
        self.heard = Heard::Confirmed;
        Ok(())
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.heard == Heard::Confirmed
    }

    /// The destination has closed its end.
    pub(crate) fn close(&mut self) {
        if self.heard == Heard::Nothing {
            self.heard = Heard::Closed;
        }
    }

    /// Whether the destination may still say something on why it failed.
    pub(crate) fn may_speak(&self) -> bool {
        self.open && self.heard == Heard::Nothing
    }

    /// Whether the destination has said its last.
    pub(crate) fn is_over(&self) -> bool {
        self.heard != Heard::Nothing
    }
}

/// Gives a destination that closed a connection time to say why on the return path: its word fails
/// the migration first, says more than the broken pipe, and is for the source to hear.
pub(crate) fn hear_last_word<S>(session: &Session<S>, error: &Error)
where
    S: AsRef<ReturnPath> + Send + 'static,
{
    if error.is_disconnect() && session.look(|state| state.as_ref().may_speak()) {
        _ = session
            .wait_for::<()>(Waiter::Main, "the destination's last word", LAST_WORD, |_| None);
    }
}
