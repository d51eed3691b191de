//! Pages that the guest changes while they are sent. What arrives may be torn, which the next
//! round repairs; the stream itself must never break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use multifd_core::PageSize;
use multifd_core::ram::BlockMemory;
use multifd_core::vm_memory::{MmapRegion, VolatileSlice};

use crate::harness::{
    Content, Context, Pair, Random, STALE, Setup, Subject, Verdict, ensure, offsets, page_of, ram,
    ram_on, zeros,
};

const K4: PageSize = PageSize::Kib4;

pub(crate) fn a_page_that_changes_between_any_two_reads_arrives_as_one_read_of_it(
    subject: &Subject,
) -> Verdict {
    const PAGES: usize = 16;
    for page_size in PageSize::ALL {
        let contents = Arc::new(contents(page_size));
        let pages = PAGES.min(page_size.page_count());
        let memory = Restless {
            region: zeros(pages * page_size.bytes())?,
            contents: Arc::clone(&contents),
            reads: AtomicUsize::new(0),
        };
        let setup = Setup::default();
        let mut sender = subject.sender(&ram_on(page_size, memory)?, setup)?;
        let destination = ram(page_size, &vec![STALE; pages * page_size.bytes()])?;
        let mut receiver = subject.receiver(&destination, setup.channel)?;
        let all = offsets(page_size, 0..pages);
        for packet in 0..200 {
            let place = || format!("packet {packet}, pages of {page_size}");
            let bytes = sender.send(&all).context(place)?;
            receiver.receive(&bytes).context(place)?;
            for &offset in &all {
                let page = page_of(&destination, offset);
                let known = contents.contains(&page);
                ensure!(known, "{}: the page at {offset:#x} never held what arrived", place());
            }
        }
    }
    Ok(())
}

/// What pages hold, one after the other: each compresses to another size.
fn contents(page_size: PageSize) -> Vec<Vec<u8>> {
    let kinds = [Content::Noise, Content::Fill, Content::Text, Content::LastByte];
    let kinds = kinds.into_iter().cycle().zip(80..).take(11);
    kinds.map(|(kind, seed)| kind.pages(seed, 1, page_size.bytes())).collect()
}

/// Memory whose pages hold something else each time that they are looked at.
#[derive(Debug)]
struct Restless {
    region: MmapRegion,
    contents: Arc<Vec<Vec<u8>>>,
    reads: AtomicUsize,
}

impl BlockMemory for Restless {
    fn bytes(&self) -> u64 {
        BlockMemory::bytes(&self.region)
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        let slice = BlockMemory::slice(&self.region, offset, len)?;
        let read = self.reads.fetch_add(1, Relaxed);
        slice.copy_from(&self.contents[read % self.contents.len()][..]);
        Some(slice)
    }
}

pub(crate) fn a_page_that_is_rewritten_while_it_is_sent_never_breaks_the_stream(
    subject: &Subject,
) -> Verdict {
    const PAGES: usize = 64;
    const PACKETS: usize = 3000;
    let mut pair = subject.pair(K4, &vec![1; PAGES * K4.bytes()], Setup::default())?;
    let guest = Arc::clone(&pair.sender.ram.blocks()[0]);
    let contents = contents(K4);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(90);
            while !stop.load(Relaxed) {
                let page = random.below(PAGES) * K4.bytes();
                // Whole pages and parts of pages.
                let content = &contents[random.below(contents.len())];
                let from = random.below(K4.bytes());
                let from = if random.below(2) == 0 { 0 } else { from };
                guest.write((page + from) as u64, &content[from..]);
            }
        });
        let sent = send_what_changes(&mut pair, PAGES, PACKETS);
        stop.store(true, Relaxed);
        sent
    })?;
    // The guest stands still: the last round makes both sides equal.
    for packet in offsets(K4, 0..PAGES).chunks(32) {
        pair.carry(packet).context(|| "the last round".to_owned())?;
    }
    pair.finish()
}

fn send_what_changes(pair: &mut Pair, pages: usize, packets: usize) -> Verdict {
    let mut random = Random::new(91);
    for packet in 0..packets {
        let first = random.below(pages - 16);
        let count = 1 + random.below(16);
        let bytes = pair.sender.send(&offsets(K4, first..first + count))?;
        pair.receiver.receive(&bytes).context(|| format!("packet {packet}"))?;
    }
    Ok(())
}
