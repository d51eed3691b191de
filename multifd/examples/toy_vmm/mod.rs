//! What a VMM has already, in small, so that the examples show only what migration adds: guest
//! memory around the 32-bit hole, and a vCPU that never stops dirtying it.

#![allow(dead_code, reason = "each example uses a part of it")]

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use multifd::Uri;
use multifd::core::{Compression, PageSize};
use sha2::{Digest, Sha256};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
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

/// The RAM blocks a machine can have: the name, the guest address and the most bytes of each. PCI
/// devices have the addresses from 3 to 4 GiB.
const LAYOUT: [(&str, u64, u64); 2] = [("ram-low", 0, 3 << 30), ("ram-high", 4 << 30, 1 << 30)];

/// The name of the RAM block that starts at `address`: it tells the destination where that lies.
pub(crate) fn block_name(address: GuestAddress) -> Option<&'static str> {
    LAYOUT.iter().find(|(_, start, _)| *start == address.0).map(|(name, ..)| *name)
}

/// Maps memory for `blocks`, names and sizes in bytes.
pub(crate) fn map<'a>(blocks: impl IntoIterator<Item = (&'a str, u64)>) -> Result<Memory, Failure> {
    let mut regions = Vec::new();
    for (name, bytes) in blocks {
        let fits = |entry: &&(&str, u64, u64)| entry.0 == name && bytes <= entry.2;
        let Some((_, address, _)) = LAYOUT.iter().find(fits) else {
            return Err(format!("this machine has no RAM block '{name}' of {bytes} bytes").into());
        };
        let bytes = usize::try_from(bytes)?;
        let page_bytes = NonZeroUsize::new(PAGE_SIZE.bytes()).ok_or("pages have bytes")?;
        let bitmap = AtomicBitmap::new(bytes, page_bytes);
        let mapping = MmapRegionBuilder::new_with_bitmap(bytes, bitmap)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE)
            .build()?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(*address));
        regions.push(region.ok_or("the memory ends past the last address")?);
    }
    regions.sort_by_key(GuestMemoryRegion::start_addr);
    Ok(Memory::from_regions(regions)?)
}

/// The memory of a guest that has run for a while: text, with every fourth page still zero.
pub(crate) fn boot() -> Result<Memory, Failure> {
    let memory = map([("ram-low", 32 << 20), ("ram-high", 16 << 20)])?;
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
        Self { memory, counter, running: None }
    }

    /// Runs the guest from where it is.
    pub(crate) fn resume(&mut self) {
        if self.running.is_some() {
            return;
        }
        let (memory, mut counter) = (self.memory.clone(), self.counter);
        let pause = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&pause);
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
                std::thread::sleep(Duration::from_micros(100));
            }
        };
        self.running = Some(Running { pause, thread: std::thread::spawn(run) });
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
