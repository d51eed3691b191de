//! Published tests, with everything that a plan needs.

use crate::codec::CodecSpeed;
use crate::parameters::Speed;

/// A published test of a migration.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The guest's memory.
    pub bytes: u64,
    /// The share of its pages that are zero, 0 to 1.
    pub zero_share: f64,
    /// Time before the first page, in nanoseconds.
    pub setup_ns: u64,
    codecs: &'static [(&'static str, f64, CodecSpeed)],
}

/// Intel's test of QEMU with 64 GB of memory, 4 IAA a side and 100 Gbit/s.
pub const XEON_4TH_GEN_64G: Preset = Preset {
    bytes: 64 << 30,
    zero_share: 0.0925,
    setup_ns: 440_000_000,
    codecs: &[
        ("none", 1.0, speeds(1e12, 1e12)),
        ("qpl-hardware", 1.97, QPL_SOFTWARE),
        ("qpl-software", 1.755, QPL_SOFTWARE),
        ("zstd", 2.925, speeds(420e6, 1600e6)),
    ],
};

const QPL_SOFTWARE: CodecSpeed = speeds(457e6, 780e6);

const fn speeds(compress: f64, decompress: f64) -> CodecSpeed {
    CodecSpeed::new(Speed::nearest(compress), Speed::nearest(decompress))
}

impl Preset {
    /// The names of the codecs that were tested.
    pub fn codecs(&self) -> impl Iterator<Item = &'static str> {
        self.codecs.iter().map(|(name, ..)| *name)
    }

    /// The ratio of a codec and its speeds; `None` of one that was not tested.
    pub fn codec(&self, name: &str) -> Option<(f64, CodecSpeed)> {
        let found = self.codecs.iter().find(|(other, ..)| *other == name);
        found.map(|&(_, ratio, speed)| (ratio, speed))
    }
}
