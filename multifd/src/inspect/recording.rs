//! A recorded migration from its first byte to its last.

use std::io::{self, ErrorKind, Read};

use super::channel::PacketRecord;
use super::inspector::Inspector;
use super::parser::{ChannelParser, Content};
use super::report::Report;
use crate::driver::{MainChannelError, MainReader};
use crate::stream::{Limits, MainDecoder, MainEvent};

/// Bytes that are read of a channel at once.
const PIECE: usize = 64 << 10;

/// Inspects a migration from what was recorded of its main channel and of its multifd channels.
/// `each` is given every packet, round by round and in a round channel by channel.
///
/// # Errors
/// Where something cannot be read. What is wrong with a migration is in the [`Report`].
pub fn recording<M: Read, C: Read>(
    mut main: M,
    channels: impl IntoIterator<Item = C>,
    mut each: impl FnMut(&PacketRecord<'_>),
) -> io::Result<Report> {
    let mut inspector = Inspector::new();
    let mut reader = MainReader::new(&mut main, MainDecoder::new(Limits::default()));
    follow_main(&mut reader, &mut inspector)?;
    let feed = |reader| Feed::new(reader, inspector.connect());
    let mut feeds: Vec<_> = channels.into_iter().map(feed).collect();
    // Round by round, as a destination has them: that is how pages that come twice in one are seen.
    while !inspector.main_is_over() || feeds.iter().any(|feed| !feed.ended) {
        for feed in &mut feeds {
            feed.follow(&mut inspector, &mut each)?;
        }
        follow_main(&mut reader, &mut inspector)?;
    }
    if inspector.main_is_whole() {
        let unread = reader.unread().len() as u64;
        inspector.trailing(unread + io::copy(&mut main, &mut io::sink())?);
    }
    Ok(inspector.finish())
}

/// Reads on to the next sync.
fn follow_main<R: Read>(reader: &mut MainReader<R>, inspector: &mut Inspector) -> io::Result<()> {
    while !inspector.main_is_over() {
        match reader.next_event() {
            Ok(Some(event)) => {
                inspector.main(reader.decoder(), Ok(&event));
                if event == MainEvent::Sync {
                    break;
                }
            }
            Ok(None) => break,
            Err(MainChannelError::Stream(error)) => inspector.main(reader.decoder(), Err(&error)),
            Err(MainChannelError::Read { source, .. } | MainChannelError::Write { source, .. }) => {
                return Err(source);
            }
        }
    }
    Ok(())
}

/// A channel that is read.
struct Feed<R> {
    reader: R,
    parser: ChannelParser,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    ended: bool,
}

impl<R: Read> Feed<R> {
    fn new(reader: R, parser: ChannelParser) -> Self {
        let buffer = vec![0; PIECE].into();
        Self { reader, parser, buffer, start: 0, end: 0, ended: false }
    }

    /// Reads on to the next SYNC.
    fn follow(
        &mut self,
        inspector: &mut Inspector,
        each: &mut impl FnMut(&PacketRecord<'_>),
    ) -> io::Result<()> {
        while !self.ended {
            let mut bytes = &self.buffer[self.start..self.end];
            while let Some(event) = self.parser.next(&mut bytes) {
                let record = inspector.channel(&event, None);
                record.iter().for_each(&mut *each);
                let is_sync =
                    matches!(&event.content, Content::Ram { packet, .. } if packet.is_sync());
                if is_sync {
                    self.start = self.end - bytes.len();
                    return Ok(());
                }
            }
            self.fill()?;
            if self.end == 0 {
                self.ended = true;
                inspector.channel(&self.parser.end(), None);
            }
        }
        Ok(())
    }

    /// Reads the next piece; an empty one at the end.
    fn fill(&mut self) -> io::Result<()> {
        (self.start, self.end) = (0, 0);
        loop {
            match self.reader.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    self.end = read?;
                    return Ok(());
                }
            }
        }
    }
}
