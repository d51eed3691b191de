//! A migration: its rounds, one behind the other.

use super::codec::Codec;
use super::parameters::Parameters;
use super::simulation::{self, Tally};
use super::workload::PAGE;

/// Rounds after which a guest is given up that writes as fast as it is sent.
const PATIENCE: u32 = 3;

/// The guest that runs meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    /// Bytes of pages that it writes a second, no page twice in a round.
    pub(super) dirty_rate: f64,
    pub(super) downtime_limit_ns: u64,
}

/// What came out.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) total_ns: u64,
    pub(super) rounds: u32,
    /// From the guest's stop to its start; `None` of a guest that stands still all the time.
    pub(super) downtime_ns: Option<u64>,
    /// The last round fitted into the limit.
    pub(super) converges: bool,
    /// Of all rounds.
    pub(super) tally: Tally,
}

/// Simulates a migration with `channels` channels. A round begins when the one before has arrived
/// on all channels, with what was written meanwhile. The first that fits into the downtime is the
/// last: the guest stands still in it.
pub(super) fn migrate(
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
        let mut pages = workload.pages();
        loop {
            let written = round.elapsed_ns as f64 / 1e9 * live.dirty_rate / PAGE as f64;
            let dirtied = (written.ceil() as u64).min(workload.pages());
            // The first round has what the guest has written in all of its life.
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
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::Work;
    use super::super::workload::Workload;
    use super::*;

    const PAGES: u64 = 1 << 18;

    fn run(dirty_rate: f64, downtime_limit_ns: u64) -> Outcome {
        let workload = Workload::even(PAGES, 0.0, 1.0);
        let (name, origin) = ("none".to_owned(), String::new());
        let codec = Codec { name, work: Work::Nothing, workload, origin };
        let mut parameters = Parameters::default();
        parameters.link.bytes_per_second = 1e9;
        parameters.link.efficiency = 1.0;
        parameters.switchover_ns = 5_000_000;
        let live = Live { dirty_rate, downtime_limit_ns };
        migrate(&parameters, &codec, 4, Some(live), &mut |_| {})
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
