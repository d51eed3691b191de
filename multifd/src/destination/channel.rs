//! A receiving channel's thread.

use std::fmt;
use std::sync::Arc;

use multifd_core::channel::{ChannelCounters, Received, RecvChannel};
use multifd_core::io::ChannelReader;
use multifd_core::wire::{InitialPacket, RamPacket};
use multifd_core::{MethodDescriptor, MethodStats};
use pollster::block_on;

use super::state::State;
use super::stopped;
use crate::error::Error;
use crate::session::{Session, Wake};

/// Takes note of the channel that a connection has turned out to be.
pub(super) fn add<T>(
    session: &Session<T>,
    connection: u64,
    initial: InitialPacket,
) -> Result<(), Error>
where
    T: AsMut<State> + fmt::Debug + Send + 'static,
{
    let add = |state: &mut T| state.as_mut().add_channel(connection, initial);
    let added = session.update(Wake::Main, add).map_err(stopped)?;
    Ok(added.map_err(|error| multifd_core::Error::from(error).on_channel(initial.channel))?)
}

/// Takes in a channel from behind its initial packet to its end.
pub(super) fn receive<R: ChannelReader>(
    session: &Session<State>,
    method: &MethodDescriptor,
    number: u8,
    reader: R,
    counters: Arc<ChannelCounters>,
) -> Result<MethodStats, Error> {
    // Channels connect while the main channel is still on its way to announcing the RAM.
    let ram = session.wait_in_channel(|state| state.ram()).map_err(stopped)?;
    let mut channel = block_on(RecvChannel::new(reader, method.methods, number, ram, counters))?;
    loop {
        let admit = |packet: &RamPacket<'_>| {
            session.update(Wake::Nobody, |state| state.admit(number, packet)).map_err(stopped)?
        };
        match block_on(channel.next_if(admit))? {
            Received::Pages => {}
            Received::Sync => {
                let next =
                    session.update(Wake::Main, |state| state.sync(number)).map_err(stopped)?;
                let passed = |state: &mut State| (state.generation() >= next).then_some(());
                session.wait_in_channel(passed).map_err(stopped)?;
            }
            Received::End => break,
        }
    }
    session.update(Wake::Main, |state| state.end(number)).map_err(stopped)?;
    let (_, stats) = block_on(channel.finish())?;
    Ok(stats)
}
