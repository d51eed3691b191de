//! The cases of the short run: few, and every two values that can meet do.

use std::collections::HashSet;

use super::case::{Case, DIMENSIONS};

/// A subset of `cases` in which every value of every dimension meets every value of every other
/// one that it meets in `cases`, and every version has each of its codecs in both directions.
pub fn short_run(cases: &[Case]) -> Vec<Case> {
    let mut missing: HashSet<_> = cases.iter().flat_map(meetings).collect();
    let mut run = Vec::new();
    // Always the case with the most that is missing: not the least set, and close to it.
    while !missing.is_empty() {
        let new = |case: &&Case| meetings(case).iter().filter(|met| missing.contains(*met)).count();
        // The first of several, so that the set does not depend on the rest of the matrix.
        let Some(best) = cases.iter().rev().max_by_key(new) else { break };
        meetings(best).iter().for_each(|met| _ = missing.remove(met));
        run.push(*best);
    }
    run
}

/// The values that meet in a case: every two, and version, direction and codec.
fn meetings(case: &Case) -> Vec<String> {
    let values = case.values();
    let mut meetings = vec![format!("all of {}, {}, {}", values[0], values[1], values[2])];
    for one in 0..DIMENSIONS {
        for other in 0..one {
            meetings.push(format!("{other}: {}, {one}: {}", values[other], values[one]));
        }
    }
    meetings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::cases;

    #[test]
    fn in_the_short_run_all_values_meet_that_meet_at_all() {
        let (all, run) = (cases(), short_run(&cases()));
        let meet = |cases: &[Case]| cases.iter().flat_map(meetings).collect::<HashSet<_>>();
        assert_eq!(meet(&all), meet(&run));
        assert!(run.len() < 30 && run.len() < all.len() / 10, "{} of {}", run.len(), all.len());
    }

    #[test]
    fn the_short_run_is_the_same_every_time_and_has_no_case_twice() {
        let run = short_run(&cases());
        assert_eq!(run, short_run(&cases()));
        assert_eq!(run.iter().collect::<HashSet<_>>().len(), run.len());
    }
}
