//! What is left out of the matrix, and why.

use super::case::{Case, Direction, ZeroPages};
use crate::qemu::Version;

/// Cases that cannot pass. A test runs one of each
/// version: it must fail, and say so as expected, or the
/// entry is stale.
#[derive(Clone, Copy, Debug)]
pub struct LeftOut {
    /// What is the case, as the name of a test.
    pub name: &'static str,
    /// Which cases.
    pub applies: fn(&Case) -> bool,
    /// Why they fail.
    pub reason: &'static str,
    /// What the failure says.
    pub says: &'static str,
    /// How often it may pass before the entry counts as stale: some fail only nearly always.
    pub tries: u32,
}

/// All of them.
pub const LEFT_OUT: &[LeftOut] = &[
    LeftOut {
        name: "debian_builds_no_qemu_with_qpl",
        applies: |case| case.compression == "qpl",
        reason: "nothing in Debian is built with libqpl; a recording of a QEMU that is stands for it",
        says: "does not accept value 'qpl'",
        tries: 1,
    },
    LeftOut {
        name: "qemu_7_2_cannot_be_told_who_looks_for_zero_pages",
        applies: |case| {
            case.version == Version::V7_2
                && case.direction == Direction::FromQemu
                && case.zero_pages != ZeroPages::Legacy
        },
        reason: "the parameter zero-page-detection came with QEMU 9.0",
        says: "zero-page-detection",
        tries: 1,
    },
    LeftOut {
        name: "qemu_7_2_loses_what_a_running_guest_writes",
        applies: |case| {
            case.version == Version::V7_2 && case.direction == Direction::FromQemu && case.live
        },
        reason: "in software emulation its source does not notice all writes of the guest; \
                 QEMU 7.2 to itself loses them as well, as a reference shows",
        says: "pages differ",
        tries: 10,
    },
];

impl LeftOut {
    /// A case of every version that it is about, left out for this reason alone.
    pub fn examples(&self) -> Vec<Case> {
        let others = || LEFT_OUT.iter().filter(|other| other.name != self.name);
        let alone =
            |case: &Case| (self.applies)(case) && !others().any(|other| (other.applies)(case));
        let of_version = |version| Case::all().find(|case| case.version == version && alone(case));
        Version::ALL.into_iter().filter_map(of_version).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_leaves_cases_out_that_no_other_does() {
        for left_out in LEFT_OUT {
            assert!(!left_out.examples().is_empty(), "{}", left_out.name);
        }
    }
}
