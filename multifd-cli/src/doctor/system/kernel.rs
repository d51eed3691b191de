//! The running kernel, and what this process may do.

use std::fmt;
use std::path::Path;

use super::attribute::{Unread, Value, read};

/// What is known of the kernel.
#[derive(Clone, Debug)]
pub(in crate::doctor) struct Kernel {
    pub(in crate::doctor) release: Result<Release, Unread>,
    pub(in crate::doctor) iommu: Result<Iommu, Unread>,
    /// Whether this process may map a device's portal on any kernel: `CAP_SYS_RAWIO`.
    pub(in crate::doctor) raw_io: Result<bool, Unread>,
}

impl Kernel {
    pub(super) fn read(proc: &Path) -> Self {
        Self {
            release: read(proc, "sys/kernel/osrelease"),
            iommu: read(proc, "cmdline"),
            raw_io: read(proc, "self/status").map(|raw_io: RawIo| raw_io.0),
        }
    }
}

/// A kernel's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::doctor) struct Release {
    pub(in crate::doctor) major: u32,
    pub(in crate::doctor) minor: u32,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// `6.1.0-13-amd64`, `6.10-rc1`.
impl Value for Release {
    const EXPECTED: &'static str = "a kernel's version";

    fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest[..end].parse().ok()? })
    }
}

/// What the kernel's command line sets for Intel's IOMMU. A kernel may be built with other defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::doctor) struct Iommu {
    /// `intel_iommu=on`.
    pub(in crate::doctor) on: bool,
    /// `sm_on`: scalable mode, which shared virtual memory needs.
    pub(in crate::doctor) scalable: bool,
}

impl Value for Iommu {
    const EXPECTED: &'static str = "a kernel's command line";

    fn parse(text: &str) -> Option<Self> {
        let mut iommu = Self::default();
        let parameters = text.split_ascii_whitespace();
        for option in parameters.filter_map(|p| p.strip_prefix("intel_iommu=")) {
            for word in option.split(',') {
                match word {
                    "on" => iommu.on = true,
                    "off" => iommu.on = false,
                    "sm_on" => iommu.scalable = true,
                    "sm_off" => iommu.scalable = false,
                    _ => {}
                }
            }
        }
        Some(iommu)
    }
}

/// Whether `/proc/self/status` has `CAP_SYS_RAWIO` among the effective capabilities.
struct RawIo(bool);

impl Value for RawIo {
    const EXPECTED: &'static str = "a process' status with its CapEff";

    fn parse(text: &str) -> Option<Self> {
        const CAP_SYS_RAWIO: u64 = 1 << 17;
        let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
        Some(Self(effective & CAP_SYS_RAWIO != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_a_distributors_release() {
        let of = |major, minor| Some(Release { major, minor });
        assert_eq!(Release::parse("6.1.0-13-amd64"), of(6, 1));
        assert_eq!(Release::parse("6.10-rc1"), of(6, 10));
        assert_eq!(Release::parse("5.18"), of(5, 18));
        for text in ["", "six", "6", "6.", "6.x", "-6.1"] {
            assert_eq!(Release::parse(text), None, "{text}");
        }
        assert!(of(5, 18) < of(6, 1) && of(6, 9) < of(6, 10));
    }

    #[test]
    fn the_last_option_decides_whether_the_iommu_is_on() {
        let of = |text| Iommu::parse(text).map(|iommu| (iommu.on, iommu.scalable));
        assert_eq!(of("quiet intel_iommu=on,sm_on ro"), Some((true, true)));
        assert_eq!(of("intel_iommu=sm_on intel_iommu=on"), Some((true, true)));
        assert_eq!(of("intel_iommu=on"), Some((true, false)));
        assert_eq!(of("intel_iommu=on,sm_on intel_iommu=off"), Some((false, true)));
        assert_eq!(of("xintel_iommu=on,sm_on iommu=on"), Some((false, false)));
        assert_eq!(of(""), Some((false, false)));
    }

    #[test]
    fn the_capability_is_one_bit_of_the_effective_ones() {
        let of = |text| RawIo::parse(text).map(|RawIo(raw_io)| raw_io);
        assert_eq!(of("Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n"), Some(true));
        assert_eq!(of("CapEff:\t0000000000020000"), Some(true));
        assert_eq!(of("CapPrm:\t0000000000020000\nCapEff:\t000001fffffdffff"), Some(false));
        assert_eq!(of("CapEff:\tx"), None);
        assert_eq!(of("CapPrm:\t0000000000020000"), None);
    }
}
