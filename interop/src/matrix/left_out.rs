//! What is left out of the matrix, and why.

use super::case::{Case, Direction, ZeroPages};
use crate::qemu::Version;

/// Cases that cannot pass. A test runs one of them: it must fail, and say so as expected, or the
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
}

/// All of them.
pub const LEFT_OUT: &[LeftOut] = &[
    LeftOut {
        name: "qemu_before_11_is_not_built_with_qpl",
        applies: |case| case.compression == "qpl" && case.version != Version::Newest,
        reason: "Debian builds QEMU with libqpl from 11.1 on",
        says: "does not accept value 'qpl'",
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
    },
];

impl LeftOut {
    /// A case that is left out for this reason alone.
    pub fn example(&self) -> Option<Case> {
        Case::all().find(|case| {
            let others = LEFT_OUT.iter().filter(|other| other.name != self.name);
            (self.applies)(case) && others.into_iter().all(|other| !(other.applies)(case))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_leaves_cases_out_that_no_other_does() {
        for left_out in LEFT_OUT {
            assert!(left_out.example().is_some(), "{}", left_out.name);
        }
    }
}
