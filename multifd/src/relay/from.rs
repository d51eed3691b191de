//! The channels from the source.

use std::sync::Arc;

use multifd_core::channel::{PacketBuffer, Received, RecvChannel};
use multifd_core::ram::Ram;
use multifd_core::wire::{InitialPacket, RamPacket};
use multifd_core::{MethodDescriptor, MethodStats, io};
use pollster::block_on;
use socket2::Socket;

use super::state::{State, Vm};
use super::stopped;
use super::tap::{Tap, Tapped, Taps, Wire};
use crate::destination::accept::Intake;
use crate::error::{Error, Side};
use crate::progress::Progress;
use crate::session::{Session, Wake};

/// Takes channels in and queues their pages for the other side.
#[derive(Debug)]
pub(super) struct IntoQueue {
    pub(super) method: MethodDescriptor,
    pub(super) progress: Progress,
    pub(super) tap: Option<Arc<dyn Tap>>,
}

impl Intake for IntoQueue {
    type State = State;

    fn receive(
        &self,
        session: &Session<State>,
        initial: InitialPacket,
        socket: io::Socket<Arc<Socket>>,
    ) -> Result<MethodStats, Error> {
        let number = initial.channel;
        let taps = Taps::new(self.tap.as_ref(), Side::From, Wire::Channel(number));
        taps.pass(&initial.to_bytes());
        // Channels connect while the main channel is still on its way to announcing the RAM.
        let vm = session.wait(Wake::Nobody, |state| state.vm()).map_err(stopped)?;
        // The pages never get to any RAM; only their size is asked for.
        let ram = Arc::new(Ram::new(vm.page_size, [])?);
        let (methods, counters) = (self.method.methods, self.progress.counters(number));
        let reader = Tapped::new(socket, taps);
        let channel = block_on(RecvChannel::new(reader, methods, number, ram, counters));
        let channel = channel.map_err(Error::from);
        let queued = channel.and_then(|channel| queue_all(session, channel, number, &vm));
        queued.map_err(Self::blame)
    }

    fn blame(error: Error) -> Error {
        Error::on(Side::From)(error)
    }
}

/// Queues the packets of a channel, up to its end.
fn queue_all(
    session: &Session<State>,
    mut channel: RecvChannel<Tapped<Arc<Socket>>>,
    number: u8,
    vm: &Vm,
) -> Result<MethodStats, Error> {
    let mut spare = None;
    loop {
        let mut buffer = match spare.take() {
            Some(buffer) => buffer,
            None => PacketBuffer::new(vm.page_size)?,
        };
        let admit = |packet: &RamPacket<'_>| {
            vm.check(packet).map_err(|error| {
                let error = multifd_core::Error::from(error);
                error.in_packet(packet.packet_num).on_channel(number)
            })?;
            let admit = |state: &mut State| state.as_mut().admit(number, packet);
            session.update(Wake::Nobody, admit).map_err(stopped)?
        };
        let received = block_on(channel.next_into(&mut buffer, admit))?;
        spare = Some(buffer);
        if spare.as_ref().is_some_and(|buffer| !buffer.is_empty()) {
            session.wait(Wake::OneChannel, |state| state.pass_on(&mut spare)).map_err(stopped)?;
        }
        match received {
            Received::Pages => {}
            Received::Sync => sync(session, number)?,
            Received::End => break,
        }
    }
    session.update(Wake::Main, |state| state.as_mut().end(number)).map_err(stopped)?;
    let (_, stats) = block_on(channel.finish())?;
    Ok(stats)
}

/// Waits until all channels and the main channel are where this one is.
fn sync(session: &Session<State>, number: u8) -> Result<(), Error> {
    let at_sync = |state: &mut State| state.as_mut().sync(number);
    let next = session.update(Wake::Main, at_sync).map_err(stopped)?;
    let passed = |state: &mut State| (state.as_mut().generation() >= next).then_some(());
    session.wait(Wake::Nobody, passed).map_err(stopped)
}
