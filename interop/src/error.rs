//! Why a program does not do what a test wants of it.

use std::io;
use std::time::Duration;

/// A failure of QEMU, of `multifd`, or of what lies between them and the test.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was to be done.
        doing: String,
        /// The reason.
        source: io::Error,
    },
    /// QEMU refused a command.
    #[error("QEMU refuses {command}: {reason}")]
    Refused {
        /// The command's name.
        command: String,
        /// QEMU's words.
        reason: String,
    },
    /// What came from QEMU is not QMP, or is no answer to what was asked.
    #[error("QMP: {0}")]
    Protocol(String),
    /// A program that was to go on has ended.
    #[error("{program} has ended with {status}; it said: {stderr}")]
    Ended {
        /// Which program.
        program: &'static str,
        /// How.
        status: String,
        /// What it wrote to stderr.
        stderr: String,
    },
    /// A program that was to succeed has failed.
    #[error("{0}")]
    Failed(String),
    /// Something takes too long.
    #[error("not within {} s: {what}", limit.as_secs_f64())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
}

impl Error {
    /// Whether somebody did not answer in time.
    pub(crate) fn is_timeout(&self) -> bool {
        let Self::Io { source, .. } = self else { return matches!(self, Self::Timeout { .. }) };
        matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.into(), source }
    }
}
