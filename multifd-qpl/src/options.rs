//! How the codec works, as its user may choose.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use page_deflate::Level;
use qpl_sys::{Job, Version};

use crate::path::Path;

/// How the codec works.
///
/// ```
/// use std::sync::Arc;
///
/// use multifd_core::Registry;
/// use multifd_qpl::{Numa, Options, Path, Qpl};
///
/// let options = Options::new(Path::Auto).with_numa(Numa::Any);
/// let registry = Registry::collected()?.replacing(Arc::new(Qpl::new(options)))?;
/// # Ok::<(), multifd_core::UsageError>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What compresses and restores pages.
    pub path: Path,
    /// Whose devices the hardware path uses.
    pub numa: Numa,
    /// How many times a page is submitted again while the devices' queues are busy, before the CPU
    /// takes it.
    pub submit_retries: u8,
    /// How long a job is waited for. One that takes longer is expected never to end: the CPU takes
    /// its page, and the channel leaves the devices alone from then on.
    pub timeout: Duration,
    /// How much the path [`Portable`](Path::Portable) does for shorter chunks. The others have one level.
    pub level: Level,
}

impl Options {
    /// The defaults: 3 retries, 5 seconds, the devices of the thread's socket, level [`Strong`](Level::Strong).
    pub const fn new(path: Path) -> Self {
        Self {
            path,
            numa: Numa::Socket,
            submit_retries: 3,
            timeout: Duration::from_secs(5),
            level: Level::Strong,
        }
    }

    /// With [`numa`](Self::numa).
    #[must_use]
    pub const fn with_numa(self, numa: Numa) -> Self {
        Self { numa, ..self }
    }

    /// With [`submit_retries`](Self::submit_retries).
    #[must_use]
    pub const fn with_submit_retries(self, submit_retries: u8) -> Self {
        Self { submit_retries, ..self }
    }

    /// With [`timeout`](Self::timeout).
    #[must_use]
    pub const fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// With [`level`](Self::level).
    #[must_use]
    pub const fn with_level(self, level: Level) -> Self {
        Self { level, ..self }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new(Path::Auto)
    }
}

/// Whose devices a channel uses, as seen from the processor that its thread runs on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Numa {
    /// Those of its socket; any, once there are none.
    #[default]
    Socket,
    /// Those of its NUMA node; any, once there are none.
    Node,
    /// Any.
    Any,
    /// Those of the NUMA node with this number, wherever the thread runs.
    Of(u16),
}

impl Numa {
    /// Whether the library knows the policy. Before 1.6, near is what is on the same NUMA node.
    ///
    /// # Errors
    /// That it does not, and what to do.
    pub(crate) fn check(self, library: Version) -> Result<(), String> {
        const POLICIES: Version = Version::new(1, 6, 0);
        if library < POLICIES && !matches!(self, Self::Socket | Self::Of(_)) {
            return Err(format!(
                "libqpl {library} does not know the NUMA policy {self}, which came with 1.6: \
                 install that, or choose socket or a node's number"
            ));
        }
        Ok(())
    }

    /// The value of the job's `numa_id`.
    pub(crate) fn id(self) -> i32 {
        match self {
            Self::Socket => Job::NUMA_SOCKET,
            Self::Node => Job::NUMA_NODE,
            Self::Any => Job::NUMA_ANY,
            Self::Of(node) => node.into(),
        }
    }
}

/// `socket`, `node`, `any`, or the node's number.
impl fmt::Display for Numa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket => f.write_str("socket"),
            Self::Node => f.write_str("node"),
            Self::Any => f.write_str("any"),
            Self::Of(node) => node.fmt(f),
        }
    }
}

impl FromStr for Numa {
    type Err = UnknownNuma;

    fn from_str(text: &str) -> Result<Self, UnknownNuma> {
        match text {
            "socket" => Ok(Self::Socket),
            "node" => Ok(Self::Node),
            "any" => Ok(Self::Any),
            number => number.parse().map(Self::Of).map_err(|_| UnknownNuma(text.to_owned())),
        }
    }
}

/// A text that is not a [`Numa`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownNuma(String);

impl fmt::Display for UnknownNuma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not socket, node, any or the number of a NUMA node", self.0)
    }
}

impl std::error::Error for UnknownNuma {}
