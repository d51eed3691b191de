//! What an ordinary backend implements.
//!
//! [`PacketCodec`] is for methods that turn all pages of a packet into one payload, with a stream
//! that runs through the channel (zlib, zstd). [`PageCodec`] is for methods whose pages stand
//! alone, in QPL's payload format. [`PacketMethods`] and [`PageMethods`] make a method of
//! either. An accelerator that is awaited, in that format, has [`Chunks`] and [`ChunkWriter`].

mod chunks;
mod packet;
mod page;
mod payload;

pub use chunks::{Chunk, ChunkWriter, Chunks};
pub use packet::{PacketCodec, PacketMethods, PageWriter};
pub use page::{PageCodec, PageMethods};
pub use payload::Payload;
