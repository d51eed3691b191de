//! The C zlib through its C functions, as QEMU drives it.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::ptr;

use libz_sys::{
    Z_BUF_ERROR, Z_NO_FLUSH, Z_OK, Z_SYNC_FLUSH, deflate, deflateEnd, deflateInit_, inflate,
    inflateEnd, inflateInit_, z_stream, zlibVersion,
};
use multifd_core::MAX_PAYLOAD;

use super::Memory;
use crate::guest::{PAGE_BYTES, Packet};

/// The library's version.
pub fn version() -> String {
    // SAFETY: the library returns a NUL-terminated string, which is a constant.
    unsafe { CStr::from_ptr(raw_version()) }.to_string_lossy().into_owned()
}

fn raw_version() -> *const c_char {
    // SAFETY: the function has no preconditions.
    unsafe { zlibVersion() }
}

/// A `z_stream` that has been set up. It does not move, since the library keeps pointers to it.
struct Stream {
    raw: Box<MaybeUninit<z_stream>>,
    end: unsafe extern "C" fn(*mut z_stream) -> i32,
}

impl Stream {
    /// # Safety
    /// `set_up` must be one of the library's functions that set up a stream, and `end` the one
    /// that frees it.
    unsafe fn new(
        set_up: impl FnOnce(*mut z_stream) -> i32,
        end: unsafe extern "C" fn(*mut z_stream) -> i32,
    ) -> Self {
        // All zero is what the library asks for before the set-up: no allocator of the caller's.
        let mut raw = Box::new(MaybeUninit::zeroed());
        assert_eq!(set_up(raw.as_mut_ptr()), Z_OK, "zlib has memory");
        Self { raw, end }
    }

    /// Calls `step`, `deflate` or `inflate`, until `input` is used up or `output` is full, as it
    /// does of itself. Takes what was read off `input`, and returns the bytes written.
    fn step(
        &mut self,
        step: unsafe extern "C" fn(*mut z_stream, i32) -> i32,
        flush: i32,
        input: &mut &[u8],
        output: &mut [u8],
    ) -> usize {
        // SAFETY: the set-up has filled in every field; those with functions are not null.
        let raw = unsafe { self.raw.assume_init_mut() };
        raw.next_in = input.as_ptr().cast_mut();
        raw.avail_in = input.len() as u32;
        raw.next_out = output.as_mut_ptr();
        raw.avail_out = output.len() as u32;
        // SAFETY: the stream is set up for `step`; the library reads `input`, writes `output`,
        // and keeps neither.
        let code = unsafe { step(ptr::from_mut(raw), flush) };
        assert!(code == Z_OK || code == Z_BUF_ERROR, "zlib fails: {code}");
        *input = &input[input.len() - raw.avail_in as usize..];
        output.len() - raw.avail_out as usize
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is set up, and this is the function that frees it.
        unsafe { (self.end)(self.raw.as_mut_ptr()) };
    }
}

const STREAM_BYTES: i32 = size_of::<z_stream>() as i32;

/// A compressor for one channel.
#[allow(missing_debug_implementations, reason = "the library's stream is not Debug")]
pub struct Compressor {
    stream: Stream,
    output: Vec<u8>,
}

impl Compressor {
    /// A compressor at `level`.
    ///
    /// # Panics
    /// Where the library fails.
    pub fn new(level: i32) -> Self {
        let set_up = |stream| {
            // SAFETY: `stream` is all zero, as it must be, and of the size given.
            unsafe { deflateInit_(stream, level, raw_version(), STREAM_BYTES) }
        };
        // SAFETY: the two functions belong together.
        let stream = unsafe { Stream::new(set_up, deflateEnd) };
        Self { stream, output: vec![0; MAX_PAYLOAD] }
    }

    /// Makes the payload of each packet, and shows it to `each`.
    ///
    /// # Panics
    /// Where the library fails.
    pub fn compress(&mut self, packets: &[Packet<'_>], mut each: impl FnMut(&[u8])) {
        for packet in packets {
            let mut used = 0;
            let mut pages = packet.private.chunks_exact(PAGE_BYTES).peekable();
            while let Some(mut page) = pages.next() {
                let flush = if pages.peek().is_none() { Z_SYNC_FLUSH } else { Z_NO_FLUSH };
                used += self.stream.step(deflate, flush, &mut page, &mut self.output[used..]);
                assert!(page.is_empty() && used < self.output.len(), "the packet fits");
            }
            each(&self.output[..used]);
        }
    }
}

/// A decompressor for one channel.
#[allow(missing_debug_implementations, reason = "the library's stream is not Debug")]
pub struct Decompressor {
    stream: Stream,
}

impl Default for Decompressor {
    fn default() -> Self {
        let set_up = |stream| {
            // SAFETY: `stream` is all zero, as it must be, and of the size given.
            unsafe { inflateInit_(stream, raw_version(), STREAM_BYTES) }
        };
        // SAFETY: the two functions belong together.
        Self { stream: unsafe { Stream::new(set_up, inflateEnd) } }
    }
}

impl Decompressor {
    /// Restores the pages at `offsets` from the `payload` of their packet.
    ///
    /// # Panics
    /// Where the library fails.
    pub fn decompress(&mut self, offsets: &[u64], payload: &[u8], memory: &mut Memory) {
        let mut input = payload;
        let mut pages = offsets.iter().peekable();
        while let Some(&offset) = pages.next() {
            let flush = if pages.peek().is_none() { Z_SYNC_FLUSH } else { Z_NO_FLUSH };
            let written = self.stream.step(inflate, flush, &mut input, memory.page(offset));
            assert_eq!(written, PAGE_BYTES, "the page is whole");
        }
        // The flush may be behind the last byte of the last page.
        self.stream.step(inflate, Z_SYNC_FLUSH, &mut input, &mut []);
        assert!(input.is_empty(), "the payload is used up");
    }
}
