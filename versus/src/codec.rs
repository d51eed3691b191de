//! What compresses.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// A codec, with QPL by the path that compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Codec {
    None,
    Zlib,
    Zstd,
    /// QPL by libqpl in software
    QplSoftware,
    /// QPL by what is built in
    QplPortable,
}

impl Codec {
    /// QEMU's name of the compression, which is multifd's as well.
    pub(crate) fn compression(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::QplSoftware | Self::QplPortable => "qpl",
        }
    }

    pub(crate) fn has_levels(self) -> bool {
        matches!(self, Self::Zlib | Self::Zstd)
    }

    /// multifd's path for QPL.
    pub(crate) fn qpl_path(self) -> Option<&'static str> {
        match self {
            Self::QplSoftware => Some("software"),
            Self::QplPortable => Some("portable"),
            Self::None | Self::Zlib | Self::Zstd => None,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}
