//! The channels to the destination.

use std::net::Shutdown;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use multifd_core::channel::{PacketBuffer, SendChannel, SendConfig};
use multifd_core::wire::Uuid;
use multifd_core::{MethodDescriptor, MethodStats, PageSize, io};
use pollster::block_on;
use socket2::Socket;

use super::state::State;
use super::stopped;
use super::tap::{Tap, Tapped, Taps, Wire};
use crate::error::{Error, Side};
use crate::net;
use crate::progress::Progress;
use crate::session::{Session, Wake};
use crate::source::LAST_WORD;
use crate::source::queue::Work;
use crate::uri::Uri;

/// The destination's side of a relay.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) uri: Uri,
    pub(super) method: MethodDescriptor,
    pub(super) level: Option<i32>,
    pub(super) channels: u8,
    pub(super) connect_timeout: Duration,
    pub(super) progress: Progress,
    pub(super) tap: Option<Arc<dyn Tap>>,
}

/// A sending channel's thread, which ends with what the codec has counted.
pub(super) type Sending = JoinHandle<Option<MethodStats>>;

impl Destination {
    /// Makes a connection, which ends when the relay does.
    pub(super) fn connect(&self, session: &Session<State>) -> Result<Arc<Socket>, Error> {
        let socket = net::connect(&self.uri, self.connect_timeout);
        let socket = socket.map_err(Error::on(Side::To))?;
        session.register(&socket, Shutdown::Both);
        Ok(socket)
    }

    /// Connects all channels and starts a thread for each, to be added to `threads`.
    pub(super) fn start_channels(
        &self,
        session: &Arc<Session<State>>,
        page_size: PageSize,
        uuid: Uuid,
        threads: &mut Vec<Sending>,
    ) -> Result<(), Error> {
        let packet_num = Arc::default();
        for number in 0..self.channels {
            let config = SendConfig {
                channel: self.method.config(number, page_size, self.level)?,
                uuid,
                detect_zero_pages: false,
                packet_num: Arc::clone(&packet_num),
                counters: self.progress.counters(number),
            };
            threads.push(self.start(session, config)?);
        }
        Ok(())
    }

    fn start(&self, session: &Arc<Session<State>>, config: SendConfig) -> Result<Sending, Error> {
        let number = config.channel.channel;
        let taps = Taps::new(self.tap.as_ref(), Side::To, Wire::Channel(number));
        let writer = Tapped::new(io::Socket::new(self.connect(session)?), taps);
        let methods = self.method.methods;
        let send = move |session: &Session<State>| {
            let channel = block_on(SendChannel::open(writer, methods, config));
            let channel = channel.map_err(Error::from);
            let sent = channel.and_then(|channel| send(session, channel, number.into()));
            sent.inspect_err(|error| hear_last_word(session, error)).map_err(Error::on(Side::To))
        };
        session.spawn(format!("multifd-send-{number}"), send)
    }
}

/// Sends what there is to send, until there is no more or the relay stops.
fn send(
    session: &Session<State>,
    mut channel: SendChannel<Tapped<Arc<Socket>>>,
    number: usize,
) -> Result<MethodStats, Error> {
    loop {
        match session.wait_in_channel(|state| state.queue.next(number)).map_err(stopped)? {
            Work::Pages(buffer) => {
                block_on(channel.send_buffer(&buffer))?;
                give_back(session, buffer)?;
            }
            Work::Sync => {
                block_on(channel.send_sync())?;
                let synced = |state: &mut State| state.queue.note_sync(number);
                session.update(Wake::Main, synced).map_err(stopped)?;
            }
            Work::Finish => {
                let (writer, stats) = block_on(channel.finish())?;
                _ = writer.into_inner().get_ref().shutdown(Shutdown::Write);
                return Ok(stats);
            }
        }
    }
}

fn give_back(session: &Session<State>, buffer: PacketBuffer) -> Result<(), Error> {
    session.update(Wake::Nobody, |state| state.give_back(buffer)).map_err(stopped)
}

/// Gives a destination that closed a connection time to say why on the return path: its word fails
/// the migration first, says more than the broken pipe, and is for the source to hear.
pub(super) fn hear_last_word(session: &Session<State>, error: &Error) {
    if error.is_disconnect() && session.look(|state| state.return_path) {
        _ = session.wait_for::<()>(LAST_WORD, |_| None);
    }
}
