//! What a VMM has already, in small, so that the examples show only what migration adds: guest
//! memory on both sides of a hole, of memfds, and a vCPU that never stops dirtying it.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::error::Error;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use multifd::Uri;
use multifd::core::ram::BlockMemory;
use multifd::core::{Compression, PageSize};
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionMmap, MmapRegion, VolatileSlice,
};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Memory = GuestMemoryMmap<AtomicBitmap>;

/// An error with its causes: an error of `multifd` does not repeat them in its own text.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The pages in which dirtying is tracked, and memory migrated: the two must be the same. With KVM
/// they are the host's.
pub(crate) const PAGE_SIZE: PageSize = PageSize::Kib4;
const PAGE_BYTES: u64 = PAGE_SIZE.bytes() as u64;

/// The name of the machine's RAM block, which has both of its regions.
pub(crate) const BLOCK: &str = "pc.ram";

/// Where the regions start, and the most bytes that each can have. The addresses between are those of
/// devices.
const LAYOUT: [(u64, u64); 2] = [(0, 32 << 20), (4 << 30, 1 << 30)];

/// Maps `bytes` bytes of memory: as much as goes below the hole, and the rest above it.
pub(crate) fn map(bytes: u64) -> Result<Memory, Failure> {
    let mut regions = Vec::new();
    let mut left = bytes;
    for (start, most) in LAYOUT {
        let bytes = usize::try_from(left.min(most))?;
        if bytes > 0 {
            let region = GuestRegionMmap::new(memfd(bytes)?, GuestAddress(start));
            regions.push(region.ok_or("the memory ends past the last address")?);
        }
        left -= bytes as u64;
    }
    if left > 0 {
        return Err(format!("this machine cannot have {bytes} bytes of RAM").into());
    }
    Ok(Memory::from_regions(regions)?)
}

/// Memory of a memfd, which device back ends in other processes can map, too: of huge pages where the
/// system has them to give.
fn memfd(bytes: usize) -> Result<MmapRegion<AtomicBitmap>, Failure> {
    mapped(bytes, MemfdFlags::HUGETLB).or_else(|error| {
        eprintln!("no huge pages for {} MiB ({error}); taking small ones", bytes >> 20);
        mapped(bytes, MemfdFlags::empty())
    })
}

fn mapped(bytes: usize, kind: MemfdFlags) -> Result<MmapRegion<AtomicBitmap>, Failure> {
    let file = File::from(memfd_create("guest-ram", MemfdFlags::CLOEXEC | kind)?);
    file.set_len(bytes as u64)?;
    let page_bytes = NonZeroUsize::new(PAGE_SIZE.bytes()).ok_or("pages have bytes")?;
    let region = MmapRegionBuilder::new_with_bitmap(bytes, AtomicBitmap::new(bytes, page_bytes))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        // Huge pages are taken now, or not at all: without MAP_NORESERVE.
        .with_mmap_flags(libc::MAP_SHARED)
        .with_file_offset(FileOffset::new(file, 0))
        .build()?;
    Ok(region)
}

/// The machine's regions as the memory of one block: one behind the other, without the hole. Nothing
/// is copied.
#[derive(Debug)]
pub(crate) struct Regions(pub(crate) Memory);

impl Regions {
    /// Each region with where in the block it is.
    pub(crate) fn parts(
        &self,
    ) -> impl Iterator<Item = (Range<u64>, &GuestRegionMmap<AtomicBitmap>)> {
        self.0.iter().scan(0, |start, region| {
            let part = *start..*start + region.len();
            *start = part.end;
            Some((part, region))
        })
    }

    /// The region that has the byte at `offset`, and where in it that is.
    fn find(&self, offset: usize) -> Option<(&GuestRegionMmap<AtomicBitmap>, usize)> {
        let (part, region) = self.parts().find(|(part, _)| part.contains(&(offset as u64)))?;
        Some((region, offset - usize::try_from(part.start).ok()?))
    }
}

impl BlockMemory for Regions {
    fn bytes(&self) -> u64 {
        self.0.iter().map(GuestMemoryRegion::len).sum()
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        let (region, offset) = self.find(offset)?;
        BlockMemory::slice(region, offset, len)
    }

    fn mark_dirty(&self, offset: usize, len: usize) {
        if let Some((region, offset)) = self.find(offset) {
            BlockMemory::mark_dirty(region, offset, len);
        }
    }

    fn data(&self) -> Option<Vec<Range<u64>>> {
        let mut data = Vec::new();
        for (part, region) in self.parts() {
            let shift = |range: Range<u64>| range.start + part.start..range.end + part.start;
            data.extend(region.data()?.into_iter().map(shift));
        }
        Some(data)
    }
}

/// The memory of a guest that has run for a while: text, with every fourth page still zero.
pub(crate) fn boot() -> Result<Memory, Failure> {
    let memory = map(48 << 20)?;
    for region in memory.iter() {
        for page in (0..region.len() / PAGE_BYTES).filter(|page| page % 4 != 0) {
            let text = format!("page {page} of the guest's memory. ").repeat(100);
            memory.write_slice(
                text.as_bytes(),
                GuestAddress(region.start_addr().0 + page * PAGE_BYTES),
            )?;
        }
    }
    Ok(memory)
}

/// The SHA-256 of all memory, in hexadecimal digits. Only of a guest that is paused it says much.
pub(crate) fn digest(memory: &Memory) -> Result<String, Failure> {
    let mut digest = Sha256::new();
    let mut page = [0; PAGE_SIZE.bytes()];
    for region in memory.iter() {
        for offset in (0..region.len()).step_by(page.len()) {
            memory.read_slice(&mut page, GuestAddress(region.start_addr().0 + offset))?;
            digest.update(page);
        }
    }
    Ok(format!("{:x}", digest.finalize()))
}

/// How many pages of each region the guest uses, and how many it dirties before it rests.
const WORKING_SET: u64 = 4096;
const PAGES_A_STEP: u64 = 8;

/// A vCPU with one register. Its guest counts in it, and writes each count to memory: to address 0
/// and to some other pages, of both regions in turn.
#[derive(Debug)]
pub(crate) struct Vcpu {
    memory: Memory,
    counter: u64,
    /// By how many percent it is slowed down.
    throttle: Arc<AtomicU8>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    pause: Arc<AtomicBool>,
    /// Ends with the register.
    thread: JoinHandle<Result<u64, GuestMemoryError>>,
}

impl Vcpu {
    /// A vCPU that is paused.
    pub(crate) fn new(memory: Memory, counter: u64) -> Self {
        Self { memory, counter, throttle: Arc::default(), running: None }
    }

    /// Runs the guest from where it is.
    pub(crate) fn resume(&mut self) {
        if self.running.is_some() {
            return;
        }
        let (memory, mut counter) = (self.memory.clone(), self.counter);
        let pause = Arc::new(AtomicBool::new(false));
        let (asked, throttle) = (Arc::clone(&pause), Arc::clone(&self.throttle));
        let run = move || {
            let starts: Vec<_> = memory.iter().map(|region| region.start_addr().0).collect();
            loop {
                // The guest dirties pages up to the end, after the pause was asked for.
                let last = asked.load(Ordering::Acquire);
                counter += 1;
                memory.write_obj(counter, GuestAddress(0))?;
                // Writes through `GuestMemory` mark the bitmap, after the write.
                let start = starts[counter as usize % starts.len()];
                for page in counter * PAGES_A_STEP..(counter + 1) * PAGES_A_STEP {
                    let offset = page % WORKING_SET * PAGE_BYTES;
                    memory.write_obj(counter, GuestAddress(start + offset))?;
                }
                if last {
                    return Ok(counter);
                }
                let speed = 100 - u64::from(throttle.load(Ordering::Relaxed).min(99));
                std::thread::sleep(Duration::from_micros(100 * 100 / speed));
            }
        };
        self.running = Some(Running { pause, thread: std::thread::spawn(run) });
    }

    /// Slows the guest down by `percent`.
    pub(crate) fn throttle(&self, percent: u8) {
        self.throttle.store(percent, Ordering::Relaxed);
    }

    /// Stops the guest and returns its register. No write of it is under way any more then.
    pub(crate) fn pause(&mut self) -> Result<u64, Failure> {
        if let Some(Running { pause, thread }) = self.running.take() {
            pause.store(true, Ordering::Release);
            self.counter = thread.join().map_err(|_| "the vCPU panicked")??;
        }
        Ok(self.counter)
    }
}

/// What both sides are told on the command line, and must be told alike but for the address.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) uri: Uri,
    pub(crate) channels: u8,
    pub(crate) compression: Compression,
}

impl Options {
    /// Parses the command line, in which `address` is the option with the address.
    pub(crate) fn parse(address: &str) -> Result<Self, Failure> {
        let (mut uri, mut channels, mut compression) = (None, 4, Compression::None);
        let mut words = std::env::args().skip(1);
        while let Some(option) = words.next() {
            let value = words.next().ok_or_else(|| format!("{option} has no value"))?;
            match &*option {
                "--channels" => channels = value.parse()?,
                "--compression" => compression = value.parse()?,
                option if option == address => uri = Some(value.parse()?),
                _ => return Err(format!("there is no option {option}").into()),
            }
        }
        let uri = uri.ok_or_else(|| format!("say where: {address} tcp:HOST:PORT or unix:PATH"))?;
        Ok(Self { uri, channels, compression })
    }
}
