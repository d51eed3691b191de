//! A recorded migration from its first byte to its last.

use std::io::{self, ErrorKind, Read};

use multifd_core::wire::PacketFlags;

use super::channel::PacketRecord;
use super::inspector::Inspector;
use super::report::Report;
use crate::stream::MainEvent;

/// Bytes that are read from a connection at once.
const PIECE: usize = 64 << 10;

/// Inspects a migration from the recorded bytes of its main channel and of its multifd channels.
/// `each` is called with every packet, round by round, and within a round channel by channel.
///
/// # Errors
/// If a connection cannot be read. What is wrong with the migration is in the [`Report`].
pub fn recording<M: Read, C: Read>(
    main: M,
    channels: impl IntoIterator<Item = C>,
    mut each: impl FnMut(&PacketRecord),
) -> io::Result<Report> {
    let mut inspector = Inspector::new();
    let mut main = Recorded::new(main);
    let mut channels: Vec<_> =
        channels.into_iter().map(|channel| (inspector.connect(), Recorded::new(channel))).collect();
    // Round by round, as a destination takes them, so that repetitions within a round are found.
    while !main.has_ended || channels.iter().any(|(_, channel)| !channel.has_ended) {
        main.read_round(|bytes| {
            inspector.main_bytes(bytes).map(|event| matches!(event, MainEvent::Sync))
        })?;
        for (channel, recorded) in &mut channels {
            recorded.read_round(|bytes| {
                let packet = inspector.channel_bytes(*channel, bytes, None)?;
                each(&packet);
                Some(packet.flags.contains(PacketFlags::SYNC))
            })?;
        }
    }
    Ok(inspector.finish())
}

/// The recorded bytes of a connection.
struct Recorded<R> {
    reader: R,
    buffer: Box<[u8]>,
    /// The bytes in the buffer that are not yet taken are those from `start` to `end`.
    start: usize,
    end: usize,
    has_ended: bool,
}

impl<R: Read> Recorded<R> {
    fn new(reader: R) -> Self {
        let buffer = vec![0; PIECE].into();
        Self { reader, buffer, start: 0, end: 0, has_ended: false }
    }

    /// Reads up to the end of a round or of the connection. `take` takes bytes off the front and
    /// returns whether they end the round; `None` when it has taken all.
    fn read_round(&mut self, mut take: impl FnMut(&mut &[u8]) -> Option<bool>) -> io::Result<()> {
        while !self.has_ended {
            let mut bytes = &self.buffer[self.start..self.end];
            while let Some(is_end) = take(&mut bytes) {
                if is_end {
                    self.start = self.end - bytes.len();
                    return Ok(());
                }
            }
            self.fill()?;
        }
        Ok(())
    }

    /// Reads the next piece.
    fn fill(&mut self) -> io::Result<()> {
        loop {
            match self.reader.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    (self.start, self.end) = (0, read?);
                    self.has_ended = self.end == 0;
                    return Ok(());
                }
            }
        }
    }
}
