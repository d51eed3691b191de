#![doc = include_str!("../README.md")]

pub mod channel;
pub mod codec;
mod compression;
mod error;
pub mod io;
mod method;
pub mod none;
mod page_size;
mod payload;
pub mod ram;
mod registry;
pub mod stream;
pub mod wire;

#[doc(no_inline)]
pub use async_trait::async_trait;
#[doc(no_inline)]
pub use inventory;
#[doc(no_inline)]
pub use vm_memory;

pub use compression::{Compression, MAX_PAYLOAD, PrivateMethod, UnknownCompression};
pub use error::{Error, ErrorKind, PeerError, Place, UsageError};
pub use method::{ChannelConfig, MethodStats, MultiFdMethods, PageAccess, RecvMethod, SendMethod};
pub use page_size::{PACKET_BYTES, PageSize};
pub use payload::Payload;
pub use registry::{Availability, Levels, MethodDescriptor, Registry};
