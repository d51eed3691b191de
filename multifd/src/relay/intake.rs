//! The channels from the source, whose pages are queued for the other side.

use std::sync::Arc;
use std::time::Duration;

use multifd_core::PageSize;
use multifd_core::channel::{PacketBuffer, Target};
use multifd_core::ram::RamDigests;
use multifd_core::wire::RamPacket;

use super::state::{Relaying, State, Vm};
use super::tap::{Tap, Tapped, Taps, Wire};
use crate::engine::accept::Accept;
use crate::engine::channels::{self, Codec, Intake};
use crate::engine::session::{Failure, Session, Waiter, Wake};
use crate::error::{Error, Side};
use crate::transport::Link;

/// Has the channels' pages queued for the other side.
#[derive(Debug)]
pub(super) struct IntoQueue {
    pub(super) codec: Codec,
    pub(super) grace: Option<Duration>,
    pub(super) tap: Option<Arc<dyn Tap>>,
}

impl Intake for IntoQueue {
    type More = Relaying;
    type Vm = Arc<Vm>;

    fn codec(&self) -> &Codec {
        &self.codec
    }

    fn grace(&self) -> Option<Duration> {
        self.grace
    }

    fn vm(state: &Relaying) -> Option<(Arc<Vm>, PageSize)> {
        state.vm.as_ref().map(|vm| (Arc::clone(vm), vm.page_size))
    }

    fn digests(_: &Arc<Vm>) -> Option<Arc<RamDigests>> {
        None
    }

    fn target(
        &self,
        session: &Session<State>,
        vm: &Arc<Vm>,
        channel: u8,
        packet: &RamPacket<'_>,
    ) -> Result<Target, Failure> {
        let (spare, has_synced) = session
            .update(Wake::Nobody, |state| (state.more.spares.pop(), state.barrier.has_synced()))?;
        // The same for every order of threads: no channel is past its first SYNC before all are at it.
        // The destination gets to see the list of blocks with that sync, and a QEMU without it crashes.
        if packet.pages.is_some() && !has_synced {
            return Err(Error::BeforeFirstSync(channel).into());
        }
        vm.check(packet).map_err(|error| {
            multifd_core::Error::from(error).in_packet(packet.packet_num).on_channel(channel)
        })?;
        let buffer = match spare {
            Some(buffer) => buffer,
            None => PacketBuffer::new(vm.page_size)?,
        };
        Ok(Target::Buffer(buffer))
    }

    fn received(
        &self,
        session: &Session<State>,
        mut buffer: Option<PacketBuffer>,
    ) -> Result<(), Failure> {
        if let Some(empty) = buffer.take_if(|buffer| buffer.is_empty()) {
            session.update(Wake::Nobody, |state| state.more.spares.push(empty))?;
            return Ok(());
        }
        session
            .wait(Waiter::Receiver, "room for a packet", |state| state.more.pass_on(&mut buffer))?;
        session.wake(Wake::OneSender);
        Ok(())
    }
}

impl Accept for IntoQueue {
    fn receive(
        &self,
        session: &Session<State>,
        number: u8,
        initial: &[u8],
        link: Link,
    ) -> Result<(), Failure> {
        let taps = Taps::new(self.tap.as_ref(), Side::From, Wire::Channel(number));
        taps.pass(initial);
        channels::receive(session, self, number, Tapped::new(link, taps))
    }

    fn blame(error: Error) -> Error {
        Error::on(Side::From)(error)
    }
}
