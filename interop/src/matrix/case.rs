//! One transfer and its name.

use std::fmt;

use crate::qemu::{Settings, Version};

/// A transfer between a QEMU and `multifd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    /// Which QEMU.
    pub version: Version,
    /// Which way.
    pub direction: Direction,
    /// The codec, by QEMU's name.
    pub compression: &'static str,
    /// Whether the guest runs meanwhile. To a QEMU: whether it ran when it was received.
    pub live: bool,
    /// How many channels.
    pub channels: u8,
    /// Who looks for zero pages at the source.
    pub zero_pages: ZeroPages,
    /// Whether the source waits for the destination's word.
    pub return_path: bool,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// QEMU to `multifd recv`.
    FromQemu,
    /// `multifd send` to QEMU.
    ToQemu,
}

/// `zero-page-detection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZeroPages {
    /// The channels.
    Multifd,
    /// The main channel.
    Legacy,
    /// Nobody.
    None,
}

const DIRECTIONS: [Direction; 2] = [Direction::FromQemu, Direction::ToQemu];
const COMPRESSIONS: [&str; 4] = ["none", "zlib", "zstd", "qpl"];
const BOTH: [bool; 2] = [false, true];
const CHANNELS: [u8; 3] = [1, 2, 8];
const ZERO_PAGES: [ZeroPages; 3] = [ZeroPages::Multifd, ZeroPages::Legacy, ZeroPages::None];

/// The dimensions of the matrix.
pub(super) const DIMENSIONS: usize = 7;

impl Case {
    /// The full cross product, also of what cannot be.
    pub fn all() -> impl Iterator<Item = Self> {
        let counts = [
            Version::ALL.len(),
            DIRECTIONS.len(),
            COMPRESSIONS.len(),
            BOTH.len(),
            CHANNELS.len(),
            ZERO_PAGES.len(),
            BOTH.len(),
        ];
        (0..counts.iter().product()).map(move |number| {
            let mut rest = number;
            Self::at(counts.map(|count| {
                let index = rest % count;
                rest /= count;
                index
            }))
        })
    }

    /// The case with these values, by their numbers.
    fn at(indices: [usize; DIMENSIONS]) -> Self {
        let [version, direction, compression, live, channels, zero_pages, return_path] = indices;
        Self {
            version: Version::ALL[version],
            direction: DIRECTIONS[direction],
            compression: COMPRESSIONS[compression],
            live: BOTH[live],
            channels: CHANNELS[channels],
            zero_pages: ZERO_PAGES[zero_pages],
            return_path: BOTH[return_path],
        }
    }

    /// Its value in each dimension, in words.
    pub(super) fn values(&self) -> [String; DIMENSIONS] {
        [
            self.version.to_string(),
            format!("{:?}", self.direction),
            self.compression.to_owned(),
            self.live.to_string(),
            self.channels.to_string(),
            format!("{:?}", self.zero_pages),
            self.return_path.to_string(),
        ]
    }

    /// How QEMU is set up for it, as far as its version has the setting.
    pub fn settings(&self) -> Settings {
        // A version that does not know the choice does as `legacy` says.
        let unsaid = !self.version.has_zero_pages_in_packets();
        let unsaid = unsaid && self.zero_pages == ZeroPages::Legacy;
        let says = self.direction == Direction::FromQemu && !unsaid;
        Settings {
            multifd: true,
            compression: self.compression,
            channels: self.channels,
            return_path: self.return_path,
            capabilities: &[],
            zero_pages: says.then(|| self.zero_pages.name()),
        }
    }
}

impl ZeroPages {
    /// QEMU's name, which is ours as well.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Multifd => "multifd",
            Self::Legacy => "legacy",
            Self::None => "none",
        }
    }
}

/// The name of its test: what it proves.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, compression, channels, .. } = self;
        let guest = if self.live { "a_running_guest" } else { "a_paused_guest" };
        let zero_pages = self.zero_pages.name();
        let s = if *channels == 1 { "" } else { "s" };
        let return_path = if self.return_path { "with" } else { "without" };
        let (ends, outcome) = match self.direction {
            Direction::FromQemu => (format!("from_qemu_{version}"), "arrives_whole"),
            Direction::ToQemu => (format!("to_qemu_{version}"), "goes_on_there"),
        };
        write!(
            f,
            "{ends}::{compression}::{guest}_{outcome}_over_{channels}_channel{s}_{return_path}_return_path_zero_pages_by_{zero_pages}"
        )
    }
}
