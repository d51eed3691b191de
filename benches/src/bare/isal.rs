//! ISA-L's DEFLATE (igzip), opened at run time: a page a call, with nothing kept from call to call.
//!
//! Of its two structures only the public heads are declared, as `isa-l/igzip_lib.h` has them. What is behind
//! them is the library's own: `REST` is larger than it needs.

use std::ffi::c_int;
use std::ptr;

use super::library::Library;

/// Bytes behind the heads. In 2.30.0 and in 2.31.1 the whole `isal_zstream` has 82384, `inflate_state` 87368.
const REST: usize = 256 << 10;

/// `ISAL_DEF_LVL1_DEFAULT`, the bytes that the library suggests for level 1.
const LEVEL_1_BYTES: usize = (4 << 10) + 2 * (8 << 10) + 4 * (64 << 10);

/// `COMP_OK` and `ISAL_DECOMP_OK`.
const OK: c_int = 0;

/// The public head of `isal_zstream`, and room for the rest.
#[repr(C)]
struct Zstream {
    next_in: *const u8,
    avail_in: u32,
    total_in: u32,
    next_out: *mut u8,
    avail_out: u32,
    total_out: u32,
    hufftables: *const u8,
    level: u32,
    level_buf_size: u32,
    level_buf: *mut u8,
    end_of_stream: u16,
    flush: u16,
    gzip_flag: u16,
    hist_bits: u16,
    rest: [u8; REST],
}

/// The public head of `inflate_state`, and room for the rest.
#[repr(C)]
struct InflateState {
    next_out: *mut u8,
    avail_out: u32,
    total_out: u32,
    next_in: *const u8,
    read_in: u64,
    avail_in: u32,
    read_in_length: i32,
    rest: [u8; REST],
}

/// The opened library. It stays loaded until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Isal {
    deflate_init: unsafe extern "C" fn(*mut Zstream),
    deflate: unsafe extern "C" fn(*mut Zstream) -> c_int,
    inflate_init: unsafe extern "C" fn(*mut InflateState),
    inflate: unsafe extern "C" fn(*mut InflateState) -> c_int,
}

impl Isal {
    /// Opens the library that `ISAL_LIBRARY` names, or the first that is found in the usual places.
    ///
    /// # Errors
    /// What to install, where there is none.
    pub fn open() -> Result<Self, String> {
        let library = Library::open("ISAL_LIBRARY", "libisal.so.2").ok_or(
            "libisal.so.2 cannot be loaded: install Debian's package libisal2, or name the file in ISAL_LIBRARY",
        )?;
        // SAFETY: the header of version 2 declares a function of that name with the type of the field.
        let deflate_init = unsafe { library.function("isal_deflate_stateless_init")? };
        // SAFETY: as above.
        let deflate = unsafe { library.function("isal_deflate_stateless")? };
        // SAFETY: as above.
        let inflate_init = unsafe { library.function("isal_inflate_init")? };
        // SAFETY: as above.
        let inflate = unsafe { library.function("isal_inflate_stateless")? };
        Ok(Self { deflate_init, deflate, inflate_init, inflate })
    }
}

/// Compresses pages.
#[allow(missing_debug_implementations, reason = "the library's structure is not Debug")]
pub struct Compressor {
    isal: Isal,
    stream: Box<Zstream>,
    level: u32,
    level_buf: Vec<u8>,
}

impl Compressor {
    /// A compressor at `level`, 0 or 1.
    ///
    /// # Panics
    /// At another level.
    pub fn new(isal: Isal, level: u32) -> Self {
        assert!(level <= 1, "level {level} has memory of another size");
        let stream = Zstream {
            next_in: ptr::null(),
            avail_in: 0,
            total_in: 0,
            next_out: ptr::null_mut(),
            avail_out: 0,
            total_out: 0,
            hufftables: ptr::null(),
            level: 0,
            level_buf_size: 0,
            level_buf: ptr::null_mut(),
            end_of_stream: 0,
            flush: 0,
            gzip_flag: 0,
            hist_bits: 0,
            rest: [0; REST],
        };
        let level_buf = vec![0; if level == 0 { 0 } else { LEVEL_1_BYTES }];
        Self { isal, stream: Box::new(stream), level, level_buf }
    }

    /// Compresses `page` into `chunk`. Returns the bytes written; `None` where they do not fit.
    ///
    /// # Panics
    /// Where the library fails otherwise.
    pub fn compress(&mut self, page: &[u8], chunk: &mut [u8]) -> Option<usize> {
        const OVERFLOW: c_int = -1;
        let stream = &mut *self.stream;
        // SAFETY: the structure is zeroed or one that the library has used, and as large as it needs.
        unsafe { (self.isal.deflate_init)(stream) };
        stream.level = self.level;
        stream.level_buf = self.level_buf.as_mut_ptr();
        stream.level_buf_size = self.level_buf.len() as u32;
        stream.end_of_stream = 1;
        // Distances up to 4096, as a device has them and as pages need.
        stream.hist_bits = 12;
        stream.next_in = page.as_ptr();
        stream.avail_in = page.len() as u32;
        stream.next_out = chunk.as_mut_ptr();
        stream.avail_out = chunk.len() as u32;
        // SAFETY: the stream is set up. The library reads `page`, and writes `chunk` and the level's memory,
        // which are as long as the stream says and do not overlap.
        match unsafe { (self.isal.deflate)(stream) } {
            OK => Some(stream.total_out as usize),
            OVERFLOW => None,
            code => panic!("ISA-L fails to compress: {code}"),
        }
    }
}

/// Restores pages.
#[allow(missing_debug_implementations, reason = "the library's structure is not Debug")]
pub struct Decompressor {
    isal: Isal,
    state: Box<InflateState>,
}

impl Decompressor {
    /// A decompressor.
    pub fn new(isal: Isal) -> Self {
        let state = InflateState {
            next_out: ptr::null_mut(),
            avail_out: 0,
            total_out: 0,
            next_in: ptr::null(),
            read_in: 0,
            avail_in: 0,
            read_in_length: 0,
            rest: [0; REST],
        };
        Self { isal, state: Box::new(state) }
    }

    /// Restores `page` from `chunk`. Returns whether that is what `chunk` is.
    pub fn decompress(&mut self, chunk: &[u8], page: &mut [u8]) -> bool {
        let state = &mut *self.state;
        // SAFETY: the structure is zeroed or one that the library has used, and as large as it needs. That it
        // reads raw DEFLATE, without a header, is what this sets.
        unsafe { (self.isal.inflate_init)(state) };
        state.next_in = chunk.as_ptr();
        state.avail_in = chunk.len() as u32;
        state.next_out = page.as_mut_ptr();
        state.avail_out = page.len() as u32;
        // SAFETY: the state is set up. The library reads `chunk` and writes `page`, which are as long as the
        // state says and do not overlap.
        let code = unsafe { (self.isal.inflate)(state) };
        code == OK && state.total_out as usize == page.len()
    }
}
