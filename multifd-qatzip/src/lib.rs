#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod decode;
mod encode;
mod member;

use std::sync::Arc;

pub use decode::Decoder;
pub use encode::Encoder;
use multifd_core::codec::{PacketCodec, PacketMethods, PageWriter};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, Payload, Registration,
};

multifd_core::inventory::submit! {
    Registration(|| Arc::new(PacketMethods::new(Qatzip::new())))
}

/// Method qatzip: the pages of a packet are gzip members (RFC 1952), each with QATzip's extra field.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct Qatzip;

impl Qatzip {
    /// The codec. It has no options.
    pub const fn new() -> Self {
        Self
    }
}

impl PacketCodec for Qatzip {
    type Encoder = Encoder;
    type Decoder = Decoder;

    fn descriptor(&self) -> MethodDescriptor {
        let summary = "gzip members a packet, as Intel's QAT makes them; in software";
        MethodDescriptor::new("qatzip", summary, Compression::Qatzip)
    }

    fn probe(&self) -> Availability {
        Availability::Available("software, built in; Intel's QAT is not used".to_owned())
    }

    fn encoder(&self, _: &ChannelConfig) -> Result<Encoder, Error> {
        Ok(Encoder::new())
    }

    fn decoder(&self, _: &ChannelConfig) -> Result<Decoder, Error> {
        Ok(Decoder::new())
    }

    fn encode(
        &self,
        encoder: &mut Encoder,
        pages: &[u8],
        payload: &mut Payload,
    ) -> Result<(), Error> {
        encoder.encode(pages, payload);
        Ok(())
    }

    fn decode(
        &self,
        decoder: &mut Decoder,
        payload: &[u8],
        pages: &mut PageWriter<'_>,
    ) -> Result<(), Error> {
        decoder.decode(payload, pages)
    }
}
