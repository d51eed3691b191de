//! What compresses pages, and what restores them.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use libdeflater::CompressionLvl;
use lz4_flex::block::get_maximum_output_size;
use multifd_benches::PAGE_BYTES;
use multifd_benches::bare::isal::{self, Isal};
use multifd_benches::bare::qpl::Qpl;
use multifd_benches::bare::zlib_ng::{self, ZlibNg};
use page_deflate::Level;
use zstd_safe::{CCtx, CParameter, DCtx};

/// How pages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Deflate,
    Zstd,
    Lz4,
}

/// Compresses a page, each for itself, into the room behind it. Returns the bytes written; `None` where they
/// do not fit.
type Encode = Box<dyn FnMut(&[u8], &mut [u8]) -> Option<usize>>;

/// Restores the page of each chunk of a packet, and shows it, with the chunk's index.
type Decode = Box<dyn FnMut(&[&[u8]], &mut dyn FnMut(usize, &[u8]))>;

pub(crate) struct Encoder {
    pub(crate) name: String,
    pub(crate) format: Format,
    /// Whether it is of this repository.
    pub(crate) ours: bool,
    /// Bytes of room that it gets. Where it can do with less than a page, as a sender would offer.
    pub(crate) room: usize,
    pub(crate) encode: Encode,
}

pub(crate) struct Decoder {
    pub(crate) name: &'static str,
    pub(crate) format: Format,
    pub(crate) ours: bool,
    pub(crate) decode: Decode,
}

/// Everything that is there; a line about each that is not.
pub(crate) struct Engines {
    pub(crate) encoders: Vec<Encoder>,
    pub(crate) decoders: Vec<Decoder>,
    pub(crate) absent: Vec<String>,
}

impl Engines {
    pub(crate) fn open() -> Self {
        let mut engines = Self { encoders: vec![], decoders: vec![], absent: vec![] };
        engines.page_deflate();
        engines.isal();
        engines.libdeflate();
        engines.libqpl();
        engines.zlib_rs();
        engines.zlib_ng();
        engines.zstd();
        engines.lz4();
        engines
    }

    fn page_deflate(&mut self) {
        for (name, level) in [
            ("page-deflate fast", Level::Fast),
            ("page-deflate balanced", Level::Balanced),
            ("page-deflate strong", Level::Strong),
        ] {
            let mut encoder = page_deflate::Encoder::with_level(level, PAGE_BYTES, PAGE_BYTES);
            self.deflate(name, move |page, chunk| encoder.encode(page, chunk));
        }
        self.encoders.iter_mut().for_each(|encoder| encoder.ours = true);
        let mut decoder = page_deflate::Decoder::new(PAGE_BYTES, PAGE_BYTES);
        let mut page = vec![0; PAGE_BYTES];
        let decode: Decode = Box::new(move |chunks, each| {
            decoder.decode_each(chunks.iter().copied(), PAGE_BYTES, |index, decoded| {
                // The others write to the caller's memory: here that takes a copy.
                page.copy_from_slice(decoded.expect("page-deflate takes the chunk").page);
                each(index, &page);
            });
        });
        let (name, format) = ("page-deflate", Format::Deflate);
        self.decoders.push(Decoder { name, format, ours: true, decode });
    }

    fn isal(&mut self) {
        let isal = match Isal::open() {
            Ok(isal) => isal,
            Err(error) => return self.absent.push(format!("without ISA-L: {error}")),
        };
        for level in [0, 1] {
            let mut compressor = isal::Compressor::new(isal, level);
            let name = format!("ISA-L {level}");
            self.deflate(name, move |page, chunk| compressor.compress(page, chunk));
        }
        let mut decompressor = isal::Decompressor::new(isal);
        self.decoder("ISA-L", Format::Deflate, move |chunk, page| {
            decompressor.decompress(chunk, page)
        });
    }

    fn libdeflate(&mut self) {
        let level = CompressionLvl::new(1).expect("a level of libdeflate's");
        let mut compressor = libdeflater::Compressor::new(level);
        self.deflate("libdeflate 1", move |page, chunk| {
            compressor.deflate_compress(page, chunk).ok()
        });
        let mut decompressor = libdeflater::Decompressor::new();
        self.decoder("libdeflate", Format::Deflate, move |chunk, page| {
            decompressor.deflate_decompress(chunk, page) == Ok(PAGE_BYTES)
        });
    }

    fn libqpl(&mut self) {
        let (mut compressor, mut decompressor) = match (Qpl::open(), Qpl::open()) {
            (Ok(compressor), Ok(decompressor)) => (compressor, decompressor),
            (Err(error), _) | (_, Err(error)) => {
                let how = "Debian's package is libqpl1, and scripts/qpl-library gets it";
                return self.absent.push(format!("without libqpl: {error}; {how}"));
            }
        };
        let name = format!("libqpl {}, fixed", compressor.version());
        self.deflate(name, move |page, chunk| compressor.compress_page(page, chunk));
        self.decoder("libqpl", Format::Deflate, move |chunk, page| {
            decompressor.decompress_page(chunk, page)
        });
    }

    fn zlib_rs(&mut self) {
        /// The smallest window in which a match reaches back over a whole page: zlib leaves some of it unused.
        const WINDOW_BITS: u8 = 13;
        /// Enough for any page in fixed codes, of at most 9 bits a byte. With less, a page that does not fit costs
        /// zlib-rs 0.6.8 some of its own buffer: `reset` forgets how far that was read, and in the end it panics.
        const ROOM: usize = PAGE_BYTES / 8 * 9 + 16;
        let level = Compression::new(1);
        let mut compress = Compress::new_with_window_bits(level, false, WINDOW_BITS);
        self.encoder("zlib-rs 1", Format::Deflate, ROOM, move |page, chunk| {
            compress.reset();
            let status = compress.compress(page, chunk, FlushCompress::Finish);
            let status = status.expect("zlib-rs compresses");
            (status == Status::StreamEnd).then(|| compress.total_out() as usize)
        });
        let mut decompress = Decompress::new(false);
        self.decoder("zlib-rs", Format::Deflate, move |chunk, page| {
            decompress.reset(false);
            let status = decompress.decompress(chunk, page, FlushDecompress::Finish);
            matches!(status, Ok(Status::StreamEnd)) && decompress.total_out() == PAGE_BYTES as u64
        });
    }

    fn zlib_ng(&mut self) {
        let library = match ZlibNg::open() {
            Ok(library) => library,
            Err(error) => return self.absent.push(format!("without zlib-ng: {error}")),
        };
        let mut compressor = zlib_ng::Compressor::new(library, 1);
        self.deflate("zlib-ng 1", move |page, chunk| compressor.compress(page, chunk));
        let mut decompressor = zlib_ng::Decompressor::new(library);
        self.decoder("zlib-ng", Format::Deflate, move |chunk, page| {
            decompressor.decompress(chunk, page)
        });
    }

    fn zstd(&mut self) {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(1)).expect("a level of zstd's");
        let room = zstd_safe::compress_bound(PAGE_BYTES);
        self.encoder("zstd 1", Format::Zstd, room, move |page, chunk| {
            context.compress2(chunk, page).ok()
        });
        let mut context = DCtx::create();
        self.decoder("zstd", Format::Zstd, move |chunk, page| {
            context.decompress(page, chunk) == Ok(PAGE_BYTES)
        });
    }

    fn lz4(&mut self) {
        // With less it refuses every page.
        let room = get_maximum_output_size(PAGE_BYTES);
        self.encoder("lz4", Format::Lz4, room, |page, chunk| {
            lz4_flex::block::compress_into(page, chunk).ok()
        });
        self.decoder("lz4", Format::Lz4, |chunk, page| {
            lz4_flex::block::decompress_into(chunk, page).is_ok_and(|bytes| bytes == PAGE_BYTES)
        });
    }

    fn deflate(
        &mut self,
        name: impl Into<String>,
        encode: impl FnMut(&[u8], &mut [u8]) -> Option<usize> + 'static,
    ) {
        self.encoder(name, Format::Deflate, PAGE_BYTES - 1, encode);
    }

    fn encoder(
        &mut self,
        name: impl Into<String>,
        format: Format,
        room: usize,
        encode: impl FnMut(&[u8], &mut [u8]) -> Option<usize> + 'static,
    ) {
        let (name, encode) = (name.into(), Box::new(encode));
        self.encoders.push(Encoder { name, format, ours: false, room, encode });
    }

    /// One that restores a page at a time, and says whether it could.
    fn decoder(
        &mut self,
        name: &'static str,
        format: Format,
        mut restore: impl FnMut(&[u8], &mut [u8]) -> bool + 'static,
    ) {
        let mut page = vec![0; PAGE_BYTES];
        let decode: Decode = Box::new(move |chunks, each| {
            for (index, chunk) in chunks.iter().enumerate() {
                assert!(restore(chunk, &mut page), "{name} does not take chunk {index}");
                each(index, &page);
            }
        });
        self.decoders.push(Decoder { name, format, ours: false, decode });
    }
}
