//! Who migrates to whom.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// Source and destination, in the order of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Route {
    QemuToQemu,
    QemuToMultifd,
    MultifdToQemu,
    MultifdToMultifd,
    /// To `multifd recv`, which stores the VM before it confirms.
    #[value(skip)]
    Stored,
}

impl Route {
    pub(crate) fn is_from_qemu(self) -> bool {
        matches!(self, Self::QemuToQemu | Self::QemuToMultifd)
    }

    pub(crate) fn is_to_qemu(self) -> bool {
        matches!(self, Self::QemuToQemu | Self::MultifdToQemu)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::QemuToQemu => "QEMU to QEMU",
            Self::QemuToMultifd => "QEMU to multifd",
            Self::MultifdToQemu => "multifd to QEMU",
            Self::MultifdToMultifd => "multifd to multifd",
            Self::Stored => "… and stored",
        })
    }
}
