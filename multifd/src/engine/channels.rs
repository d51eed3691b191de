//! The channels' threads: one loop that sends, one that receives.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use multifd_core::channel::{PacketBuffer, Received, RecvMachine, SendConfig, SendMachine, Target};
use multifd_core::ram::{PageBatch, RamDigests, SentPages};
use multifd_core::wire::{InitialPacket, RamPacket};
use multifd_core::{MultiFdMethods, PageSize};

use super::Receiving;
use super::outgoing::Outgoing;
use super::pace::{Pace, Paced};
use super::queue::{Queue, Work};
use super::session::{Failure, Session, Stopped, Waiter, Wake};
use crate::driver::{Receive, RecvChannel, SendChannel, Transmit, ZeroCopyCounters};
use crate::error::Error;
use crate::progress::Progress;
use crate::transport::{Connection, Link};

/// The state of a migration with channels that send.
pub(crate) trait Sending: Send + 'static {
    /// What a channel sends as one packet.
    type Batch: Batch;

    fn queue(&mut self) -> &mut Queue<Self::Batch>;

    /// Takes back a buffer whose packet has been sent.
    fn give_back(&mut self, _buffer: PacketBuffer) {}
}

/// The pages of one packet, from the VM's RAM or on their way through a relay.
pub(crate) trait Batch: Send {
    fn load(self, machine: &mut SendMachine) -> Result<(), multifd_core::Error>;
}

impl Batch for PageBatch {
    fn load(self, machine: &mut SendMachine) -> Result<(), multifd_core::Error> {
        machine.pages(self)
    }
}

impl Batch for PacketBuffer {
    fn load(self, machine: &mut SendMachine) -> Result<(), multifd_core::Error> {
        machine.buffer(self)
    }
}

/// The channels to a destination, before they are connected.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    pub(crate) to: Outgoing,
    pub(crate) connect_timeout: Duration,
    pub(crate) methods: Arc<dyn MultiFdMethods>,
    pub(crate) level: Option<i32>,
    pub(crate) count: u8,
    /// Whether the channels look for zero pages.
    pub(crate) detect_zero_pages: bool,
    /// The limit of all bytes to the destination.
    pub(crate) pace: Option<Arc<Pace>>,
    pub(crate) progress: Progress,
    /// Where the channels note the hashes of the pages that they send.
    pub(crate) digests: Option<Arc<RamDigests>>,
    /// Where the channels note the pages that they must not send as zero any more.
    pub(crate) sent: Option<Arc<SentPages>>,
    /// Has guest memory sent without a copy, and counts what is.
    pub(crate) zero_copy: Option<Arc<ZeroCopyCounters>>,
}

impl Channels {
    /// Connects the main channel, whose connection ends when the migration does.
    pub(crate) fn main<S: Send + 'static>(
        &self,
        session: &Session<S>,
    ) -> Result<Connection, Failure> {
        self.to.main(session, self.connect_timeout)
    }

    /// Connects all channels and starts a thread for each. Of `announced`, an initial packet, all have
    /// what is not the channel's number. `stream` makes of a connection, with the
    /// channel's number, what the channel is written to, and `explain` of its error the migration's.
    pub(crate) fn start<S, W>(
        &self,
        session: &Arc<Session<S>>,
        page_size: PageSize,
        announced: InitialPacket,
        stream: impl Fn(Link, u8) -> W,
        explain: fn(&Session<S>, Error) -> Error,
    ) -> Result<(), Failure>
    where
        S: Sending,
        W: Transmit + 'static,
    {
        let packet_num: Arc<AtomicU64> = Arc::default();
        for number in 0..self.count {
            let config = self.methods.descriptor().config(number, page_size, self.level)?;
            let config = SendConfig::new(config)
                .with_uuid(announced.uuid)
                .with_detect_zero_pages(self.detect_zero_pages)
                .with_packet_num(Arc::clone(&packet_num))
                .with_counters(self.progress.counters(number))
                .with_digests(self.digests.clone())
                .with_sent_pages(self.sent.clone())
                .with_announced_digests(announced.digests);
            let connection = self.to.channel(number, session, self.connect_timeout)?;
            let link = Link::new(&connection);
            let link = match &self.zero_copy {
                Some(counters) => link.with_zero_copy(counters).map_err(Error::ZeroCopy)?,
                None => link,
            };
            let stream = stream(link, number);
            let stream = Paced::new(stream, session, self.pace.as_ref());
            let methods = Arc::clone(&self.methods);
            let run = move |session: &Session<S>| {
                let _ended = NoteEnd(session);
                let sent = send(session, &*methods, config, stream);
                let sent = sent.map_err(|failure| failure.map(|error| explain(session, error)));
                let sent = session.settle(sent);
                connection.shut_down(Shutdown::Write);
                sent
            };
            session.spawn(&format!("send-{number}"), run)?;
        }
        Ok(())
    }
}

/// Notes that a channel has ended, however it does: a codec may panic.
struct NoteEnd<'a, S: Sending>(&'a Session<S>);

impl<S: Sending> Drop for NoteEnd<'_, S> {
    fn drop(&mut self) {
        // Nobody waits for it where the migration has stopped.
        _ = self.0.update(Wake::Main, |state| state.queue().note_end());
    }
}

/// How long codecs may take to clean up when a migration has succeeded.
const CLEANUP: Duration = Duration::from_secs(3);

/// Has the channels of a migration that has succeeded end, and waits for it for a limited time: neither
/// a failure nor a cancellation stops it any more, and a device may hang. What is not done by then is
/// dropped at the end of the session.
pub(crate) fn finish_succeeded<S: Sending>(session: &Session<S>) -> Result<(), Stopped> {
    session.update(Wake::Senders, |state| state.queue().finish())?;
    let ended = session.wait_for(Waiter::Main, "the channels to end", CLEANUP, |state| {
        state.queue().all_ended().then_some(())
    })?;
    if ended.is_none() {
        tracing::warn!(
            "a codec does not end; the migration has succeeded and does not wait for it"
        );
    }
    Ok(())
}

/// Has the channels end, and waits for it.
pub(crate) fn finish<S: Sending>(session: &Session<S>) -> Result<(), Stopped> {
    session.update(Wake::Senders, |state| state.queue().finish())?;
    session.wait_for_room(Waiter::Main, "the channels to end", |state| {
        state.queue().all_ended().then_some(())
    })
}

/// Sends what there is to send, until there is no more or the migration stops.
fn send<S: Sending>(
    session: &Session<S>,
    methods: &dyn MultiFdMethods,
    config: SendConfig,
    stream: impl Transmit,
) -> Result<(), Failure> {
    let number = config.channel.channel;
    let machine = session.run(SendMachine::new(methods, config))??;
    let mut channel = SendChannel::new(machine, stream);
    session.run(channel.send())??;
    loop {
        let work =
            session.wait(Waiter::Sender, "pages or a SYNC", |state| state.queue().next(number))?;
        match work {
            Work::Pages(batch) => {
                session.wake(Wake::Feeders);
                batch.load(channel.machine())?;
                session.run(channel.send())??;
                if let Some(buffer) = channel.machine().take_buffer() {
                    session.update(Wake::Nobody, |state| state.give_back(buffer))?;
                }
            }
            Work::Sync => {
                channel.machine().sync()?;
                session.run(channel.send())??;
                // The next round may send these pages again, on another channel.
                session.run(channel.settle())??;
                session.update(Wake::Feeders, |state| state.queue().note_sync(number))?;
            }
            Work::Finish => {
                session.run(channel.finish())??;
                return Ok(());
            }
        }
    }
}

/// What becomes of the pages that the channels bring: a destination has them written to RAM, a relay
/// passes them on.
pub(crate) trait Intake: Send + Sync + Sized + 'static {
    /// What the migration's threads share beside the receiving side's own.
    type More: Send + 'static;
    /// What the main channel has announced of the VM.
    type Vm: Clone + Send;

    /// The codec, and where channels count.
    fn codec(&self) -> &Codec;

    /// How long nothing may come of the main channel when a channel has ended early; any time with
    /// `None`, where streams are files that end when they like.
    fn grace(&self) -> Option<Duration>;

    /// The VM, as soon as it has been announced.
    fn vm(more: &Self::More) -> Option<(Self::Vm, PageSize)>;

    /// Where the hashes of its pages are noted, if its source announces their digests.
    fn digests(vm: &Self::Vm) -> Option<Arc<RamDigests>>;

    /// Where the pages of a packet of `channel` go.
    fn target(
        &self,
        session: &Session<Receiving<Self::More>>,
        vm: &Self::Vm,
        channel: u8,
        packet: &RamPacket<'_>,
    ) -> Result<Target, Failure>;

    /// A packet's pages are there, in the buffer that the machine gives back where they have been
    /// placed in one.
    fn received(
        &self,
        session: &Session<Receiving<Self::More>>,
        buffer: Option<PacketBuffer>,
    ) -> Result<(), Failure>;
}

/// What receiving channels need of their codec.
#[derive(Clone, Debug)]
pub(crate) struct Codec {
    pub(crate) methods: Arc<dyn MultiFdMethods>,
    pub(crate) progress: Progress,
}

/// Takes in a channel from behind its initial packet to its end.
pub(crate) fn receive<I: Intake>(
    session: &Session<Receiving<I::More>>,
    intake: &I,
    number: u8,
    stream: impl Receive,
) -> Result<(), Failure> {
    // Channels connect while the main channel is still on its way to announcing the RAM.
    let (vm, page_size) =
        session
            .wait(Waiter::Receiver, "the announcement of the RAM", |state| I::vm(&state.more))?;
    let Codec { methods, progress } = intake.codec();
    let counters = progress.counters(number);
    let machine = session.run(RecvMachine::new(&**methods, number, page_size, counters))??;
    let announced = session.look(|state| state.connections.announces_digests(number));
    let machine = machine.with_digests(I::digests(&vm).filter(|_| announced));
    let mut channel = RecvChannel::new(machine, stream);
    loop {
        let admit = |packet: &RamPacket<'_>| {
            session.update(Wake::Nobody, |state| state.admit(number, packet))??;
            intake.target(session, &vm, number, packet)
        };
        let received = session.run(channel.next(admit))??;
        if received == Received::End {
            break;
        }
        intake.received(session, channel.machine().take_buffer())?;
        if received == Received::Sync {
            sync(session, number)?;
        }
    }
    // Before its end is noted: a migration that is over does not wait for it.
    session.run(channel.finish())??;
    let early = session.update(Wake::Main, |state| {
        state.barrier.ended(number);
        !state.barrier.is_complete()
    })?;
    if let Some(grace) = intake.grace().filter(|_| early) {
        session.watch().has_ended_one(grace);
    }
    Ok(())
}

/// Waits until all channels and the main channel are where this one is.
fn sync<M: Send + 'static>(session: &Session<Receiving<M>>, number: u8) -> Result<(), Failure> {
    session.update(Wake::Main, |state| state.barrier.at_sync(number))??;
    session.wait(Waiter::Receiver, "all others at the SYNC", |state| {
        state.barrier.has_passed(number).then_some(())
    })?;
    Ok(())
}
