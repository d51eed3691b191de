//! Why nothing could be measured.

use std::io;

use multifd_interop as interop;

/// A failure of either program, or of the measurement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot {doing}: {source}")]
    Io { doing: String, source: io::Error },
    #[error(transparent)]
    Qemu(#[from] interop::Error),
    #[error(transparent)]
    Multifd(#[from] multifd::Error),
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }
}
