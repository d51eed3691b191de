//! Versions of the library.

use std::fmt;

/// A version of libqpl.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Changes with the ABI; 1 is the only one known.
    pub major: u32,
    /// Changes with what the library can do.
    pub minor: u32,
    /// Changes with its mistakes.
    pub patch: u32,
}

impl Version {
    /// The oldest version that is taken.
    pub const OLDEST: Self = Self::new(1, 5, 0);

    /// Version `major.minor.patch`.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// The version that `text` starts with: `1.9.0`, `1.9`, `v1.9.0-12-gabc`. What is neither part
    /// of the numbers nor a leading `v` is ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches(['v', 'V']);
        let mut numbers = text.split('.').map_while(|part| {
            let end = part.find(|character: char| !character.is_ascii_digit());
            part[..end.unwrap_or(part.len())].parse().ok()
        });
        let (major, minor) = (numbers.next()?, numbers.next()?);
        Some(Self { major, minor, patch: numbers.next().unwrap_or(0) })
    }

    /// Whether this crate knows the ABI of that version.
    pub fn is_supported(self) -> bool {
        self.major == Self::OLDEST.major && self >= Self::OLDEST
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch } = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_the_library_may_say() {
        let version = Version::new(1, 9, 0);
        for text in ["1.9.0", "1.9", "v1.9.0", " 1.9.0-3-g12ab", "1.9.0+debian"] {
            assert_eq!(Version::parse(text), Some(version), "{text}");
        }
        assert_eq!(Version::parse("1.10.2").unwrap().to_string(), "1.10.2");
        for text in ["", "1", "one.two", "x1.9", ".9"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn versions_from_1_5_on_and_below_2_are_supported() {
        let supported = |text| Version::parse(text).unwrap().is_supported();
        assert!(["1.5.0", "1.5.1", "1.9.0", "1.10.0"].into_iter().all(supported));
        assert!(!["0.9.9", "1.4.9", "2.0.0"].into_iter().any(supported));
    }
}
