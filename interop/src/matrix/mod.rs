//! The matrix of transfers: every case, those of the short run, and those that are left out.

mod case;
mod cover;
mod left_out;

pub use case::{Case, Direction, ZeroPages};
pub use cover::short_run;
pub use left_out::{LEFT_OUT, LeftOut};

/// Every case that is to pass, in a fixed order.
pub fn cases() -> Vec<Case> {
    Case::all().filter(|case| LEFT_OUT.iter().all(|left_out| !(left_out.applies)(case))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names: HashSet<_> = Case::all().map(|case| case.to_string()).collect();
        assert_eq!(names.len(), Case::all().count());
    }
}
