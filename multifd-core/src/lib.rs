#![doc = include_str!("../README.md")]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

pub mod channel;
pub mod codec;
mod counters;
mod error;
mod foreign;
mod method;
pub mod none;
mod page_size;
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

pub use codec::Payload;
pub use counters::{MethodCounters, MethodStats};
pub use error::{Error, ErrorKind, PeerError, Place, UsageError};
pub use foreign::Foreign;
pub use method::{ChannelConfig, MultiFdMethods, PageAccess, RecvMethod, SendMethod};
pub use page_size::{PACKET_BYTES, PageSize};
pub use registry::{Availability, Levels, MethodDescriptor, Registration, Registry};
pub use wire::{Compression, MAX_PAYLOAD, PrivateMethod, UnknownCompression};
