//! Channels on tokio's streams: a future dropped at any of its awaits changes nothing.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use multifd::core::channel::{
    Opened, Opening, Received, RecvMachine, SendConfig, SendMachine, Target,
};
use multifd::core::none::Plain;
use multifd::core::ram::{GuestPages, NormalPages, PageBatch, Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::core::wire::{BlockName, RamPacket};
use multifd::core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, MultiFdMethods, PageSize,
    Payload, RecvMethod, SendMethod, async_trait,
};
use multifd::driver::{RecvChannel, SendChannel, Tokio, open};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use Received::{End, Pages, Sync};

const PAGES: u64 = 64;
const PAGE: usize = 4096;

/// A stream that moves few bytes at a time, and never before it has been asked twice.
#[derive(Clone, Debug, Default)]
struct Dribble(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    bytes: VecDeque<u8>,
    closed: bool,
    asked: [bool; 3],
}

const READ: usize = 0;
const WRITE: usize = 1;
const FLUSH: usize = 2;
const MOST: usize = 3001;

impl Shared {
    /// Pending every other time.
    fn turn(&mut self, operation: usize) -> Poll<()> {
        let asked = &mut self.asked[operation];
        *asked = !*asked;
        if *asked { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl AsyncRead for Dribble {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock().unwrap();
        if shared.turn(READ).is_pending() || (shared.bytes.is_empty() && !shared.closed) {
            return Poll::Pending;
        }
        let count = room.remaining().min(shared.bytes.len()).min(MOST);
        let bytes: Vec<u8> = shared.bytes.drain(..count).collect();
        room.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.0.lock().unwrap();
        if shared.turn(WRITE).is_pending() || shared.bytes.len() > 10 * MOST {
            return Poll::Pending;
        }
        let count = bytes.len().min(MOST);
        shared.bytes.extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().turn(FLUSH).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().closed = true;
        Poll::Ready(Ok(()))
    }
}

/// A codec that awaits before and behind each page, for the first time that it gets so far.
#[derive(Debug)]
struct Pausing;

struct Side {
    /// How far it has got in the current packet.
    furthest: usize,
}

impl Side {
    async fn pause(&mut self, step: usize) {
        if step >= self.furthest {
            self.furthest = step + 1;
            let mut asked = false;
            std::future::poll_fn(|_| {
                if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }
}

#[async_trait]
impl MultiFdMethods for Pausing {
    fn descriptor(&self) -> MethodDescriptor {
        MethodDescriptor::new("pausing", "for a test", Compression::Zstd)
    }

    fn probe(&self) -> Availability {
        Availability::Available("here".to_owned())
    }

    async fn send_setup(&self, _: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Side { furthest: 0 }))
    }

    async fn recv_setup(&self, _: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Side { furthest: 0 }))
    }
}

#[async_trait]
impl SendMethod for Side {
    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        assert!(payload.is_empty(), "what a dropped call has made is gone");
        for (step, page) in pages.private().chunks(PAGE).enumerate() {
            self.pause(2 * step).await;
            let made: Vec<u8> = page.iter().map(|byte| byte ^ 0x5a).collect();
            payload.push(&made);
            self.pause(2 * step + 1).await;
        }
        self.furthest = 0;
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl RecvMethod for Side {
    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error> {
        assert_eq!(payload.len(), pages.bytes());
        for (step, page) in payload.chunks(PAGE).enumerate() {
            self.pause(2 * step).await;
            let restored: Vec<u8> = page.iter().map(|byte| byte ^ 0x5a).collect();
            pages.write(step, &restored);
            self.pause(2 * step + 1).await;
        }
        self.furthest = 0;
        Ok(())
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

fn ram() -> Arc<Ram> {
    let memory = MmapRegion::<()>::new(PAGES as usize * PAGE).unwrap();
    let block = RamBlock::new(BlockName::new("ram").unwrap(), memory);
    Arc::new(Ram::new(PageSize::Kib4, [block]).unwrap())
}

fn content(ram: &Ram) -> Vec<u8> {
    let mut bytes = vec![0; PAGES as usize * PAGE];
    ram.blocks()[0].slice(0, bytes.len()).copy_to(&mut bytes[..]);
    bytes
}

/// What a channel is given to send, in order; `None` is a SYNC.
fn work(ram: &Ram) -> VecDeque<Option<PageBatch>> {
    let batch = |offsets: Vec<u64>| {
        let block = Arc::clone(&ram.blocks()[0]);
        Some(PageBatch::new(block, PageSize::Kib4, offsets).unwrap())
    };
    let pages = |step: usize| (0..PAGES).step_by(step).map(|page| page * PAGE as u64).collect();
    VecDeque::from([None, batch(pages(1)), batch(pages(7)), None, batch(pages(13)), None])
}

/// Polls `future` at most `polls` times and then drops it.
fn poll<T>(future: impl Future<Output = T>, polls: usize, dropped: &mut usize) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
    }
    *dropped += 1;
    None
}

/// A whole migration of one channel, in which every future is polled `polls` times at most. Returns
/// how many futures were dropped.
fn migrate(
    methods: &dyn MultiFdMethods,
    source: &Ram,
    destination: &Arc<Ram>,
    polls: usize,
) -> usize {
    let (stream, mut dropped) = (Dribble::default(), 0);
    let config = SendConfig::new(ChannelConfig::new(0, PageSize::Kib4, 0));
    let sent = Arc::clone(&config.counters);
    let machine = pollster::block_on(SendMachine::new(methods, config)).unwrap();
    let mut sending = Some(SendChannel::new(machine, Tokio::new(stream.clone())));
    let mut work = work(source);

    let (mut reading, mut opening) = (Tokio::new(stream.clone()), Opening::new());
    let counters = Arc::default();
    let mut receiving: Option<RecvChannel<Tokio<Dribble>>> = None;
    let mut received = Vec::new();
    while received.last() != Some(&End) {
        if let Some(mut channel) = sending.take() {
            match poll(channel.send(), polls, &mut dropped) {
                None => sending = Some(channel),
                Some(done) => {
                    done.unwrap();
                    match work.pop_front() {
                        None => stream.0.lock().unwrap().closed = true,
                        Some(next) => {
                            match next {
                                Some(batch) => channel.machine().pages(batch).unwrap(),
                                None => channel.machine().sync().unwrap(),
                            }
                            sending = Some(channel);
                        }
                    }
                }
            }
        }
        let Some(channel) = &mut receiving else {
            let opened = poll(open(&mut reading, &mut opening), polls, &mut dropped);
            if let Some(opened) = opened {
                assert!(
                    matches!(opened.unwrap(), Opened::Channel(initial) if initial.channel == 0)
                );
                let new = RecvMachine::new(methods, 0, PageSize::Kib4, Arc::clone(&counters));
                let machine = pollster::block_on(new).unwrap();
                receiving = Some(RecvChannel::new(machine, Tokio::new(stream.clone())));
            }
            continue;
        };
        let admit = |_: &RamPacket<'_>| Ok::<_, Error>(Target::Ram(Arc::clone(destination)));
        received.extend(poll(channel.next(admit), polls, &mut dropped).transpose().unwrap());
    }

    assert_eq!(received, [Sync, Pages, Pages, Sync, Pages, Sync, End]);
    assert_eq!(sent.snapshot(), counters.snapshot(), "both sides count the same");
    dropped
}

#[test]
fn a_migration_whose_futures_are_dropped_at_every_await_is_the_same() {
    for methods in [&Plain as &dyn MultiFdMethods, &Pausing] {
        for polls in [1, 2, 3, 5, usize::MAX] {
            let (source, destination) = (ram(), ram());
            for page in (0..PAGES).filter(|page| page % 5 != 0) {
                let bytes: Vec<u8> = (0..PAGE).map(|at| (at as u64 * page) as u8).collect();
                source.blocks()[0].write(page * PAGE as u64, &bytes);
            }
            // Pending for ever where the other side has to move first.
            let polls = polls.min(1000);
            let dropped = migrate(methods, &source, &destination, polls);
            assert!(content(&source) == content(&destination), "{methods:?}, {polls} polls");
            // At least once for every read and write of a few bytes.
            assert!(polls > 1 || dropped > 200, "{methods:?}: {dropped}");
        }
    }
}
