//! Codecs that are awaited: a future dropped at any await changes nothing.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use multifd_core::channel::{
    Received, RecvMachine, RecvNext, SendConfig, SendMachine, SendNext, Target, memory,
};
use multifd_core::ram::{GuestPages, NormalPages, PageBatch, Ram, RamBlock};
use multifd_core::vm_memory::bitmap::{AtomicBitmap, Bitmap};
use multifd_core::vm_memory::{GuestAddress, GuestRegionMmap, MmapRegion};
use multifd_core::wire::{BlockName, InitialPacket};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, MultiFdMethods, PageSize,
    Payload, PrivateMethod, RecvMethod, SendMethod, async_trait, none,
};
use pollster::block_on;

/// Pages with each byte inverted, by a device that has to be waited for three times a page.
#[derive(Debug)]
struct Slow;

async fn pause() {
    let mut polled = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[async_trait]
impl MultiFdMethods for Slow {
    fn descriptor(&self) -> MethodDescriptor {
        let value = const { PrivateMethod::new(0x0e).unwrap() };
        MethodDescriptor::new("slow", "a test's", Compression::Private(value))
    }

    fn probe(&self) -> Availability {
        Availability::Available("always".to_owned())
    }

    async fn send_setup(&self, _: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Slow))
    }

    async fn recv_setup(&self, _: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Slow))
    }
}

#[async_trait]
impl SendMethod for Slow {
    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        assert!(payload.is_empty(), "a payload comes empty");
        for page in pages.private().chunks_exact(pages.page_size().bytes()) {
            pause().await;
            let inverted: Vec<u8> = page.iter().map(|byte| !byte).collect();
            payload.push(&inverted);
            pause().await;
        }
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl RecvMethod for Slow {
    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error> {
        for (index, page) in payload.chunks_exact(pages.page_size().bytes()).enumerate() {
            pause().await;
            let inverted: Vec<u8> = page.iter().map(|byte| !byte).collect();
            pages.write(index, &inverted);
            pause().await;
        }
        Ok(())
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

const OFFSETS: [u64; 3] = [0x3000, 0x1000, 0x2000];

fn ram() -> Arc<Ram> {
    let memory = MmapRegion::<()>::new(0x4000).unwrap();
    let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
    Arc::new(Ram::new(PageSize::Kib4, [block]).unwrap())
}

fn content(ram: &Ram) -> Vec<u8> {
    let mut bytes = vec![0; ram.bytes() as usize];
    ram.blocks()[0].slice(0, bytes.len()).copy_to(&mut bytes[..]);
    bytes
}

fn batch(ram: &Ram) -> PageBatch {
    PageBatch::new(Arc::clone(&ram.blocks()[0]), PageSize::Kib4, OFFSETS.to_vec()).unwrap()
}

fn sender(methods: &dyn MultiFdMethods) -> SendMachine {
    let config = SendConfig::new(ChannelConfig::new(0, PageSize::Kib4, 0));
    block_on(SendMachine::new(methods, config)).unwrap()
}

fn receiver(methods: &dyn MultiFdMethods) -> RecvMachine {
    block_on(RecvMachine::new(methods, 0, PageSize::Kib4, Arc::default())).unwrap()
}

/// Polls `future` at most `times` times, then drops it. Returns whether it was ready.
fn poll_at_most(times: usize, future: impl Future<Output = Result<(), Error>>) -> bool {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..times).any(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(result) => {
            result.unwrap();
            true
        }
        Poll::Pending => false,
    })
}

#[test]
fn a_codec_dropped_at_any_await_starts_over_and_the_result_is_the_same() {
    let source = ram();
    for (page, offset) in OFFSETS.into_iter().enumerate() {
        source.blocks()[0].write(offset, &[page as u8 + 1; 4096]);
    }
    // Each page has two awaits, so seven polls of three pages are enough.
    for polls in 1..=8 {
        let (mut channel, mut out) = (sender(&Slow), Vec::new());
        block_on(memory::send(&mut channel, &mut out)).unwrap();
        channel.pages(batch(&source)).unwrap();
        let first = poll_at_most(polls, channel.encode());
        assert_eq!(first, polls >= 7);
        assert!(first || matches!(channel.next().unwrap(), SendNext::Encode));
        block_on_any(&mut channel, &mut out);
        assert_eq!(out.len(), InitialPacket::BYTES + 1344 + 3 * 4096);

        let destination = ram();
        let (mut channel, mut rest) = (receiver(&Slow), &out[InitialPacket::BYTES..]);
        loop {
            match channel.next().unwrap() {
                RecvNext::Read(room) => {
                    let count = room.len().min(rest.len());
                    room[..count].copy_from_slice(&rest[..count]);
                    rest = &rest[count..];
                    channel.filled(count).unwrap();
                }
                RecvNext::ReadGuest(_) => panic!("the codec does not work in place"),
                RecvNext::Admit(_) => {
                    channel.place(Target::Ram(Arc::clone(&destination))).unwrap();
                }
                RecvNext::Decode => {
                    let first = poll_at_most(polls, channel.decode());
                    assert_eq!(first, polls >= 7);
                    if !first {
                        assert!(matches!(channel.next().unwrap(), RecvNext::Decode));
                        assert!(poll_at_most(100, channel.decode()));
                    }
                }
                RecvNext::Received(Received::End) => break,
                RecvNext::Received(received) => assert_eq!(received, Received::Pages),
            }
        }
        assert!(content(&destination) == content(&source), "{polls}");
    }
}

/// Sends all there is, however often the codec has to be polled.
fn block_on_any(channel: &mut SendMachine, out: &mut Vec<u8>) {
    loop {
        match channel.next().unwrap() {
            SendNext::Encode => assert!(poll_at_most(100, channel.encode())),
            SendNext::Write(parts) => {
                let mut count = 0;
                for part in parts {
                    let mut bytes = vec![0; part.bytes()];
                    count += part.copy_to(&mut bytes);
                    out.extend(bytes);
                }
                channel.sent(count);
            }
            SendNext::Idle => return,
        }
    }
}

#[test]
fn pages_read_straight_into_the_guest_are_dirty_after_the_bytes_have_come_and_not_before() {
    let source = ram();
    for offset in OFFSETS {
        source.blocks()[0].write(offset, &[1; 4096]);
    }
    let (mut channel, mut out) = (sender(&none::Plain), Vec::new());
    block_on(memory::send(&mut channel, &mut out)).unwrap();
    channel.pages(batch(&source)).unwrap();
    block_on(memory::send(&mut channel, &mut out)).unwrap();

    let region = MmapRegion::<AtomicBitmap>::new(0x4000).unwrap();
    let region = Arc::new(GuestRegionMmap::new(region, GuestAddress(0)).unwrap());
    let dirty = || [0, 0x1000, 0x2000, 0x3000].map(|at| region.bitmap().dirty_at(at));
    let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), Arc::clone(&region));
    let ram = Arc::new(Ram::new(PageSize::Kib4, [block]).unwrap());
    let (mut channel, mut rest) = (receiver(&none::Plain), &out[InitialPacket::BYTES..]);
    // Of the pages at 0x3000, 0x1000, 0x2000, one and a half.
    let mut steps = [4096, 2048, 6144].into_iter();
    let mut after = Vec::new();
    loop {
        let count = match channel.next().unwrap() {
            RecvNext::Read(room) => {
                let count = room.len().min(rest.len());
                room[..count].copy_from_slice(&rest[..count]);
                count
            }
            RecvNext::ReadGuest(room) => {
                let before = dirty();
                let count = room.copy_from(&rest[..steps.next().unwrap()]);
                assert_eq!(dirty(), before, "nothing is dirty by being read alone");
                count
            }
            RecvNext::Admit(_) => {
                channel.place(Target::Ram(Arc::clone(&ram))).unwrap();
                continue;
            }
            RecvNext::Decode => panic!("none has nothing to decode"),
            RecvNext::Received(_) => break,
        };
        rest = &rest[count..];
        channel.filled(count).unwrap();
        after.push(dirty());
    }
    let last: Vec<_> = after[after.len() - 3..].to_vec();
    assert_eq!(
        last,
        [[false, false, false, true], [false, true, false, true], [false, true, true, true],]
    );
}
