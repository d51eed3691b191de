//! Which QEMUs there are, and where.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

/// A version of QEMU that is tested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// Debian 12's: the oldest form of the format.
    V7_2,
    /// That of Debian 12's backports.
    V10_0,
    /// The newest that is packaged: 11.1 or later, with QPL.
    Newest,
}

/// Where `scripts/qemu` has put QEMUs: if it is set, all versions must be there.
const FOLDER: &str = "MULTIFD_QEMU";

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 3] = [Self::V7_2, Self::V10_0, Self::Newest];

    /// As `scripts/qemu` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V7_2 => "7.2",
            Self::V10_0 => "10.0",
            Self::Newest => "newest",
        }
    }

    /// The machine type to test it with: its newest, without the parts that QEMU keeps compatible
    /// with older ones.
    pub const fn machine(self) -> &'static str {
        match self {
            Self::V7_2 => "pc-i440fx-7.2",
            Self::V10_0 => "pc-i440fx-10.0",
            Self::Newest => "pc",
        }
    }

    /// Whether zero pages can be looked for by the channels: since 9.0. Before, the packet has no
    /// place for them.
    pub const fn has_zero_pages_in_packets(self) -> bool {
        !matches!(self, Self::V7_2)
    }

    /// Whether its source, in software emulation, notices all that a running guest writes. 7.2 does
    /// not: pages that the guest has changed arrive as they were earlier.
    pub const fn notices_all_writes(self) -> bool {
        !matches!(self, Self::V7_2)
    }

    /// The program of this version.
    ///
    /// # Errors
    /// There is none.
    pub fn program(self) -> Result<PathBuf, Missing> {
        let named = env::var_os(FOLDER).map(PathBuf::from);
        let required = named.is_some();
        let folder = named
            .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/qemu"))
            .join(self.name());
        let program = folder.join("qemu-system-x86_64");
        if program.exists() {
            Ok(program)
        } else {
            Err(Missing { version: self, folder, required })
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A version that is not there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no QEMU {version} in {}: get it by scripts/qemu {version}", folder.display())]
pub struct Missing {
    version: Version,
    folder: PathBuf,
    /// Whether it must be there, since the environment says where.
    pub required: bool,
}
