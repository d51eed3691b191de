#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

use std::fmt;
use std::sync::Arc;

use multifd_core::codec::PageCodec;
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, Levels, MethodDescriptor, PrivateMethod,
};
use zstd_safe::{CCtx, CParameter, DCtx, DDict, compress_bound, get_error_name, version_string};

/// Method zstd-dictionary: every page is a zstd frame of its own, made with one dictionary.
#[derive(Clone)]
pub struct ZstdDictionary {
    dictionary: Arc<[u8]>,
}

impl ZstdDictionary {
    /// The codec with `dictionary`: what `zstd --train` has made, or any bytes that pages are like.
    /// The other side must have the same.
    pub fn new(dictionary: impl Into<Arc<[u8]>>) -> Self {
        Self { dictionary: dictionary.into() }
    }
}

impl fmt::Debug for ZstdDictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZstdDictionary({} bytes)", self.dictionary.len())
    }
}

/// Taken in docs/private-codecs.md.
const VALUE: PrivateMethod = PrivateMethod::new(0x0a).expect("QEMU does not use it");

const DESCRIPTOR: MethodDescriptor = MethodDescriptor::new(
    "zstd-dictionary",
    "a zstd frame a page, with a dictionary, by libzstd; not one of QEMU's",
    Compression::Private(VALUE),
)
.with_levels(Levels::new(1, 19, 3));

impl PageCodec for ZstdDictionary {
    /// The context, and room for a page that gets longer.
    type Compressor = (CCtx<'static>, Box<[u8]>);
    type Decompressor = DCtx<'static>;

    fn descriptor(&self) -> MethodDescriptor {
        DESCRIPTOR
    }

    fn probe(&self) -> Availability {
        if self.dictionary.is_empty() {
            return Availability::Unavailable("its dictionary is empty".to_owned());
        }
        match DDict::try_create(&self.dictionary) {
            Some(_) => Availability::Available(format!("libzstd {}, built in", version_string())),
            None => Availability::Unavailable(
                "its dictionary is malformed: make one by `zstd --train`".to_owned(),
            ),
        }
    }

    fn compressor(&self, config: &ChannelConfig) -> Result<(CCtx<'static>, Box<[u8]>), Error> {
        let level = DESCRIPTOR.level(Some(config.level))?;
        let mut context = CCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
        // A page made with another dictionary is found out.
        context.set_parameter(CParameter::ChecksumFlag(true)).map_err(failed)?;
        context.load_dictionary(&self.dictionary).map_err(failed)?;
        Ok((context, vec![0; compress_bound(config.page_size.bytes())].into()))
    }

    fn decompressor(&self, _: &ChannelConfig) -> Result<DCtx<'static>, Error> {
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.load_dictionary(&self.dictionary).map_err(failed)?;
        Ok(context)
    }

    fn compress(
        &self,
        (context, frame): &mut (CCtx<'static>, Box<[u8]>),
        page: &[u8],
        chunk: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        let count = context.compress2(&mut frame[..], page).map_err(failed)?;
        let Some(chunk) = chunk.get_mut(..count) else { return Ok(None) };
        chunk.copy_from_slice(&frame[..count]);
        Ok(Some(count))
    }

    fn decompress(
        &self,
        context: &mut DCtx<'static>,
        chunk: &[u8],
        page: &mut [u8],
    ) -> Result<usize, Error> {
        context.decompress(page, chunk).map_err(|code| {
            Error::payload(format!("a zstd frame is malformed: {}", get_error_name(code)))
        })
    }
}

fn no_memory() -> Error {
    Error::backend("zstd has no memory for a context")
}

fn failed(code: usize) -> Error {
    Error::backend(format!("zstd fails: {}", get_error_name(code)))
}
