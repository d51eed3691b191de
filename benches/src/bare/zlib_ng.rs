//! zlib-ng, opened at run time: raw DEFLATE, a page a call, with nothing kept from call to call.

use std::ffi::{c_char, c_int, c_ulong, c_void};
use std::ptr;

use libz_sys::{Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH, Z_OK, Z_STREAM_END};

use super::library::Library;

/// The smallest window in which a match reaches back over a whole page, without a header.
const RAW_WINDOW_BITS: c_int = -13;

/// What zlib takes where nothing is said.
const MEMORY_LEVEL: c_int = 8;

/// `zng_stream` of `zlib-ng.h`.
#[repr(C)]
struct Stream {
    next_in: *const u8,
    avail_in: u32,
    total_in: usize,
    next_out: *mut u8,
    avail_out: u32,
    total_out: usize,
    msg: *const c_char,
    state: *mut c_void,
    zalloc: *mut c_void,
    zfree: *mut c_void,
    opaque: *mut c_void,
    data_type: c_int,
    adler: u32,
    reserved: c_ulong,
}

type Step = unsafe extern "C" fn(*mut Stream) -> c_int;
type Run = unsafe extern "C" fn(*mut Stream, c_int) -> c_int;

/// The opened library. It stays loaded until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct ZlibNg {
    deflate_init: unsafe extern "C" fn(*mut Stream, c_int, c_int, c_int, c_int, c_int) -> c_int,
    deflate: Run,
    deflate_reset: Step,
    deflate_end: Step,
    inflate_init: unsafe extern "C" fn(*mut Stream, c_int) -> c_int,
    inflate: Run,
    inflate_reset: Step,
    inflate_end: Step,
}

impl ZlibNg {
    /// Opens the library that `ZLIB_NG_LIBRARY` names, or the first that is found in the usual places.
    ///
    /// # Errors
    /// What to do, where there is none of version 2.1 or later.
    pub fn open() -> Result<Self, String> {
        let library = Library::open("ZLIB_NG_LIBRARY", "libz-ng.so.2").ok_or(
            "libz-ng.so.2 cannot be loaded: name the file in ZLIB_NG_LIBRARY, as built by cmake -DZLIB_COMPAT=OFF",
        )?;
        // SAFETY: zlib-ng.h of version 2.1 and later declares a function of that name with the type of the field.
        let deflate_init = unsafe { library.function("zng_deflateInit2")? };
        // SAFETY: as above.
        let deflate = unsafe { library.function("zng_deflate")? };
        // SAFETY: as above.
        let deflate_reset = unsafe { library.function("zng_deflateReset")? };
        // SAFETY: as above.
        let deflate_end = unsafe { library.function("zng_deflateEnd")? };
        // SAFETY: as above.
        let inflate_init = unsafe { library.function("zng_inflateInit2")? };
        // SAFETY: as above.
        let inflate = unsafe { library.function("zng_inflate")? };
        // SAFETY: as above.
        let inflate_reset = unsafe { library.function("zng_inflateReset")? };
        // SAFETY: as above.
        let inflate_end = unsafe { library.function("zng_inflateEnd")? };
        Ok(Self {
            deflate_init,
            deflate,
            deflate_reset,
            deflate_end,
            inflate_init,
            inflate,
            inflate_reset,
            inflate_end,
        })
    }
}

/// A stream that the library has set up, with what it is to do at each call.
struct Set {
    stream: Box<Stream>,
    reset: Step,
    run: Run,
    end: Step,
}

impl Set {
    /// # Safety
    /// `init` must set a stream up by the library's function for that, and the others be those that belong to it.
    unsafe fn new(
        init: impl FnOnce(*mut Stream) -> c_int,
        reset: Step,
        run: Run,
        end: Step,
    ) -> Self {
        let null = ptr::null_mut();
        let mut stream = Box::new(Stream {
            next_in: ptr::null(),
            avail_in: 0,
            total_in: 0,
            next_out: ptr::null_mut(),
            avail_out: 0,
            total_out: 0,
            msg: ptr::null(),
            state: null,
            zalloc: null,
            zfree: null,
            opaque: null,
            data_type: 0,
            adler: 0,
            reserved: 0,
        });
        assert_eq!(init(&raw mut *stream), Z_OK, "zlib-ng sets a stream up");
        Self { stream, reset, run, end }
    }

    /// All of `from` into `into`. Returns the bytes written; `None` where it does not end there.
    fn run(&mut self, from: &[u8], into: &mut [u8]) -> Option<usize> {
        let stream = &mut *self.stream;
        // SAFETY: the stream was set up, and its state is the library's own since.
        let reset = unsafe { (self.reset)(stream) };
        assert_eq!(reset, Z_OK, "zlib-ng resets a stream");
        stream.next_in = from.as_ptr();
        stream.avail_in = from.len() as u32;
        stream.next_out = into.as_mut_ptr();
        stream.avail_out = into.len() as u32;
        // SAFETY: as above. The library reads `from` and writes `into`, which are as long as the stream says and
        // do not overlap.
        let code = unsafe { (self.run)(stream, Z_FINISH) };
        (code == Z_STREAM_END && stream.avail_in == 0).then_some(stream.total_out)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: the stream was set up, and is not used behind this.
        unsafe { (self.end)(&raw mut *self.stream) };
    }
}

/// Compresses pages.
#[allow(missing_debug_implementations, reason = "the library's structure is not Debug")]
pub struct Compressor(Set);

impl Compressor {
    /// A compressor at `level`, from 1 to 9.
    ///
    /// # Panics
    /// Where the library refuses that.
    #[must_use]
    pub fn new(library: ZlibNg, level: c_int) -> Self {
        let init = |stream| {
            let (window, memory, strategy) = (RAW_WINDOW_BITS, MEMORY_LEVEL, Z_DEFAULT_STRATEGY);
            // SAFETY: the stream has no state yet, and null for the library's own allocator.
            unsafe { (library.deflate_init)(stream, level, Z_DEFLATED, window, memory, strategy) }
        };
        let ZlibNg { deflate, deflate_reset, deflate_end, .. } = library;
        // SAFETY: the functions belong together.
        Self(unsafe { Set::new(init, deflate_reset, deflate, deflate_end) })
    }

    /// Compresses `page` into `chunk`. Returns the bytes written; `None` where they do not fit.
    pub fn compress(&mut self, page: &[u8], chunk: &mut [u8]) -> Option<usize> {
        self.0.run(page, chunk)
    }
}

/// Restores pages.
#[allow(missing_debug_implementations, reason = "the library's structure is not Debug")]
pub struct Decompressor(Set);

impl Decompressor {
    /// A decompressor, for any window.
    ///
    /// # Panics
    /// Where the library refuses that.
    #[must_use]
    pub fn new(library: ZlibNg) -> Self {
        /// zlib-rs on the same streams has as large a one.
        const LARGEST_WINDOW: c_int = -15;
        // SAFETY: the stream has no state yet, and null for the library's own allocator.
        let init = |stream| unsafe { (library.inflate_init)(stream, LARGEST_WINDOW) };
        let ZlibNg { inflate, inflate_reset, inflate_end, .. } = library;
        // SAFETY: the functions belong together.
        Self(unsafe { Set::new(init, inflate_reset, inflate, inflate_end) })
    }

    /// Restores `page` from `chunk`. Returns whether that is what `chunk` is.
    pub fn decompress(&mut self, chunk: &[u8], page: &mut [u8]) -> bool {
        self.0.run(chunk, page) == Some(page.len())
    }
}
