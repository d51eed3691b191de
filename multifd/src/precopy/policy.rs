//! What comes after a round: a pure decision.

use std::collections::VecDeque;
use std::time::Duration;

/// When the guest is stopped, and what is done about one that writes too fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    downtime: Duration,
    timeout: Option<(Duration, AtTimeout)>,
    throttle: Option<Throttle>,
}

/// What a migration does that has not come to fit the downtime in time.
#[allow(clippy::exhaustive_enums, reason = "the guest stays, or goes")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTimeout {
    /// Gives up: the guest goes on here.
    Cancel,
    /// Stops the guest all the same, when the round is over, however long the rest takes.
    SwitchOver,
}

/// How a guest is slowed down that dirties more than half of what a round sends, in two rounds one
/// behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Throttle {
    first: u8,
    step: u8,
    most: u8,
}

impl Default for Policy {
    /// A downtime of 300 ms, without a timeout or a throttle.
    fn default() -> Self {
        Self { downtime: Duration::from_millis(300), timeout: None, throttle: None }
    }
}

impl Policy {
    /// [`Policy::default`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The guest is stopped when sending what is left is estimated to take no longer than this. The
    /// time to stop it, and the device state's, come on top. So does that of what the last round has
    /// left in the sockets' buffers, which is not counted: for each channel up to what Linux lets one
    /// have, 4 MiB here (`net.ipv4.tcp_wmem`) and 6 MiB at the destination (`net.ipv4.tcp_rmem`) unless
    /// set otherwise. 4 MiB take 34 ms at 1 Gbit/s.
    #[must_use]
    pub fn downtime(self, limit: Duration) -> Self {
        Self { downtime: limit, ..self }
    }

    /// How long the rounds may take in all, and what is done then.
    #[must_use]
    pub fn timeout(self, limit: Duration, then: AtTimeout) -> Self {
        Self { timeout: Some((limit, then)), ..self }
    }

    /// Has the guest slowed down, by `first` percent and then by `step` percent more each time, up to
    /// `most` (at most 99), where it has dirtied more than half of what the round sent, in two rounds
    /// one behind the other.
    #[must_use]
    pub fn throttle(self, first: u8, step: u8, most: u8) -> Self {
        let most = most.min(99);
        let throttle = Throttle { first: first.clamp(1, most.max(1)), step: step.max(1), most };
        Self { throttle: Some(throttle), ..self }
    }

    /// What a cancellation in the middle of a round is for: the time when it is due, if ever.
    pub(super) fn cancel_after(&self) -> Option<Duration> {
        self.timeout.and_then(|(limit, then)| (then == AtTimeout::Cancel).then_some(limit))
    }

    /// The downtime.
    pub(super) fn downtime_limit(&self) -> Duration {
        self.downtime
    }
}

/// What a round has sent and what was dirtied meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Pages with data that it has sent.
    pub(super) normal_pages: u64,
    /// Pages of all kinds that it was to send.
    pub(super) pages: u64,
    pub(super) wire_bytes: u64,
    pub(super) took: Duration,
    /// Pages that are left to be sent.
    pub(super) dirty: u64,
    /// Since the first round began.
    pub(super) elapsed: Duration,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Round,
    /// A round of a guest that is slowed down by so many percent from now on.
    Throttle(u8),
    /// The guest is stopped.
    SwitchOver,
    GiveUp,
}

/// Rounds are measured together until they have taken this long: a small one tells more of how long
/// a message takes than of the bandwidth.
const MEASURED: Duration = Duration::from_millis(100);

/// What has been measured, and what has been done.
#[derive(Debug)]
pub(super) struct Decider {
    policy: Policy,
    page_bytes: u64,
    /// The last rounds, the latest last: no more than it takes to measure.
    recent: VecDeque<Round>,
    /// Rounds one behind the other in which the guest was too fast.
    too_fast: u32,
    throttle: u8,
}

impl Decider {
    pub(super) fn new(policy: Policy, page_bytes: usize) -> Self {
        let (page_bytes, recent) = (page_bytes as u64, VecDeque::new());
        Self { policy, page_bytes, recent, too_fast: 0, throttle: 0 }
    }

    /// Takes note of a round and says what comes behind it.
    pub(super) fn after(&mut self, round: Round) -> Decision {
        self.recent.push_back(round);
        while self.recent.iter().skip(1).map(|round| round.took).sum::<Duration>() >= MEASURED {
            self.recent.pop_front();
        }
        if self.estimate() <= self.policy.downtime {
            return Decision::SwitchOver;
        }
        match self.policy.timeout {
            Some((limit, AtTimeout::Cancel)) if round.elapsed >= limit => return Decision::GiveUp,
            Some((limit, AtTimeout::SwitchOver)) if round.elapsed >= limit => {
                return Decision::SwitchOver;
            }
            _ => {}
        }
        self.too_fast = if round.dirty > round.pages / 2 { self.too_fast + 1 } else { 0 };
        match self.policy.throttle {
            Some(throttle) if self.too_fast >= 2 && self.throttle < throttle.most => {
                self.too_fast = 0;
                self.throttle = match self.throttle {
                    0 => throttle.first,
                    now => now.saturating_add(throttle.step).min(throttle.most),
                };
                Decision::Throttle(self.throttle)
            }
            _ => Decision::Round,
        }
    }

    /// By how many percent the guest is slowed down.
    pub(super) fn throttled(&self) -> u8 {
        self.throttle
    }

    fn sum(&self, of: impl Fn(&Round) -> u64) -> u64 {
        self.recent.iter().map(of).sum()
    }

    fn seconds(&self) -> f64 {
        // Not zero: a round that takes no time says nothing else.
        self.recent.iter().map(|round| round.took).sum::<Duration>().as_secs_f64().max(1e-9)
    }

    /// Bytes a second on the wire.
    pub(super) fn bandwidth(&self) -> f64 {
        self.sum(|round| round.wire_bytes) as f64 / self.seconds()
    }

    /// What is left, in bytes on the wire: each page with as many as the last ones with data have
    /// taken.
    pub(super) fn wire_bytes_left(&self) -> f64 {
        let dirty = self.recent.back().map_or(0, |round| round.dirty) as f64;
        match self.sum(|round| round.normal_pages) {
            // Nothing is known of pages with data, which what is left may have.
            0 => dirty * self.page_bytes as f64,
            pages => dirty * self.sum(|round| round.wire_bytes) as f64 / pages as f64,
        }
    }

    /// How long it would take to send what is left.
    pub(super) fn estimate(&self) -> Duration {
        let left = self.wire_bytes_left();
        if left == 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(left / self.bandwidth()).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: f64 = 4096.0;

    /// A guest of so many pages that dirties pages at a rate, on a network: a model.
    struct Model {
        pages: f64,
        /// Pages a second.
        dirties: f64,
        /// Bytes a second.
        bandwidth: f64,
    }

    impl Model {
        /// Runs the policy. Returns the decision that ends it, the round's number, the time, the
        /// throttle, and how long the rest takes.
        fn run(&self, policy: Policy) -> (Decision, u32, Duration, u8, Duration) {
            let mut decider = Decider::new(policy, 4096);
            let (mut to_send, mut elapsed) = (self.pages, 0.0);
            for number in 1..10_000 {
                let took = to_send * PAGE / self.bandwidth;
                elapsed += took;
                let speed = f64::from(100 - decider.throttled()) / 100.0;
                let dirty = (self.dirties * speed * took).min(self.pages).floor();
                let decision = decider.after(Round {
                    normal_pages: to_send as u64,
                    pages: to_send as u64,
                    wire_bytes: (to_send * PAGE) as u64,
                    took: Duration::from_secs_f64(took),
                    dirty: dirty as u64,
                    elapsed: Duration::from_secs_f64(elapsed),
                });
                to_send = dirty;
                if matches!(decision, Decision::SwitchOver | Decision::GiveUp) {
                    let rest = Duration::from_secs_f64(dirty * PAGE / self.bandwidth);
                    let elapsed = Duration::from_secs_f64(elapsed);
                    return (decision, number, elapsed, decider.throttled(), rest);
                }
            }
            panic!("it never ends");
        }
    }

    const MIB: f64 = 1048576.0;

    #[test]
    fn a_guest_that_is_slower_than_the_network_converges_and_keeps_the_downtime() {
        for share in [0.0, 0.1, 0.5, 0.9] {
            for limit in [1, 10, 300, 5000] {
                let bandwidth = 100.0 * MIB;
                let dirties = share * bandwidth / PAGE;
                let model = Model { pages: 262_144.0, dirties, bandwidth };
                let limit = Duration::from_millis(limit);
                let (decision, rounds, _, throttle, rest) =
                    model.run(Policy::new().downtime(limit).throttle(20, 10, 99));
                assert_eq!(decision, Decision::SwitchOver);
                assert!(rest <= limit + Duration::from_millis(1), "{share} {limit:?}: {rest:?}");
                assert!(rounds < 120, "{share} {limit:?}: {rounds} rounds");
                assert!(throttle == 0 || share > 0.5, "{share} {limit:?}: {throttle} %");
            }
        }
    }

    #[test]
    fn a_guest_that_is_faster_than_the_network_is_slowed_down_until_it_fits() {
        let bandwidth = 100.0 * MIB;
        let model = Model { pages: 262_144.0, dirties: 3.0 * bandwidth / PAGE, bandwidth };
        let policy = Policy::new().downtime(Duration::from_millis(100)).throttle(20, 10, 99);
        let (decision, _, _, throttle, rest) = model.run(policy);
        assert_eq!(decision, Decision::SwitchOver);
        assert!(throttle >= 70 && rest <= Duration::from_millis(101), "{throttle} {rest:?}");
    }

    #[test]
    fn without_a_throttle_it_ends_at_the_timeout_as_was_asked() {
        let bandwidth = 100.0 * MIB;
        let model = Model { pages: 262_144.0, dirties: 3.0 * bandwidth / PAGE, bandwidth };
        let limit = Duration::from_secs(60);
        for (then, expected) in
            [(AtTimeout::Cancel, Decision::GiveUp), (AtTimeout::SwitchOver, Decision::SwitchOver)]
        {
            let (decision, _, elapsed, throttle, _) = model.run(Policy::new().timeout(limit, then));
            assert_eq!((decision, throttle), (expected, 0));
            // A round of all pages takes 10.24 s.
            assert!(elapsed >= limit && elapsed < limit + Duration::from_secs(11), "{elapsed:?}");
        }
    }

    #[test]
    fn a_guest_that_fits_at_the_timeout_is_not_given_up() {
        let model = Model { pages: 1000.0, dirties: 1.0, bandwidth: 100.0 * MIB };
        let policy = Policy::new().timeout(Duration::ZERO, AtTimeout::Cancel);
        assert_eq!(model.run(policy).0, Decision::SwitchOver);
    }

    fn round(normal_pages: u64, wire_bytes: u64, took: u64, dirty: u64) -> Round {
        let took = Duration::from_millis(took);
        Round { normal_pages, pages: 1 << 24, wire_bytes, took, dirty, ..Round::default() }
    }

    #[test]
    fn a_round_of_holes_does_not_make_the_network_look_fast() {
        let mut decider = Decider::new(Policy::new(), 4096);
        // 64 GiB of zero pages in 2 s: 176 MB of packets. What the guest writes then has data.
        let decision = decider.after(round(0, 176_000_000, 2000, 100_000));
        assert_eq!(decision, Decision::Round);
        assert!(decider.estimate() > Duration::from_secs(4), "{:?}", decider.estimate());
    }

    #[test]
    fn a_small_round_does_not_make_the_network_look_slow() {
        let mut decider = Decider::new(Policy::new().downtime(Duration::ZERO), 4096);
        decider.after(round(100_000, 400_000_000, 4000, 10));
        decider.after(round(10, 40_000, 20, 10));
        let bandwidth = decider.bandwidth();
        assert!((99e6..101e6).contains(&bandwidth), "{bandwidth}");
        // Many small ones are a measurement.
        (0..6).for_each(|_| _ = decider.after(round(10, 40_000, 20, 10)));
        let bandwidth = decider.bandwidth();
        assert!((1.9e6..2.1e6).contains(&bandwidth), "{bandwidth}");
    }

    #[test]
    fn compressed_pages_are_estimated_as_compressed() {
        let mut decider = Decider::new(Policy::new(), 4096);
        decider.after(round(1000, 1_000_000, 1000, 2000));
        assert_eq!(decider.wire_bytes_left(), 2_000_000.0);
        assert_eq!(decider.estimate(), Duration::from_secs(2));
    }

    #[test]
    fn a_round_that_takes_no_time_or_sends_nothing_is_no_panic() {
        let mut decider = Decider::new(Policy::new(), 4096);
        assert_eq!(decider.after(Round::default()), Decision::SwitchOver);
        assert_eq!(decider.after(round(0, 0, 0, 5)), Decision::Round);
        assert_eq!(decider.estimate(), Duration::MAX);
    }

    #[test]
    fn a_throttle_rises_every_second_round_and_stops_at_its_most() {
        let mut decider = Decider::new(Policy::new().throttle(20, 50, 80), 4096);
        let too_fast = round(1 << 24, 1 << 36, 60_000, 1 << 24);
        let decisions: Vec<_> = (0..8).map(|_| decider.after(too_fast)).collect();
        use Decision::{Round, Throttle};
        let expected =
            [Round, Throttle(20), Round, Throttle(70), Round, Throttle(80), Round, Round];
        assert_eq!(decisions, expected);
    }
}
