#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod codecs;
mod destination;
pub mod driver;
mod error;
#[cfg(feature = "inspect")]
pub mod inspect;
mod net;
mod page_set;
mod progress;
pub mod relay;
mod session;
mod source;
mod uri;

#[doc(no_inline)]
pub use multifd_core as core;
#[doc(no_inline)]
pub use multifd_core::stream;

#[cfg(feature = "qpl")]
pub use codecs::qpl;
pub use codecs::registry;
pub use destination::{Arrived, Destination, DestinationBuilder, Incoming};
pub use error::{Error, Side};
pub use page_set::PageSet;
pub use progress::{Progress, Stats};
pub use session::CancelToken;
pub use source::{Source, SourceBuilder, ZeroPages};
pub use uri::{MalformedUri, Uri};
