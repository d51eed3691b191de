//! A sending channel's thread.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use multifd_core::channel::{ChannelCounters, SendChannel, SendConfig};
use multifd_core::{MethodDescriptor, MethodStats, io};
use pollster::block_on;
use socket2::Socket;

use super::builder::{SourceBuilder, ZeroPages};
use super::queue::{Queue, Work};
use super::{explained, stopped};
use crate::error::Error;
use crate::session::{Session, Wake};

/// What the channel `number` needs to know.
pub(super) fn config(
    setup: &SourceBuilder<'_>,
    method: &MethodDescriptor,
    number: u8,
    packet_num: &Arc<AtomicU64>,
    counters: Arc<ChannelCounters>,
) -> Result<SendConfig, Error> {
    Ok(SendConfig {
        channel: method.config(number, setup.ram.page_size(), setup.level)?,
        uuid: setup.uuid,
        detect_zero_pages: setup.zero_pages == ZeroPages::Channels,
        packet_num: Arc::clone(packet_num),
        counters,
    })
}

/// Starts a channel's thread. It ends with what the codec has counted.
pub(super) fn start(
    session: &Arc<Session<Queue>>,
    socket: Arc<Socket>,
    method: &MethodDescriptor,
    config: SendConfig,
) -> Result<JoinHandle<Option<MethodStats>>, Error> {
    let methods = method.methods;
    let number = config.channel.channel;
    let send = move |session: &Session<Queue>| {
        block_on(SendChannel::open(io::Socket::new(socket), methods, config))
            .map_err(Error::from)
            .and_then(|channel| send(session, channel, number.into()))
            .map_err(|error| explained(session, error))
    };
    session.spawn(format!("multifd-send-{number}"), send)
}

/// Sends what there is to send, until there is no more or the migration stops.
fn send(
    session: &Session<Queue>,
    mut channel: SendChannel<io::Socket<Arc<Socket>>>,
    number: usize,
) -> Result<MethodStats, Error> {
    loop {
        match session.wait_in_channel(|queue| queue.next(number)).map_err(stopped)? {
            Work::Pages(batch) => block_on(channel.send_pages(&batch))?,
            Work::Sync => {
                block_on(channel.send_sync())?;
                session.update(Wake::Main, |queue| queue.note_sync(number)).map_err(stopped)?;
            }
            Work::Finish => {
                let (socket, stats) = block_on(channel.finish())?;
                _ = socket.get_ref().shutdown(Shutdown::Write);
                return Ok(stats);
            }
        }
    }
}
