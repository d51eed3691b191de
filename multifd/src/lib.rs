#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

#[cfg(feature = "cloud-hypervisor")]
pub mod cloud_hypervisor;
mod codecs;
mod destination;
pub mod driver;
mod early_state;
mod engine;
mod error;
#[cfg(feature = "inspect")]
pub mod inspect;
pub mod mapped_ram;
mod page_set;
pub mod plain_stream;
pub mod precopy;
#[cfg(any(feature = "tls", feature = "token"))]
mod private_file;
mod progress;
pub mod relay;
pub mod server;
mod source;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "token")]
pub mod token;
mod transport;
mod vm;

#[doc(no_inline)]
pub use multifd_core as core;
#[doc(inline)]
pub use multifd_core::stream;

#[cfg(feature = "qpl")]
pub use codecs::qpl;
#[cfg(feature = "zstd")]
pub use codecs::zstd;
pub use codecs::{Codec, registry};
pub use destination::{Arrived, Destination, DestinationBuilder, Incoming};
pub use early_state::EarlyState;
pub use engine::accept::Entrance;
pub use engine::cancel::CancelToken;
pub use engine::cpu_time::{CountedThread, CpuTime};
pub use engine::outgoing::Outgoing;
pub use engine::threads::Threads;
pub use error::{Error, Refused, Side, Unfinished};
pub use page_set::PageSet;
pub use progress::{Progress, Stats, ZeroCopyStats};
pub use source::{Source, SourceBuilder, ZeroPages};
pub use transport::{Connection, Listener, MalformedNetwork, MalformedUri, Network, Uri};
pub use vm::Vm;
