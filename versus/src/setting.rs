//! Under which circumstances a migration is measured.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::codec::Codec;
use crate::route::Route;

/// What is between source and destination, and what the destination's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// The loopback device, and new memory.
    Plain,
    /// As plain, with memory whose every page was touched before.
    Touched,
    /// As plain, with TLS and a certificate of either side.
    Tls,
    /// An emulated link in the loopback device's place.
    Link(Rate),
}

impl Setting {
    /// The most that may be taken, as a part of what QEMU to QEMU takes: of wall time, and of CPU time.
    pub(crate) fn target(self, codec: Codec, route: Route) -> Option<f64> {
        match (self, route, codec) {
            (_, _, Codec::QplSoftware | Codec::QplPortable) => None,
            (Self::Plain | Self::Touched, Route::MultifdToMultifd, Codec::None) => Some(0.95),
            (Self::Plain | Self::Touched, Route::MultifdToMultifd, Codec::Zlib) => Some(0.42),
            (Self::Plain | Self::Touched, Route::MultifdToMultifd, Codec::Zstd) => Some(0.85),
            (Self::Plain | Self::Touched, Route::MultifdToQemu, _) => Some(0.97),
            (Self::Tls, Route::MultifdToMultifd, _) => Some(0.9),
            _ => None,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.pad("loopback"),
            Self::Touched => f.pad("loopback, memory touched before"),
            Self::Tls => f.pad("loopback, TLS"),
            Self::Link(rate) => write!(f, "{rate}"),
        }
    }
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The speed of a link, in Gbit/s (10⁹ bits a second), of 1 to 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    gigabits: u16,
}

impl Rate {
    pub(crate) fn gigabits(self) -> u16 {
        self.gigabits
    }

    /// What passes in a millisecond, in bytes.
    pub(crate) fn bytes_per_millisecond(self) -> u32 {
        u32::from(self.gigabits) * 125_000
    }
}

/// `10G`.
impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let gigabits = text.strip_suffix('G').and_then(|number| number.parse().ok());
        let gigabits = gigabits.filter(|gigabits| (1..=400).contains(gigabits));
        gigabits
            .map(|gigabits| Self { gigabits })
            .ok_or_else(|| format!("'{text}' is not a speed such as 10G, in Gbit/s of 1 to 400"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Gbit/s", self.gigabits)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use super::*;

    #[test]
    fn a_speed_is_in_whole_gigabits() {
        let rate: Rate = "25G".parse().unwrap();
        assert_eq!((rate.gigabits(), rate.bytes_per_millisecond()), (25, 3_125_000));
        assert_eq!(Setting::Link(rate).to_string(), "25 Gbit/s");
        for bad in ["", "25", "0G", "1.5G", "401G", "-1G", "10M", "G"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn where_qemu_has_no_like_there_is_no_target() {
        let target = Setting::Plain.target(Codec::Zstd, Route::MultifdToMultifd);
        assert_eq!(target, Some(0.85));
        assert_eq!(Setting::Plain.target(Codec::QplSoftware, Route::MultifdToMultifd), None);
        assert_eq!(Setting::Plain.target(Codec::Zlib, Route::QemuToQemu), None);
        assert_eq!(Setting::Tls.target(Codec::None, Route::MultifdToMultifd), Some(0.9));
    }
}
