//! A toy: each chunk says first how long what it gives is, as many formats do, and its decoder
//! believes it where it is a number of pages, which noise seldom begins with.

use std::hint::black_box;

use flate2::{Decompress, FlushDecompress, Status};
use miniz_oxide::deflate::compress_to_vec;
use multifd_core::codec::{PageCodec, PageMethods};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, PrivateMethod,
};

/// The most that the decoder allocates: less than what shows in the process's address space.
const MOST: usize = 256 << 20;

#[derive(Debug)]
pub(crate) struct Prefixed;

impl Prefixed {
    pub(crate) fn methods(self) -> PageMethods<Self> {
        PageMethods::new(self)
    }
}

impl PageCodec for Prefixed {
    type Compressor = ();
    type Decompressor = ();

    fn descriptor(&self) -> MethodDescriptor {
        let private = PrivateMethod::new(0x0e).expect("QEMU does not use it");
        MethodDescriptor::new(
            "prefixed",
            "a toy: chunks with a length",
            Compression::Private(private),
        )
    }

    fn probe(&self) -> Availability {
        Availability::Available("a toy".to_owned())
    }

    fn compressor(&self, _: &ChannelConfig) -> Result<(), Error> {
        Ok(())
    }

    fn decompressor(&self, _: &ChannelConfig) -> Result<(), Error> {
        Ok(())
    }

    fn compress(&self, (): &mut (), page: &[u8], out: &mut [u8]) -> Result<Option<usize>, Error> {
        let chunk = [&(page.len() as u32).to_le_bytes()[..], &compress_to_vec(page, 1)].concat();
        let Some(out) = out.get_mut(..chunk.len()) else { return Ok(None) };
        out.copy_from_slice(&chunk);
        Ok(Some(chunk.len()))
    }

    fn decompress(&self, (): &mut (), chunk: &[u8], page: &mut [u8]) -> Result<usize, Error> {
        let (length, stream) =
            chunk.split_first_chunk().ok_or_else(|| Error::payload("no length"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MOST || length % page.len() != 0 {
            return Err(Error::payload("a length that nobody believes"));
        }
        let mut given = black_box(vec![0; length]);
        let mut inflate = Decompress::new(false);
        let status = inflate.decompress(stream, &mut given, FlushDecompress::Finish);
        let status = status.map_err(|error| Error::payload(error.to_string()))?;
        if (status, inflate.total_in()) != (Status::StreamEnd, stream.len() as u64) {
            return Err(Error::payload("not exactly a stream"));
        }
        let count = inflate.total_out() as usize;
        match given.get(..count).filter(|given| given.len() == page.len()) {
            Some(given) => page.copy_from_slice(given),
            None => return Err(Error::payload("not a page")),
        }
        Ok(count)
    }
}
