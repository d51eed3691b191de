//! Which job meets which fault: decided by the seed and the job's number alone, so that a run can
//! be repeated.

use qpl_sys::{Operation, Status};

use crate::config::{Config, Rates};

/// The faults of a run, and its jitter.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    rates: Rates,
    jitter: f64,
    /// Whether any job at all can meet one.
    any: bool,
}

/// What goes wrong with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not taken, as if the queues were full.
    Busy,
    /// It never completes.
    Hang,
    /// It ends with this status. Up to `written` bytes of the output may be there.
    Ends { status: Status, written: u64 },
    /// It succeeds, and says that it has written some other number of bytes.
    Lies(Lie),
}

/// What a job says of the bytes that it has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// None.
    Nothing,
    /// So many more than there was room for.
    Above(u32),
    /// So many fewer than it has, or none where it has not that many.
    Short(u32),
}

/// Independent sequences of draws.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Draw {
    Busy = 1,
    Hang,
    PageFault,
    OperationError,
    WrongTotalOut,
    Init,
    Lost,
    Jitter,
    /// What a fault is like in detail.
    Detail,
}

impl Faults {
    pub(crate) fn new(config: &Config) -> Self {
        let any = config.rates != Rates { init: config.rates.init, ..Rates::default() };
        Self { seed: config.seed, rates: config.rates.clone(), jitter: config.jitter, any }
    }

    /// Whether any job at all can meet a fault.
    pub(crate) fn can_happen(&self) -> bool {
        self.any
    }

    /// The fault that the job of that number meets.
    pub(crate) fn of(&self, operation: Operation, number: u64) -> Option<Fault> {
        if !self.any {
            return None;
        }
        let rates = &self.rates;
        let error = match operation {
            Operation::Compress => rates.compress_error,
            Operation::Decompress => rates.decompress_error,
        };
        let detail = self.draw(Draw::Detail, number);
        if self.hits(rates.busy, Draw::Busy, number) {
            Some(Fault::Busy)
        } else if self.hits(rates.hang, Draw::Hang, number) {
            Some(Fault::Hang)
        } else if self.hits(rates.page_fault, Draw::PageFault, number) {
            let status = pick(&[Status::PAGE_FAULT, Status::WRITE_PAGE_FAULT], detail);
            Some(Fault::Ends { status, written: detail >> 32 })
        } else if self.hits(error, Draw::OperationError, number) {
            Some(Fault::Ends { status: operation_error(operation, detail), written: detail >> 32 })
        } else if self.hits(rates.wrong_total_out, Draw::WrongTotalOut, number) {
            Some(Fault::Lies(lie(operation, detail)))
        } else {
            None
        }
    }

    /// The status with which the hardware's initialisation of that number fails, if it does.
    pub(crate) fn of_init(&self, number: u64) -> Option<Status> {
        const STATUSES: [Status; 3] = [
            Status::INIT_LIBACCEL_NOT_FOUND,
            Status::INIT_LIBACCEL,
            Status::INIT_WORK_QUEUES_NOT_AVAILABLE,
        ];
        let fails = self.hits(self.rates.init, Draw::Init, number);
        fails.then(|| pick(&STATUSES, self.draw(Draw::Detail, number)))
    }

    /// What the submission of a job answers once the devices are lost.
    pub(crate) fn of_lost_device(&self, number: u64) -> Status {
        const STATUSES: [Status; 2] =
            [Status::NOT_SUPPORTED_BY_WQ, Status::INIT_WORK_QUEUES_NOT_AVAILABLE];
        pick(&STATUSES, self.draw(Draw::Lost, number))
    }

    /// What the time that a job takes is to be multiplied by. What one job takes longer, its
    /// neighbour takes less, so that sums over many are exact.
    pub(crate) fn jitter(&self, number: u64) -> f64 {
        let draw = self.draw(Draw::Jitter, number / 2);
        let off = self.jitter * unit(draw);
        // Which of the two it is, is drawn as well: they may be jobs of two devices each time.
        if number % 2 == draw % 2 { 1.0 + off } else { 1.0 - off }
    }

    fn hits(&self, rate: f64, draw: Draw, number: u64) -> bool {
        unit(self.draw(draw, number)) < rate
    }

    fn draw(&self, draw: Draw, number: u64) -> u64 {
        let sequence = split_mix(self.seed.wrapping_add(split_mix(draw as u64)));
        split_mix(sequence.wrapping_add(number))
    }
}

/// A status by which an engine says that it cannot process the data.
fn operation_error(operation: Operation, detail: u64) -> Status {
    match operation {
        Operation::Compress => pick(
            &[Status::TIMEOUT, Status::OUTPUT_OVERFLOW, Status::DST_IS_SHORT, Status::VERIFY],
            detail,
        ),
        Operation::Decompress => pick(
            &[
                Status::BIG_HEADER,
                Status::BAD_LL_CODE,
                Status::BAD_D_CODE,
                Status::INVALID_BLOCK_TYPE,
                Status::BAD_EOF,
                Status::BAD_DIST,
                Status::REF_BEFORE_START,
                Status::TIMEOUT,
            ],
            detail,
        ),
    }
}

/// A lie that the caller can notice: of a stream's length it knows only that it is neither 0 nor
/// above the room that there was; a page's length it knows.
fn lie(operation: Operation, detail: u64) -> Lie {
    let amount = 1 + (detail >> 32) as u32 % 64;
    match (operation, detail % 3) {
        (_, 0) => Lie::Nothing,
        (Operation::Decompress, 1) => Lie::Short(amount),
        _ => Lie::Above(amount),
    }
}

fn pick(statuses: &[Status], detail: u64) -> Status {
    statuses[(detail % statuses.len() as u64) as usize]
}

/// From 0 to below 1.
fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1_u64 << 53) as f64
}

/// `SplitMix64`'s output for the state that is `value` before the step.
fn split_mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(seed: u64, rates: Rates) -> Faults {
        Faults::new(&Config { seed, rates, ..Config::default() })
    }

    fn busy(faults: &Faults, jobs: u64) -> Vec<u64> {
        let busy = |&job: &u64| faults.of(Operation::Compress, job) == Some(Fault::Busy);
        (0..jobs).filter(busy).collect()
    }

    #[test]
    fn a_rate_is_kept_and_each_seed_has_its_jobs() {
        let rates = || Rates { busy: 0.3, ..Rates::default() };
        let first = busy(&faults(1, rates()), 10_000);
        assert!((2800..3200).contains(&first.len()), "{}", first.len());
        assert_eq!(first, busy(&faults(1, rates()), 10_000));
        assert_ne!(first, busy(&faults(2, rates()), 10_000));
    }

    #[test]
    fn never_is_never_and_always_is_always() {
        assert_eq!(busy(&faults(1, Rates::default()), 1000), []);
        assert_eq!(busy(&faults(1, Rates { busy: 1.0, ..Rates::default() }), 1000).len(), 1000);
    }

    #[test]
    fn faults_are_independent_of_each_other() {
        let of = |rates| {
            let faults = faults(7, rates);
            (0..10_000).filter(|&job| faults.of(Operation::Compress, job).is_some()).count()
        };
        let both = of(Rates { busy: 0.5, hang: 0.5, ..Rates::default() });
        assert!((7300..7700).contains(&both), "{both} of 10000 met one of two at 0.5 each");
    }

    #[test]
    fn jitter_evens_out_over_two_jobs() {
        let faults = faults(3, Rates::default());
        for pair in 0..100 {
            let (one, other) = (faults.jitter(2 * pair), faults.jitter(2 * pair + 1));
            assert!((one + other - 2.0).abs() < 1e-9 && (0.9..=1.1).contains(&one), "{one}");
        }
        let slower = (0..1000).filter(|pair| faults.jitter(2 * pair) > 1.0).count();
        assert!((450..550).contains(&slower), "{slower} of 1000 first ones are slower");
        assert!((0..100).any(|job| faults.jitter(job) > 1.05));
    }

    #[test]
    fn a_compressed_length_is_never_a_lie_that_nobody_can_notice() {
        for detail in (0..u64::MAX).step_by(usize::MAX / 1000) {
            assert!(!matches!(lie(Operation::Compress, detail), Lie::Short(_)));
        }
    }
}
