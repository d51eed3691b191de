//! A whole migration in this process, with its fault.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use multifd::core::MultiFdMethods;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::relay::{Relay, Relayed};
use multifd::{
    Arrived, CancelToken, Destination, Error, Incoming, PageSet, Progress, Source, Unfinished, Uri,
};

use crate::case::{Case, Fault, Own, Side};
use crate::codec::{Broken, codec};
use crate::guest::{Guest, ROUNDS, device_state};
use crate::line::{AllSeen, Line};
use crate::memory::{Fuse, Fused};
use crate::way::{Way, registry, tls};

/// More than any of these migrations may take, on however busy a machine.
pub(crate) const HANGS: Duration = Duration::from_secs(60);

/// Time limits of a migration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) progress: Duration,
    pub(crate) channel: Duration,
    pub(crate) connect: Duration,
    pub(crate) total: Duration,
}

const fn limits(progress: u64, channel: u64, connect: u64, total: u64) -> Limits {
    let [progress, channel, connect, total] = [
        Duration::from_millis(progress),
        Duration::from_millis(channel),
        Duration::from_millis(connect),
        Duration::from_millis(total),
    ];
    Limits { progress, channel, connect, total }
}

impl Limits {
    /// So many times as long, but less than what a migration that hangs is waited for.
    pub(crate) fn times(self, factor: u32) -> Self {
        let longer = |limit: Duration| (limit * factor).min(HANGS * 2 / 3);
        Self {
            progress: longer(self.progress),
            channel: longer(self.channel),
            connect: longer(self.connect),
            total: longer(self.total),
        }
    }

    /// Those in which a fault is to end: short where something hangs for sure. A source that cannot
    /// connect a channel says so before the destination misses more of the main channel.
    pub(crate) fn of(fault: Fault) -> Self {
        use crate::case::Failing;
        use crate::line::Act;
        match fault {
            Fault::Line(_, Act::Stall)
            | Fault::OneWay(_, Act::Stall)
            | Fault::Deaf(_)
            | Fault::Codec(_, _, _, Failing::Hang) => limits(800, 800, 400, 3000),
            Fault::None | Fault::Slow(_) | Fault::Line(_, Act::Pause(_)) => {
                limits(50_000, 50_000, 50_000, 55_000)
            }
            _ => limits(1500, 1500, 3000, 12_000),
        }
    }
}

/// What has become of a migration.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) guest: Guest,
    pub(crate) sent: Ended<Result<(), Unfinished>>,
    pub(crate) relayed: Option<Ended<Result<Relayed, Unfinished>>>,
    pub(crate) received: Ended<Received>,
    /// The fault has taken place.
    pub(crate) acted: bool,
    /// Sides that have never seen a source, and were told not to wait on for one.
    pub(crate) waited_on: Vec<Side>,
    pub(crate) seen: AllSeen,
}

/// The end of a side: `None` where it panicked into its caller's face.
pub(crate) type Ended<T> = Option<T>;

/// What has become of the destination.
#[derive(Debug)]
pub(crate) struct Received {
    /// Its RAM and device state, where it said that it has all.
    pub(crate) vm: Option<(Arc<Ram>, Vec<u8>)>,
    /// Whether it has confirmed it.
    pub(crate) ended: Result<(), Error>,
}

/// One side's parts that may be broken.
#[derive(Clone, Debug, Default)]
struct Parts {
    codec: Fuse,
    memory: Fuse,
}

/// A side that runs in a thread of its own.
struct Running<T> {
    thread: JoinHandle<()>,
    ended: Receiver<Ended<T>>,
    token: CancelToken,
}

impl<T: Send + 'static> Running<T> {
    fn start(token: CancelToken, body: impl FnOnce() -> T + Send + 'static) -> Self {
        let (say, ended) = channel();
        let body = move || _ = say.send(catch_unwind(AssertUnwindSafe(body)).ok());
        Self { thread: std::thread::spawn(body), ended, token }
    }

    /// Waits for its end, until then. `None` if it is not over.
    fn within(&self, deadline: Instant) -> Option<Ended<T>> {
        match self.ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(ended) => Some(ended),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("it was asked before"),
        }
    }
}

/// Runs the migration of `case`. An error where a side does not end.
pub(crate) fn run(case: Case) -> Result<Outcome, String> {
    run_with(case, Limits::of(case.fault))
}

/// As [`run`], within other limits.
pub(crate) fn run_with(case: Case, limits: Limits) -> Result<Outcome, String> {
    Migration { case, limits, parts: parts(case) }.run()
}

fn parts(case: Case) -> Parts {
    let codec = match case.fault {
        Fault::Codec(_, _, nth, _) => Fuse::new(nth),
        _ => Fuse::default(),
    };
    codec.arm(true);
    let memory = match case.fault {
        Fault::Own(_, nth) => Fuse::new(nth),
        _ => Fuse::default(),
    };
    Parts { codec, memory }
}

struct Migration {
    case: Case,
    limits: Limits,
    parts: Parts,
}

impl Migration {
    fn run(&self) -> Result<Outcome, String> {
        let folder = (self.case.way == Way::Unix).then(|| tempfile::tempdir().unwrap());
        let folder = folder.as_ref().map_or(Path::new(""), |folder| folder.path());
        let (at, destination, arriving) = self.destination(folder);
        let behaviour = self.case.fault.behaviour(self.case.way);
        let (line, relay, to) = match self.case.way {
            Way::BeforeRelay | Way::TlsRelay => {
                let (at, relay) = self.relay(&at);
                let line = Line::to(&at, folder, behaviour);
                let uri = line.uri.clone();
                (line, Some(relay), uri)
            }
            Way::BehindRelay => {
                let line = Line::to(&at, folder, behaviour);
                let (at, relay) = self.relay(&line.uri);
                (line, Some(relay), at)
            }
            _ => {
                let line = Line::to(&at, folder, behaviour);
                let uri = line.uri.clone();
                (line, None, uri)
            }
        };
        let source = self.source(to);
        let cancelling = self.cancelling(&source, relay.as_ref(), &destination);
        let mut waited_on = Vec::new();
        let ended = self.wait(&source, relay.as_ref(), &destination, &arriving, &mut waited_on);
        let (guest_and_sent, relayed, received) = ended?;
        for thread in [Some(source.thread), relay.map(|(relay, _)| relay.thread), cancelling] {
            thread.into_iter().for_each(|thread| thread.join().unwrap());
        }
        destination.thread.join().unwrap();
        self.parts.memory.arm(false);
        let is_line =
            matches!(self.case.fault, Fault::Line(..) | Fault::Unchecked(..) | Fault::OneWay(..));
        let is_blown = self.parts.codec.is_blown() || self.parts.memory.is_blown();
        let is_deaf = matches!(self.case.fault, Fault::Deaf(_));
        let acted = if is_line { line.has_acted() } else { is_blown || is_deaf };
        let Some((guest, sent)) = guest_and_sent else {
            return Err("the source's test panicked".into());
        };
        Ok(Outcome { guest, sent, relayed, received, acted, waited_on, seen: line.seen() })
    }

    /// Waits for all sides. One that waits for a source that will not come is told to end.
    #[allow(clippy::type_complexity, reason = "each side's end")]
    fn wait(
        &self,
        source: &Running<(Guest, Ended<Result<(), Unfinished>>)>,
        relay: Option<&(Running<Result<Relayed, Unfinished>>, Progress)>,
        destination: &Running<Received>,
        arriving: &Progress,
        waited_on: &mut Vec<Side>,
    ) -> Result<
        (
            Ended<(Guest, Ended<Result<(), Unfinished>>)>,
            Option<Ended<Result<Relayed, Unfinished>>>,
            Ended<Received>,
        ),
        String,
    > {
        let deadline = Instant::now() + HANGS;
        let hangs = |side: Side| format!("{side:?} is not over after {HANGS:?}");
        let sent = source.within(deadline).ok_or_else(|| hangs(Side::Source))?;
        let relayed = match relay {
            None => None,
            Some((relay, progress)) => {
                let relayed = end(relay, progress, deadline, || waited_on.push(Side::Relay));
                Some(relayed.ok_or_else(|| hangs(Side::Relay))?)
            }
        };
        let received = end(destination, arriving, deadline, || waited_on.push(Side::Destination));
        Ok((sent, relayed, received.ok_or_else(|| hangs(Side::Destination))?))
    }

    /// The codec of a side.
    fn codec(&self, side: Side) -> Arc<dyn MultiFdMethods> {
        let inner = match self.case.fault {
            Fault::Mismatch(other) if side == Side::Destination => codec(other),
            _ => codec(self.case.codec),
        };
        match self.case.fault {
            Fault::Codec(broken, call, _, how) if broken == side => {
                Arc::new(Broken { inner, call, how, fuse: self.parts.codec.clone() })
            }
            _ => inner,
        }
    }

    fn destination(&self, folder: &Path) -> (Uri, Running<Received>, Progress) {
        // Behind a relay that is to notice first.
        let is_behind = matches!(self.case.way, Way::BeforeRelay | Way::TlsRelay);
        let Limits { progress, channel, total, .. } =
            self.limits.times(if is_behind { 2 } else { 1 });
        let mut setup = Destination::builder(registry())
            .compression(self.codec(Side::Destination))
            .progress_timeout(Some(progress))
            .channel_timeout(channel)
            .time_limit(Some(total));
        if self.case.way.is_encrypted() {
            setup = setup.tls(tls().1.clone());
        }
        let destination = setup.listen(&self.case.way.listen(folder, "destination")).unwrap();
        let (uri, arriving) = (destination.uri().clone(), destination.progress());
        let (fault, fuse) = (self.case.fault, self.parts.memory.clone());
        let token = destination.cancel_token();
        let receive = move || receive(destination, fault, &fuse);
        (uri, Running::start(token, receive), arriving)
    }

    fn relay(&self, to: &Uri) -> (Uri, (Running<Result<Relayed, Unfinished>>, Progress)) {
        let Limits { progress, channel, connect, total } = self.limits;
        let mut setup = Relay::builder(registry());
        if self.case.way.is_encrypted() {
            setup = setup.from_tls(tls().1.clone()).to_tls(tls().0.clone());
        }
        let relay = setup
            .from_compression(codec(self.case.codec))
            .to_compression(self.codec(Side::Relay))
            .progress_timeout(Some(progress))
            .channel_timeout(channel)
            .connect_timeout(connect)
            .time_limit(Some(total))
            .listen(&crate::common::any_port(), to)
            .unwrap();
        let (uri, token) = (relay.uri().clone(), relay.cancel_token());
        let progress = relay.progress().from;
        (uri, (Running::start(token, move || relay.run()), progress))
    }

    fn source(&self, to: Uri) -> Running<(Guest, Ended<Result<(), Unfinished>>)> {
        let Limits { progress, connect, total, .. } = self.limits;
        let token = CancelToken::new();
        let (own, case, fuse) = (token.clone(), self.case, self.parts.memory.clone());
        let methods = self.codec(Side::Source);
        Running::start(token, move || {
            let is_read = matches!(case.fault, Fault::Own(Own::Read, _));
            let mut guest = if is_read {
                let fuse = fuse.clone();
                Guest::in_memory(move |memory| Fused {
                    memory,
                    fuse: fuse.clone(),
                    in_marks: false,
                })
            } else {
                Guest::new()
            };
            let ram = Arc::clone(&guest.ram);
            let send = AssertUnwindSafe(|| {
                let mut setup = Source::builder(registry(), ram)
                    .compression(methods)
                    .progress_timeout(Some(progress))
                    .connect_timeout(connect)
                    .time_limit(Some(total))
                    .digests(!matches!(case.fault, Fault::Unchecked(..)))
                    .return_path(!matches!(case.fault, Fault::OneWay(..)))
                    .cancelled_by(&own);
                if case.way.is_encrypted() {
                    setup = setup.tls(tls().0.clone());
                }
                send(setup.connect(&to)?, &mut guest, case.fault, &fuse)
            });
            let sent = catch_unwind(send).ok();
            (guest, sent)
        })
    }

    fn cancelling(
        &self,
        source: &Running<(Guest, Ended<Result<(), Unfinished>>)>,
        relay: Option<&(Running<Result<Relayed, Unfinished>>, Progress)>,
        destination: &Running<Received>,
    ) -> Option<JoinHandle<()>> {
        let Fault::Cancel(side, micros) = self.case.fault else { return None };
        let token = match side {
            Side::Source => source.token.clone(),
            Side::Relay => relay?.0.token.clone(),
            Side::Destination => destination.token.clone(),
        };
        Some(std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(micros.into()));
            token.cancel();
        }))
    }
}

/// Sends the guest: all of it, what it writes meanwhile, and the rest with its devices.
fn send(
    mut source: Source,
    guest: &mut Guest,
    fault: Fault,
    fuse: &Fuse,
) -> Result<(), Unfinished> {
    let is_read = matches!(fault, Fault::Own(Own::Read, _));
    let arm = |armed| {
        if is_read {
            fuse.arm(armed);
        }
    };
    arm(true);
    let mut pages = PageSet::all(&guest.ram);
    while let Fault::Deaf(_) = fault {
        // More than is on its way at any time.
        source.round(&pages)?;
    }
    for round in 0..ROUNDS {
        source.round(&pages)?;
        arm(false);
        pages = guest.write(round);
        arm(true);
    }
    let state = device_state();
    match fault {
        Fault::Own(Own::StateOut, bytes) => {
            let rest = io::Cursor::new(&state).take(bytes.into());
            source.finish_from(&pages, rest.chain(Unreadable(fuse)))
        }
        _ => source.finish(&pages, Some(&state)),
    }
    .map(drop)
}

/// A device state whose rest cannot be read.
struct Unreadable<'a>(&'a Fuse);

impl Read for Unreadable<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.blow();
        Err(io::Error::other("the device is gone"))
    }
}

/// Takes the guest in, and confirms it.
fn receive(destination: Destination, fault: Fault, fuse: &Fuse) -> Received {
    let own = if let Fault::Own(own, nth) = fault { Some((own, nth)) } else { None };
    let is = |kind: Own| own.is_some_and(|(own, _)| own == kind);
    let provide = |incoming: &Incoming<'_>| {
        if is(Own::Provide) {
            fuse.blow();
            return Err(Error::caller("no memory left"));
        }
        let in_marks = own.is_some_and(|(_, nth)| nth % 2 == 1);
        let blocks = incoming.blocks.iter().map(|info| {
            let memory = MmapRegion::<()>::new(info.bytes as usize).unwrap();
            match is(Own::Write) {
                true => {
                    let memory = Fused { memory, fuse: fuse.clone(), in_marks };
                    RamBlock::new(info.name.clone(), memory)
                }
                false => RamBlock::new(info.name.clone(), memory).fresh(),
            }
        });
        let ram = Ram::new(incoming.page_size, blocks.collect::<Vec<_>>())?;
        if is(Own::Write) {
            fuse.arm(true);
        }
        Ok(Arc::new(ram))
    };
    let mut pieces = Vec::new();
    let arrived = if is(Own::StateIn) {
        fuse.arm(true);
        destination.receive_in_pieces(provide, |piece| {
            pieces.extend_from_slice(piece);
            if fuse.holds() { Ok(()) } else { Err(Error::caller("the disk is full")) }
        })
    } else {
        destination.receive(provide)
    };
    if is(Own::Write) {
        fuse.arm(false);
    }
    match arrived {
        Err(error) => Received { vm: None, ended: Err(error) },
        Ok(arrived) => store(arrived, pieces, is(Own::Store).then_some(fuse)),
    }
}

/// Stores what has arrived, if that can be done, and confirms it.
fn store(arrived: Arrived, pieces: Vec<u8>, fails: Option<&Fuse>) -> Received {
    if let Some(fuse) = fails {
        fuse.blow();
        return Received { vm: None, ended: Err(Error::caller("the disk is full")) };
    }
    let state = if pieces.is_empty() { arrived.vm.device_state.clone() } else { pieces };
    let vm = Some((Arc::clone(&arrived.ram), state));
    Received { vm, ended: arrived.confirm().map(drop) }
}

/// How long a side may wait for a source that has ended.
const WAITS_ON: Duration = Duration::from_millis(300);

/// Waits for the end of a side whose source has ended.
fn end<T: Send + 'static>(
    side: &Running<T>,
    progress: &Progress,
    deadline: Instant,
    waits_on: impl FnOnce(),
) -> Option<Ended<T>> {
    // It waits for a source that may come yet, as it should.
    if let Some(ended) = side.within(Instant::now() + WAITS_ON) {
        return Some(ended);
    }
    if progress.snapshot().main_bytes == 0 {
        waits_on();
        side.token.cancel();
    }
    side.within(deadline)
}
