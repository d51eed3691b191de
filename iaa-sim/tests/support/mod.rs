//! What the tests share: memory of pages, a writer of bits of their own, and descriptors.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use iaa_sim::completion::Completion;
use iaa_sim::descriptor::Descriptor;
use iaa_sim::engine::Engine;
use iaa_sim::memory::{Memory, PageFault};

pub(crate) const PAGE: u64 = 4096;

pub(crate) const SOURCE: u64 = 0x10_0000_0000;
pub(crate) const DESTINATION: u64 = 0x20_0000_0000;
pub(crate) const AECS: u64 = 0x30_0000_0000;

pub(crate) const COMPRESS_AECS: usize = 1568;
pub(crate) const DECOMPRESS_AECS: usize = 5376;

/// Memory of the pages that were put into it. Those that are not are not there.
#[derive(Clone, Default)]
pub(crate) struct Pages {
    pages: RefCell<BTreeMap<u64, Page>>,
    /// Each write: where, and how many bytes.
    pub(crate) writes: RefCell<Vec<(u64, usize)>>,
}

#[derive(Clone)]
struct Page {
    bytes: Box<[u8; PAGE as usize]>,
    writable: bool,
}

impl Pages {
    /// Makes the pages there that hold so many bytes.
    pub(crate) fn map(&self, address: u64, bytes: usize) -> &Self {
        let end = address + bytes as u64;
        for number in address / PAGE..end.div_ceil(PAGE) {
            let page = Page { bytes: Box::new([0; PAGE as usize]), writable: true };
            self.pages.borrow_mut().entry(number).or_insert(page);
        }
        self
    }

    /// Makes pages there, with bytes in them.
    pub(crate) fn put(&self, address: u64, bytes: &[u8]) -> &Self {
        self.map(address, bytes.len());
        for (range, number, at) in by_page(address, bytes.len()) {
            let mut pages = self.pages.borrow_mut();
            let page = pages.get_mut(&number).expect("it is mapped");
            page.bytes[at..at + range.len()].copy_from_slice(&bytes[range]);
        }
        self
    }

    pub(crate) fn unmap(&self, address: u64) -> &Self {
        self.pages.borrow_mut().remove(&(address / PAGE));
        self
    }

    pub(crate) fn protect(&self, address: u64) -> &Self {
        self.pages.borrow_mut().get_mut(&(address / PAGE)).expect("a page").writable = false;
        self
    }

    pub(crate) fn get(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut into = vec![0; bytes];
        self.read(address, &mut into).expect("the pages are there");
        into
    }
}

impl Memory for Pages {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), PageFault> {
        let pages = self.pages.borrow();
        for (range, number, at) in by_page(address, into.len()) {
            let fault = PageFault { address: address.wrapping_add(range.start as u64) };
            let page = pages.get(&number).ok_or(fault)?;
            let bytes = &page.bytes[at..at + range.len()];
            into[range].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), PageFault> {
        let mut pages = self.pages.borrow_mut();
        self.writes.borrow_mut().push((address, from.len()));
        for (range, number, at) in by_page(address, from.len()) {
            let fault = PageFault { address: address.wrapping_add(range.start as u64) };
            let page = pages.get_mut(&number).filter(|page| page.writable).ok_or(fault)?;
            page.bytes[at..at + range.len()].copy_from_slice(&from[range]);
        }
        Ok(())
    }
}

/// Splits so many bytes at an address by pages: which of the bytes, the page's number, and where in it.
fn by_page(address: u64, bytes: usize) -> impl Iterator<Item = (Range<usize>, u64, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = address.wrapping_add(from as u64);
        let at = (start % PAGE) as usize;
        let range = from..bytes.min(from + PAGE as usize - at);
        from = range.end;
        (!range.is_empty()).then_some((range, start / PAGE, at))
    })
}

/// A descriptor in the making.
#[derive(Clone)]
pub(crate) struct Job(pub(crate) [u8; 64]);

impl Job {
    pub(crate) const COMPRESS: u8 = 0x43;
    pub(crate) const DECOMPRESS: u8 = 0x42;

    /// Of `opcode`, with a completion record asked for.
    pub(crate) fn new(opcode: u8) -> Self {
        let mut bytes = [0; 64];
        bytes[4] = 0xc;
        bytes[7] = opcode;
        Self(bytes).u64(8, 0x40_0000_0000)
    }

    pub(crate) fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Sets flags that all operations share.
    pub(crate) fn flags(mut self, flags: u32) -> Self {
        for (nth, byte) in flags.to_le_bytes()[..3].iter().enumerate() {
            self.0[4 + nth] |= byte;
        }
        self
    }

    /// Sets flags of the operation.
    pub(crate) fn operation_flags(mut self, flags: u16) -> Self {
        for (nth, byte) in flags.to_le_bytes().iter().enumerate() {
            self.0[38 + nth] |= byte;
        }
        self
    }

    pub(crate) fn source(self, address: u64, bytes: usize) -> Self {
        self.u64(16, address).u32(32, bytes as u32)
    }

    pub(crate) fn destination(self, address: u64, bytes: usize) -> Self {
        self.u64(24, address).u32(48, bytes as u32)
    }

    pub(crate) fn aecs(self, address: u64, bytes: usize) -> Self {
        self.u64(40, address).u32(52, bytes as u32)
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor(self.0)
    }

    pub(crate) fn run(&self, engine: &mut Engine, memory: &impl Memory) -> Completion {
        engine.run(&self.descriptor(), memory)
    }
}

/// Flags of all operations.
pub(crate) const READ_AECS: u32 = 1 << 16;
pub(crate) const WRITE_AECS: u32 = 1 << 18;
pub(crate) const WRITE_AECS_ON_OVERFLOW: u32 = 2 << 18;
pub(crate) const CRC32C: u32 = 1 << 21;
pub(crate) const TOGGLE: u32 = 1 << 22;

/// Bits in the order in which DEFLATE has them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Bits(pub(crate) Vec<bool>);

impl Bits {
    /// A number, its lowest bit first.
    pub(crate) fn number(&mut self, value: u32, bits: u32) -> &mut Self {
        self.0.extend((0..bits).map(|bit| value >> bit & 1 == 1));
        self
    }

    /// A word of a prefix code, its highest bit first.
    pub(crate) fn word(&mut self, word: u32, bits: u32) -> &mut Self {
        self.0.extend((0..bits).rev().map(|bit| word >> bit & 1 == 1));
        self
    }

    pub(crate) fn align(&mut self) -> &mut Self {
        while self.0.len() % 8 != 0 {
            self.0.push(false);
        }
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let byte =
            |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
        self.0.chunks(8).map(byte).collect()
    }

    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut bits = Self::default();
        for byte in bytes {
            bits.number((*byte).into(), 8);
        }
        bits
    }
}

/// The words of a code by their lengths, RFC 1951, 3.2.2.
pub(crate) fn words(lengths: &[u8]) -> Vec<u32> {
    let mut words = vec![0; lengths.len()];
    let mut next = 0;
    for length in 1..16 {
        next <<= 1;
        for (word, _) in words.iter_mut().zip(lengths).filter(|(_, own)| **own == length) {
            *word = next;
            next += 1;
        }
    }
    words
}

/// Code lengths of literals and lengths, and of distances.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) literals: Vec<u8>,
    pub(crate) distances: Vec<u8>,
}

impl Code {
    pub(crate) fn fixed() -> Self {
        let mut literals = vec![8; 288];
        literals[144..256].fill(9);
        literals[256..280].fill(7);
        Self { literals, distances: vec![5; 30] }
    }

    /// The header of a dynamic block, in which each length has 4 bits.
    pub(crate) fn header(&self, last: bool) -> Bits {
        let mut bits = Bits::default();
        bits.number(u32::from(last) | 2 << 1, 3);
        bits.number(286 - 257, 5).number(30 - 1, 5).number(19 - 4, 4);
        bits.number(0, 9);
        (0..16).for_each(|_| {
            bits.number(4, 3);
        });
        for length in self.literals[..286].iter().chain(&self.distances[..30]) {
            bits.word((*length).into(), 4);
        }
        bits
    }

    /// The AECS of a compression with this code and bits in its accumulator.
    pub(crate) fn compress_aecs(&self, accumulator: &Bits) -> Vec<u8> {
        let mut aecs = vec![0; COMPRESS_AECS];
        aecs[28..32].copy_from_slice(&(accumulator.0.len() as u32).to_le_bytes());
        let bytes = accumulator.bytes();
        aecs[32..32 + bytes.len()].copy_from_slice(&bytes);
        for (at, lengths, count) in [(288, &self.literals, 286), (1440, &self.distances, 30)] {
            for (nth, (word, length)) in words(lengths).iter().zip(lengths).enumerate().take(count)
            {
                let entry = word | u32::from(*length) << 15;
                aecs[at + 4 * nth..at + 4 * nth + 4].copy_from_slice(&entry.to_le_bytes());
            }
        }
        aecs
    }
}

/// Inflates by zlib-rs: the output, and how many bytes of input it took.
pub(crate) fn inflate(stream: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let mut inflater = flate2::Decompress::new(false);
    let mut output = Vec::with_capacity(1 << 16);
    loop {
        let before = (inflater.total_in(), inflater.total_out());
        let rest = &stream[inflater.total_in() as usize..];
        let status = inflater
            .decompress_vec(rest, &mut output, flate2::FlushDecompress::None)
            .map_err(|error| error.to_string())?;
        if status == flate2::Status::StreamEnd {
            return Ok((output, inflater.total_in() as usize));
        }
        if before == (inflater.total_in(), inflater.total_out()) {
            return Err(format!("no end after {} bytes", inflater.total_in()));
        }
        output.reserve(1 << 16);
    }
}

/// Data that compresses to some degree, the same for the same seed.
pub(crate) fn sample(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut data = Vec::with_capacity(bytes + 300);
    while data.len() < bytes {
        if data.is_empty() || next(3) == 0 {
            for _ in 0..=next(20) {
                data.push(next(1 << (1 + seed % 8)) as u8);
            }
        } else {
            let distance = 1 + next(data.len().min(5000));
            for _ in 0..3 + next(280) {
                data.push(data[data.len() - distance]);
            }
        }
    }
    data.truncate(bytes);
    data
}
