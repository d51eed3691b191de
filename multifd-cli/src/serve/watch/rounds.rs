//! The rounds of a migration, as looks at its counters tell them.

use std::collections::VecDeque;
use std::time::Duration;

use multifd::Stats;
use serde::Serialize;

/// The most rounds that are kept of a migration: of one that does not converge, the last ones.
const KEPT: usize = 128;

/// The rounds of one side of a migration.
///
/// Nothing notes the counters at the moment when a round ends; they are looked at regularly. So a round
/// begins and ends with the look that first sees its successor. What moved between that look and the one
/// before is the round's, though its successor may have moved it: each round says how much that is
/// ([`Round::unsure_pages`]). The other way round, a sync is seen when the main channel says it: what the
/// channels have in their sockets' buffers then is counted with the successor. Rounds that were
/// over between two looks are told as one, from [`Round::first`] to [`Round::last`]. No page is missing,
/// and none is counted twice.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    over: VecDeque<Round>,
    forgotten: u64,
    /// The number of the one that is under way; 0 before the first, and where syncs do not tell it.
    under_way: u64,
    /// What was counted when it began, and at the last look.
    begin: Count,
    before: Count,
}

/// A round that is over, or several that were over between two looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Round {
    /// Its number, from 1 on.
    pub(super) first: u64,
    /// The same, but for several.
    pub(super) last: u64,
    pub(super) normal_pages: u64,
    pub(super) zero_pages: u64,
    /// The main channel included.
    pub(super) wire_bytes: u64,
    pub(super) seconds: f64,
    /// How many of its pages may be of the round behind it: those that moved between the two looks at its end.
    pub(super) unsure_pages: u64,
    /// What was left to move when it ended: what the round behind it has moved. `None` while that is
    /// under way, and where several are told as one.
    pub(super) left_pages: Option<u64>,
}

/// What was counted since the migration began.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    normal: u64,
    zero: u64,
    wire: u64,
    /// Since the migration began.
    at: Duration,
}

impl Rounds {
    /// Looks at the counters, `at` this time since the migration began. Returns the round that is
    /// found to be over.
    pub(super) fn look(&mut self, stats: &Stats, at: Duration) -> Option<Round> {
        let total = stats.total();
        let zero = stats.zero_pages();
        let now = Count { normal: total.normal_pages, zero, wire: stats.wire_bytes(), at };
        let round = stats.round().unwrap_or(0);
        if self.under_way == 0 && round > 0 {
            // Before the first sync there are no pages: those since the last look are of the first round.
            let at = if round == 1 { at } else { self.before.at };
            self.begin = Count { at, ..self.before };
            self.under_way = 1;
        }
        let over = (round > self.under_way).then(|| {
            let unsure = now.pages().saturating_sub(self.before.pages());
            let over = self.close(now, round - 1, unsure);
            self.under_way = round;
            over
        });
        self.before = now;
        over
    }

    /// Looks for the last time. The round that was under way is one of the rounds if it has moved
    /// anything; if not, and the migration is `done`, nothing was left behind the one before.
    pub(super) fn finish(&mut self, stats: &Stats, at: Duration, done: bool) -> Vec<Round> {
        let mut over = Vec::from_iter(self.look(stats, at));
        if self.under_way > 0 && self.before.pages() > self.begin.pages() {
            over.push(self.close(self.before, self.under_way, 0));
        } else if done {
            self.was_left(0);
        }
        self.under_way = 0;
        over
    }

    /// Those that are over, by their numbers.
    pub(super) fn over(&self) -> Vec<Round> {
        self.over.iter().cloned().collect()
    }

    /// How many came before those that are kept.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The number of the one that is under way, if syncs tell it.
    pub(super) fn under_way(&self) -> Option<u64> {
        (self.under_way > 0).then_some(self.under_way)
    }

    fn close(&mut self, now: Count, last: u64, unsure_pages: u64) -> Round {
        let begin = self.begin;
        let over = Round {
            first: self.under_way,
            last,
            normal_pages: now.normal.saturating_sub(begin.normal),
            zero_pages: now.zero.saturating_sub(begin.zero),
            wire_bytes: now.wire.saturating_sub(begin.wire),
            seconds: now.at.saturating_sub(begin.at).as_secs_f64(),
            unsure_pages,
            left_pages: None,
        };
        if over.first == over.last {
            self.was_left(over.normal_pages + over.zero_pages);
        }
        if self.over.len() == KEPT {
            let oldest = self.over.pop_front();
            self.forgotten += oldest.map_or(0, |oldest| oldest.last - oldest.first + 1);
        }
        self.over.push_back(over.clone());
        self.begin = now;
        over
    }

    fn was_left(&mut self, pages: u64) {
        if let Some(round) = self.over.back_mut() {
            round.left_pages = Some(pages);
        }
    }
}

impl Count {
    fn pages(&self) -> u64 {
        self.normal.saturating_add(self.zero)
    }
}

#[cfg(test)]
mod tests {
    use multifd::core::channel::ChannelStats;

    use super::*;

    fn stats(syncs: u64, normal: u64, zero: u64) -> Stats {
        let mut channel = ChannelStats::default();
        (channel.normal_pages, channel.zero_pages) = (normal, zero);
        channel.wire_bytes = normal * 4096;
        let mut stats = Stats::default();
        (stats.syncs, stats.syncs_are_rounds) = (syncs, true);
        stats.channels.push(channel);
        stats
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Each round's numbers, pages, pages that are unsure, and pages left.
    fn told(rounds: &Rounds) -> Vec<(u64, u64, u64, u64, Option<u64>)> {
        let told = |round: &Round| {
            let pages = round.normal_pages + round.zero_pages;
            (round.first, round.last, pages, round.unsure_pages, round.left_pages)
        };
        rounds.over().iter().map(told).collect()
    }

    #[test]
    fn a_round_has_what_was_counted_until_its_successor_was_seen_and_says_what_that_may_have_moved()
    {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.look(&stats(0, 0, 0), at(1)), None);
        assert_eq!((rounds.under_way(), rounds.look(&stats(1, 0, 0), at(2))), (None, None));
        assert_eq!(rounds.look(&stats(1, 90, 8), at(5)), None);
        let first = rounds.look(&stats(2, 92, 8), at(6)).unwrap();
        assert_eq!((first.normal_pages, first.zero_pages, first.unsure_pages), (92, 8, 2));
        assert_eq!((first.wire_bytes, first.seconds), (92 * 4096, 4.0));
        assert_eq!(rounds.look(&stats(2, 110, 8), at(7)), None);
        rounds.look(&stats(3, 112, 8), at(8)).unwrap();
        assert_eq!(rounds.under_way(), Some(3));
        assert_eq!(told(&rounds), [(1, 1, 100, 2, Some(20)), (2, 2, 20, 2, None)]);
    }

    #[test]
    fn rounds_that_were_over_between_two_looks_are_told_as_one_and_what_was_left_is_not_made_up() {
        let mut rounds = Rounds::default();
        rounds.look(&stats(1, 0, 0), at(1));
        rounds.look(&stats(2, 100, 0), at(2));
        rounds.look(&stats(5, 150, 0), at(3));
        assert_eq!(told(&rounds), [(1, 1, 100, 100, None), (2, 4, 50, 50, None)]);
        // A migration that is first looked at when its third round has begun.
        let mut rounds = Rounds::default();
        rounds.look(&stats(3, 120, 0), at(1));
        assert_eq!(told(&rounds), [(1, 2, 120, 120, None)]);
    }

    #[test]
    fn the_last_round_is_told_at_the_end_if_it_has_moved_anything() {
        let mut rounds = Rounds::default();
        rounds.look(&stats(1, 0, 0), at(1));
        rounds.look(&stats(2, 100, 0), at(2));
        assert_eq!(rounds.finish(&stats(3, 107, 0), at(3), true).len(), 1);
        assert_eq!(told(&rounds), [(1, 1, 100, 100, Some(7)), (2, 2, 7, 7, Some(0))]);
        let mut cut = Rounds::default();
        cut.look(&stats(1, 0, 0), at(1));
        assert_eq!(cut.finish(&stats(1, 30, 0), at(2), false).len(), 1);
        assert_eq!((told(&cut), cut.under_way()), (vec![(1, 1, 30, 0, None)], None));
    }

    #[test]
    fn of_a_migration_that_does_not_converge_the_last_rounds_are_kept_and_the_others_counted() {
        let mut rounds = Rounds::default();
        for round in 1..=500 {
            rounds.look(&stats(round, 10 * round, 0), at(round));
        }
        let told = told(&rounds);
        assert_eq!((told.len(), rounds.forgotten()), (KEPT, 499 - KEPT as u64));
        assert_eq!(told.last().unwrap().0, 499);
    }

    #[test]
    fn where_syncs_are_no_rounds_none_are_told() {
        let mut rounds = Rounds::default();
        for syncs in 0..9 {
            let mut stats = stats(syncs, 100 * syncs, 0);
            stats.syncs_are_rounds = false;
            assert_eq!(rounds.look(&stats, at(syncs)), None);
        }
        assert!(rounds.finish(&Stats::default(), at(9), true).is_empty());
    }
}
