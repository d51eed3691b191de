//! A toy: run lengths, with a packet counter that makes a stream of it. Right, or with one fault.
//!
//! The payload of a packet: the number of the packet on its channel (u32, big-endian), then for
//! each page a length (u32) and a chunk. A chunk as long as a page is the page itself, a shorter
//! one is pairs of a count and a byte.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use multifd_core::ram::{GuestPages, NormalPages};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodCounters, MethodDescriptor,
    MultiFdMethods, Payload, PrivateMethod, RecvMethod, SendMethod, async_trait,
};

/// What a backend's author may have got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    AcceptsEverything,
    AllocatesByClaimedLength,
    BlamesItself,
    CannotBeCleanedUpAfterAnError,
    CountsBackwards,
    Expands,
    HangsOnABadLength,
    IgnoresTrailingBytes,
    LeaksAfterAnError,
    LeavesFormerBytes,
    LeavesZeroPagesUnwritten,
    PanicsOnABadLength,
    PoisonedByAnError,
    ReadsGuestMemoryTwice,
    RefusesEverything,
    SharesStateOverChannels,
    TakesShortPages,
    WritesBesideItsPages,
    WritesInAscendingOrder,
}

#[derive(Debug)]
pub(crate) struct Rle {
    fault: Fault,
    shared: Shared,
}

/// The toy with one fault.
pub(crate) fn rle(fault: Fault) -> Rle {
    Rle { fault, shared: Shared::default() }
}

/// Its value of the compression field.
pub(crate) const PRIVATE: PrivateMethod = PrivateMethod::new(0x0e).expect("QEMU does not use it");

/// What channels have in common, only where that is the fault.
#[derive(Clone, Debug, Default)]
struct Shared {
    sent: Arc<AtomicU32>,
    received: Arc<AtomicU32>,
    poisoned: Arc<AtomicBool>,
}

#[async_trait]
impl MultiFdMethods for Rle {
    fn descriptor(&self) -> MethodDescriptor {
        MethodDescriptor::new("rle", "a toy: run lengths", Compression::Private(PRIVATE))
    }

    fn probe(&self) -> Availability {
        Availability::Available("a toy".to_owned())
    }

    async fn send_setup(&self, _: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(self.channel()))
    }

    async fn recv_setup(&self, _: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        if self.shared.poisoned.load(SeqCst) {
            return Err(Error::backend("the device is gone"));
        }
        Ok(Box::new(self.channel()))
    }
}

impl Rle {
    fn channel(&self) -> Channel {
        let mut shared = self.shared.clone();
        if self.fault != Fault::SharesStateOverChannels {
            (shared.sent, shared.received) = Default::default();
        }
        let counters = MethodCounters::new(&["packets"]);
        Channel { fault: self.fault, shared, counters, failed: false }
    }
}

/// Either side of one channel.
struct Channel {
    fault: Fault,
    shared: Shared,
    counters: MethodCounters,
    failed: bool,
}

#[async_trait]
impl SendMethod for Channel {
    fn counters(&self) -> MethodCounters {
        self.counters.clone()
    }

    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        self.counters.add(0, if self.fault == Fault::CountsBackwards { u64::MAX } else { 1 });
        payload.push(&self.shared.sent.fetch_add(1, SeqCst).to_be_bytes());
        for index in 0..pages.len() {
            let mut page = page_of(pages, index);
            let mut chunk = compress(&page);
            let length = if chunk.len() < page.len() { chunk.len() } else { page.len() };
            if self.fault == Fault::ReadsGuestMemoryTwice {
                pages.guest().slice(index).copy_to(&mut page[..]);
                chunk = compress(&page);
                chunk.resize(length, 0);
            }
            if self.fault == Fault::Expands {
                // As a codec may that reserves room and never gives it back.
                payload.push(&[0].repeat(3 * page.len()));
            }
            payload.push(&(length as u32).to_be_bytes());
            payload.push(if length < page.len() { &chunk } else { &page });
        }
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

fn page_of(pages: &NormalPages<'_>, index: usize) -> Vec<u8> {
    let page_bytes = pages.page_size().bytes();
    pages.private()[index * page_bytes..][..page_bytes].to_vec()
}

/// The pairs for a page, or as many of them as are longer than the page.
fn compress(page: &[u8]) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(page.len() + 2);
    for run in page.chunk_by(|left, right| left == right) {
        for piece in run.chunks(255) {
            if chunk.len() >= page.len() {
                return chunk;
            }
            chunk.extend([piece.len() as u8, piece[0]]);
        }
    }
    chunk
}

#[async_trait]
impl RecvMethod for Channel {
    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error> {
        self.decode(payload, pages).or_else(|error| self.fail(error, pages))
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<(), Error> {
        if self.failed && self.fault == Fault::CannotBeCleanedUpAfterAnError {
            return Err(Error::backend("the device does not answer"));
        }
        Ok(())
    }
}

impl Channel {
    fn decode(&mut self, mut payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error> {
        if self.fault == Fault::RefusesEverything {
            return Err(Error::payload("it is not liked"));
        }
        let number = take_u32(&mut payload)?;
        if number != self.shared.received.fetch_add(1, SeqCst) {
            return Err(Error::payload(format!("it has the number {number}")));
        }
        let mut order: Vec<_> = (0..pages.len()).collect();
        if self.fault == Fault::WritesInAscendingOrder {
            order.sort_by_key(|&index| pages.offsets()[index]);
        }
        for index in order {
            let page = self.decode_page(&mut payload, pages.page_size().bytes());
            match page {
                Err(_) if self.fault == Fault::TakesShortPages => return Ok(()),
                page => self.write(pages, index, &page?),
            }
        }
        if payload.is_empty() || self.fault == Fault::IgnoresTrailingBytes {
            return Ok(());
        }
        Err(Error::payload("bytes are left over"))
    }

    fn decode_page(&self, payload: &mut &[u8], page_bytes: usize) -> Result<Vec<u8>, Error> {
        if self.fault == Fault::Expands {
            let padding = payload.len().min(3 * page_bytes);
            *payload = &payload[padding..];
        }
        let length = take_u32(payload)? as usize;
        if length == 0 || length > page_bytes {
            match self.fault {
                Fault::PanicsOnABadLength => panic!("a chunk of {length} bytes"),
                Fault::HangsOnABadLength => std::thread::sleep(Duration::from_secs(3600)),
                Fault::AllocatesByClaimedLength => drop(black_box(vec![0u8; length])),
                _ => {}
            }
            return Err(Error::payload("a chunk has a bad length"));
        }
        let Some((chunk, rest)) = payload.split_at_checked(length) else {
            return Err(Error::payload("a chunk is cut short"));
        };
        *payload = rest;
        if length == page_bytes {
            return Ok(chunk.to_vec());
        }
        let page = expand(chunk);
        if page.len() > page_bytes || chunk.len() % 2 != 0 {
            return Err(Error::payload("a chunk is malformed"));
        }
        let short = matches!(self.fault, Fault::TakesShortPages | Fault::LeavesFormerBytes);
        if page.len() < page_bytes && !short {
            return Err(Error::payload("a chunk is less than a page"));
        }
        Ok(page)
    }

    fn write(&self, pages: GuestPages<'_>, index: usize, page: &[u8]) {
        if self.fault == Fault::LeavesZeroPagesUnwritten && page.iter().all(|&byte| byte == 0) {
            return;
        }
        if self.fault == Fault::WritesBesideItsPages {
            let beside = pages.offsets()[index] + page.len() as u64;
            pages.block().write(beside % pages.block().bytes(), &[0]);
        }
        pages.write(index, page);
    }

    /// What becomes of an error.
    fn fail(&mut self, error: Error, pages: GuestPages<'_>) -> Result<(), Error> {
        self.failed = true;
        match self.fault {
            Fault::AcceptsEverything => {
                let page = vec![0; pages.page_size().bytes()];
                (0..pages.len()).for_each(|index| pages.write(index, &page));
                return Ok(());
            }
            Fault::BlamesItself => return Err(Error::backend(error.to_string())),
            Fault::LeaksAfterAnError => std::mem::forget(black_box(vec![1u8; 1 << 20])),
            Fault::PoisonedByAnError => self.shared.poisoned.store(true, SeqCst),
            _ => {}
        }
        Err(error)
    }
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, Error> {
    let cut_short = || Error::payload("a word is cut short");
    let (word, rest) = bytes.split_first_chunk().ok_or_else(cut_short)?;
    *bytes = rest;
    Ok(u32::from_be_bytes(*word))
}

fn expand(chunk: &[u8]) -> Vec<u8> {
    let mut page = Vec::new();
    for pair in chunk.chunks_exact(2) {
        page.resize(page.len() + usize::from(pair[0]), pair[1]);
    }
    page
}
