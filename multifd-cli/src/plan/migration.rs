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
            // The first round has many zero pages, which says little about the others.
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
