//! A migration: its rounds, one after the other.

use crate::bottleneck::{Resource, uses};
use crate::codec::Codec;
use crate::parameters::{Parameters, Speed};
use crate::simulation::{self, Tally};
use crate::workload::PAGE;

/// Rounds that hardly shrink before the migration is given up.
const PATIENCE: u32 = 3;

/// A guest that runs while it is migrated.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Bytes of pages that the guest writes in a second. It writes no page twice in a round.
    pub dirty_rate: f64,
    /// The longest time for which the guest may stand still at the end, in nanoseconds.
    pub downtime_limit_ns: u64,
}

impl Live {
    /// A guest that writes `dirty_rate` bytes of pages in a second, 0 or more.
    pub const fn new(dirty_rate: f64, downtime_limit_ns: u64) -> Self {
        Self { dirty_rate, downtime_limit_ns }
    }
}

/// The result of a simulated migration.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Time from the start to the guest's start at the destination, in nanoseconds.
    pub total_ns: u64,
    /// Rounds, the last one included.
    pub rounds: u32,
    /// Time from the guest's stop to its start, in nanoseconds; `None` for a guest that stands
    /// still throughout.
    pub downtime_ns: Option<u64>,
    /// Whether the last round stayed within the downtime limit.
    pub converges: bool,
    /// What all rounds used.
    pub tally: Tally,
    /// The share of its time for which each resource was in use, 0 to 1, the most used first.
    pub uses: Vec<(Resource, f64)>,
}

impl Outcome {
    /// The resource with the largest share of its time in use.
    pub fn bottleneck(&self) -> Resource {
        self.uses.first().map_or(Resource::Link, |(resource, _)| *resource)
    }
}

/// Simulates a migration over `channels` channels, 1 or more.
///
/// A round begins when all channels have placed the round before. It sends the pages that the guest
/// has written since then. The first round that stays within the downtime limit is the last one:
/// the guest stands still in it. Without `live`, the guest stands still and there is one round.
///
/// `placed` is called with the number of pages as packets arrive.
pub fn simulate(
    parameters: &Parameters,
    codec: &Codec,
    channels: u8,
    live: Option<Live>,
    placed: &mut dyn FnMut(u64),
) -> Outcome {
    let Parameters { setup_ns, switchover_ns, .. } = *parameters;
    let workload = &codec.workload;
    let mut round = simulation::round(parameters, codec, workload, channels, placed);
    let mut tally = round;
    let (mut rounds, mut hopeless) = (1, 0);
    let mut downtime_ns = None;
    if let Some(live) = live {
        let dirty_rate = live.dirty_rate.min(Speed::MAX.bytes_per_second());
        let mut pages = workload.pages();
        loop {
            let written = round.elapsed_ns as f64 / 1e9 * dirty_rate / PAGE as f64;
            let dirtied = (written.ceil() as u64).min(workload.pages());
            // The first round sends all memory, whenever the guest wrote it.
            hopeless = if rounds > 1 && dirtied * 20 >= pages * 19 { hopeless + 1 } else { 0 };
            pages = dirtied;
            let dirty = workload.dirtied(pages);
            round = simulation::round(parameters, codec, &dirty, channels, placed);
            tally += round;
            rounds += 1;
            downtime_ns = Some(round.elapsed_ns + switchover_ns);
            if downtime_ns <= Some(live.downtime_limit_ns) || hopeless == PATIENCE {
                break;
            }
        }
    }
    Outcome {
        total_ns: setup_ns + tally.elapsed_ns + switchover_ns,
        rounds,
        downtime_ns,
        converges: live.is_none_or(|live| downtime_ns <= Some(live.downtime_limit_ns)),
        tally,
        uses: uses(parameters, channels, &tally),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Work;
    use crate::workload::Workload;

    const PAGES: u64 = 1 << 18;

    fn run(dirty_rate: f64, downtime_limit_ns: u64) -> Outcome {
        let codec = Codec::new("none", Work::Nothing, Workload::even(PAGES, 0.0, 1.0));
        let mut parameters = Parameters::default();
        parameters.link.bytes_per_second = Speed::nearest(1e9);
        parameters.link.efficiency = 1.0;
        parameters.switchover_ns = 5_000_000;
        let live = Live::new(dirty_rate, downtime_limit_ns);
        simulate(&parameters, &codec, 4, Some(live), &mut |_| {})
    }

    #[test]
    fn rounds_shrink_until_one_fits_into_the_downtime() {
        // Each round has half of the one before: 1 GiB takes 1.08 s, then 0.54 s and so on.
        let outcome = run(0.5e9, 100_000_000);
        assert!(outcome.converges);
        assert_eq!(outcome.rounds, 5);
        assert!((20_000_000..=100_000_000).contains(&outcome.downtime_ns.unwrap()));
        let pages = outcome.tally.normal_pages as f64 / PAGES as f64;
        assert!((1.9..2.1).contains(&pages), "{pages}");
        assert_eq!(outcome.total_ns, outcome.tally.elapsed_ns + 5_000_000);
        assert_eq!(outcome.bottleneck(), Resource::Link);
    }

    #[test]
    fn a_guest_that_writes_as_fast_as_it_is_sent_is_given_up() {
        let outcome = run(2e9, 100_000_000);
        assert!(!outcome.converges);
        assert!(outcome.rounds < 10 && outcome.downtime_ns.unwrap() > 1_000_000_000);
    }

    #[test]
    fn a_longer_downtime_takes_fewer_rounds() {
        assert!(run(0.5e9, 500_000_000).rounds < run(0.5e9, 50_000_000).rounds);
    }
}
