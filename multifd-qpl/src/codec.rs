//! The codec, on whichever path.

use std::marker::PhantomData;

use multifd_core::codec::{PageCodec, PageMethods};
use multifd_core::{
    ChannelConfig, Compression, Error, MethodDescriptor, MethodStats, MultiFdMethods, UsageError,
};

use crate::path::{Engine, OnPath};
use crate::{inflate, portable, software};

/// The codec on the path `P`.
pub(crate) const fn descriptor<P: OnPath>() -> MethodDescriptor {
    MethodDescriptor {
        name: NAME,
        summary: P::SUMMARY,
        // The accelerator has only the one, so nothing may depend on another.
        levels: None,
        probe: P::probe,
        methods: Qpl::<P>::METHODS,
    }
}

const NAME: &str = "qpl";

/// Every page is a DEFLATE stream (RFC 1951) of its own, with distances of up to
/// [`WINDOW`](crate::WINDOW).
struct Qpl<P>(PhantomData<fn() -> P>);

impl<P: OnPath> Qpl<P> {
    const METHODS: &'static dyn MultiFdMethods = &PageMethods::<Self>::new();

    fn engine() -> Result<Engine, Error> {
        let engine = P::PATH.engine();
        engine.map_err(|reason| UsageError::NotAvailable { name: NAME, reason }.into())
    }
}

impl<P: OnPath> PageCodec for Qpl<P> {
    const COMPRESSION: Compression = Compression::Qpl;
    type Compressor = Compressor;
    type Decompressor = Decompressor;

    fn compressor(config: &ChannelConfig) -> Result<Compressor, Error> {
        let engine = match Self::engine()? {
            Engine::Software(library) => {
                CompressEngine::Software(software::Compressor::new(&library)?)
            }
            Engine::Portable { .. } => CompressEngine::Portable(portable::Compressor::new(config)),
        };
        Ok(Compressor { engine, pages: 0 })
    }

    fn decompressor(config: &ChannelConfig) -> Result<Decompressor, Error> {
        // What is named must be there, though it is not needed here.
        Self::engine()?;
        Ok(Decompressor { inflate: inflate::Decompressor::new(config)?, pages: 0 })
    }

    fn compress(
        compressor: &mut Compressor,
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        let written = match &mut compressor.engine {
            CompressEngine::Software(engine) => engine.compress(page, chunk),
            CompressEngine::Portable(engine) => engine.compress(page, chunk),
        }?;
        compressor.pages += u64::from(written.is_some());
        Ok(written)
    }

    fn decompress(
        decompressor: &mut Decompressor,
        chunk: &[u8],
        page: &mut [u8],
    ) -> Result<(), Error> {
        decompressor.inflate.decompress(chunk, page)?;
        decompressor.pages += 1;
        Ok(())
    }

    fn compressor_stats(compressor: &Compressor) -> MethodStats {
        let name = match compressor.engine {
            CompressEngine::Software(_) => SOFTWARE_PAGES,
            CompressEngine::Portable(_) => PORTABLE_PAGES,
        };
        [(name, compressor.pages)].into()
    }

    fn decompressor_stats(decompressor: &Decompressor) -> MethodStats {
        [(PORTABLE_PAGES, decompressor.pages)].into()
    }
}

/// Pages that libqpl compressed in software.
const SOFTWARE_PAGES: &str = "software pages";

/// Pages that what is built in compressed, or decompressed.
const PORTABLE_PAGES: &str = "portable pages";

/// One channel's compressor.
struct Compressor {
    engine: CompressEngine,
    /// Pages that got shorter.
    pages: u64,
}

enum CompressEngine {
    Software(software::Compressor),
    Portable(portable::Compressor),
}

/// One channel's decompressor.
struct Decompressor {
    inflate: inflate::Decompressor,
    /// Pages that came compressed.
    pages: u64,
}
