//! Which descriptor meets which fault: decided by the seed and the descriptor's number alone, so that
//! a run can be repeated.

use crate::config::{Config, FaultConfig, Operation, Place};
use crate::descriptor::Descriptor;
use crate::operation::{COMPRESS, DECOMPRESS};
use crate::status::Status;

/// The faults of one device, and its jitter.
#[derive(Clone, Debug)]
pub struct Faults {
    seed: u64,
    config: FaultConfig,
    jitter: f64,
}

/// What goes wrong with a descriptor that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No completion record is written.
    NoCompletion,
    /// It ends with a page fault there.
    Page {
        /// The memory.
        place: Place,
        /// The first byte of it that is missing.
        address: u64,
    },
    /// It ends with a status and an error code.
    Error {
        /// The status.
        status: u8,
        /// The error code.
        code: u8,
        /// Whether its output was written before.
        written: bool,
    },
    /// It succeeds, with another output size.
    WrongSize(WrongSize),
}

/// What a completion record says of the output's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongSize {
    /// No bytes.
    Nothing,
    /// So many bytes more than there was room for.
    Above(u32),
    /// So many bytes fewer than there are.
    Short(u32),
}

/// Why a submission is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    QueueDisabled,
    Reset,
}

/// Independent sequences of draws.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Draw {
    QueueFull = 1,
    PageFault,
    PageFaultAgain,
    Error,
    WrongSize,
    NoCompletion,
    Slow,
    Jitter,
    /// What a fault is like in detail.
    Detail,
}

impl Faults {
    /// Those of the device of that number.
    #[must_use]
    pub fn new(config: &Config, device: usize) -> Self {
        let seed = split_mix(config.seed).wrapping_add(device as u64);
        Self { seed, config: config.faults.clone(), jitter: config.jitter }
    }

    /// Why the device does not take the descriptor of that number, if so. Allocates nothing.
    pub(crate) fn refusal(&self, number: u64) -> Option<Refusal> {
        let is_past = |at: Option<u64>| at.is_some_and(|at| number >= at);
        if is_past(self.config.reset_at) {
            Some(Refusal::Reset)
        } else if is_past(self.config.queue_disabled_at) {
            Some(Refusal::QueueDisabled)
        } else {
            self.hits(self.config.queue_full, Draw::QueueFull, number).then_some(Refusal::Full)
        }
    }

    /// The fault that a descriptor meets. `again` says that it had a page fault before.
    #[must_use]
    pub fn of(&self, descriptor: &Descriptor, number: u64, again: bool) -> Option<Fault> {
        let config = &self.config;
        let page = match again {
            false => self.hits(config.page_fault, Draw::PageFault, number),
            true => self.hits(config.page_fault_again, Draw::PageFaultAgain, number),
        };
        let detail = self.draw(Draw::Detail, number);
        if self.hits(config.no_completion, Draw::NoCompletion, number) {
            Some(Fault::NoCompletion)
        } else if page {
            self.page_fault(descriptor, detail)
        } else if self.can_err(descriptor) && self.hits(config.error, Draw::Error, number) {
            Some(self.error(descriptor, detail))
        } else if self.hits(config.wrong_output_size, Draw::WrongSize, number) {
            Some(Fault::WrongSize(wrong_size(descriptor, detail)))
        } else {
            None
        }
    }

    /// What the time of an operation is to be multiplied by, and whether it is slow by a fault. What
    /// jitter adds to one operation, its neighbour takes less, so that sums over many are exact.
    #[must_use]
    pub fn slowness(&self, number: u64) -> (f64, bool) {
        let draw = self.draw(Draw::Jitter, number / 2);
        let off = self.jitter * unit(draw);
        // Which of the two it is, is drawn as well: they may be of two engines each time.
        let jitter = if number % 2 == draw % 2 { 1.0 + off } else { 1.0 - off };
        let slow = self.hits(self.config.slow, Draw::Slow, number);
        (if slow { jitter * self.config.slow_factor } else { jitter }, slow)
    }

    fn page_fault(&self, descriptor: &Descriptor, detail: u64) -> Option<Fault> {
        let used: Vec<_> = self
            .config
            .page_fault_on
            .iter()
            .map(|&place| (place, extent(descriptor, place)))
            .filter(|(_, (address, bytes))| *address != 0 && *bytes != 0)
            .collect();
        let (place, (address, bytes)) = pick(&used, detail)?;
        Some(Fault::Page { place, address: address + (detail >> 32) % u64::from(bytes) })
    }

    fn can_err(&self, descriptor: &Descriptor) -> bool {
        let operation = match descriptor.opcode() {
            COMPRESS => Operation::Compress,
            DECOMPRESS => Operation::Decompress,
            _ => return true,
        };
        self.config.error_on.contains(&operation)
    }

    fn error(&self, descriptor: &Descriptor, detail: u64) -> Fault {
        let all = match descriptor.opcode() {
            COMPRESS => &COMPRESS_ERRORS[..],
            DECOMPRESS => &DECOMPRESS_ERRORS[..],
            _ => &[],
        };
        let all = all.iter().map(|&code| (DATA_ERROR, code));
        let all: Vec<_> = all.chain(REFUSALS.iter().map(|&status| (status, 0))).collect();
        let chosen = &self.config.error_status;
        let (status, code) =
            pick(if chosen.is_empty() { &all } else { chosen }, detail).unwrap_or((DATA_ERROR, 0));
        Fault::Error { status, code, written: detail >> 63 == 1 }
    }

    fn hits(&self, rate: f64, draw: Draw, number: u64) -> bool {
        // The draws are far from free, and most rates are 0.
        rate > 0.0 && unit(self.draw(draw, number)) < rate
    }

    fn draw(&self, draw: Draw, number: u64) -> u64 {
        let sequence = split_mix(self.seed.wrapping_add(split_mix(draw as u64)));
        split_mix(sequence.wrapping_add(number))
    }
}

const DATA_ERROR: u8 = Status::DataError as u8;

/// Error codes of a compression: no progress, output too small, verification, a code that is missing.
const COMPRESS_ERRORS: [u8; 4] = [19, 25, 29, 30];

/// Error codes of a decompression: what can be wrong with a DEFLATE stream, no progress, output too
/// small.
const DECOMPRESS_ERRORS: [u8; 20] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 25];

/// Statuses by which a device refuses a descriptor that it does not understand.
const REFUSALS: [u8; 8] = [0x10, 0x11, 0x12, 0x13, 0x16, 0x1b, 0x1c, 0x30];

/// Where a descriptor's memory is, and how many bytes it has.
fn extent(descriptor: &Descriptor, place: Place) -> (u64, u32) {
    match place {
        Place::Source => (descriptor.source(), descriptor.source_bytes()),
        Place::Destination => (descriptor.destination(), descriptor.destination_bytes()),
        Place::Aecs => (descriptor.source_2(), descriptor.source_2_bytes()),
        Place::Completion => (descriptor.completion_address(), 64),
    }
}

/// A size that the caller can notice: of a stream it knows only that it is neither 0 nor above the room
/// that there was; of a page that is decompressed, the size itself.
fn wrong_size(descriptor: &Descriptor, detail: u64) -> WrongSize {
    let amount = 1 + (detail >> 32) as u32 % 64;
    match (descriptor.opcode(), detail % 3) {
        (_, 0) => WrongSize::Nothing,
        (DECOMPRESS, 1) => WrongSize::Short(amount),
        _ => WrongSize::Above(amount),
    }
}

fn pick<T: Copy>(list: &[T], detail: u64) -> Option<T> {
    let at = (detail as u32 as usize).checked_rem(list.len())?;
    Some(list[at])
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

    fn faults(toml: &str) -> Faults {
        Faults::new(&Config::from_toml(toml).unwrap(), 0)
    }

    fn descriptor(opcode: u8) -> Descriptor {
        let mut bytes = [0; 64];
        bytes[7] = opcode;
        for (at, value) in [(8, 0x1000_u64), (16, 0x2000), (24, 0x3000), (40, 0x4000)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in [(32, 4096_u32), (48, 4096), (52, 1568)] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        Descriptor(bytes)
    }

    #[test]
    fn a_fault_depends_on_seed_device_and_number_alone() {
        let toml = "page_fault = 0.3\nerror = 0.3";
        let all = |faults: &Faults| {
            (0..500)
                .map(|number| faults.of(&descriptor(COMPRESS), number, false))
                .collect::<Vec<_>>()
        };
        let first = all(&faults(toml));
        assert_eq!(first, all(&faults(toml)));
        assert_ne!(first, all(&faults(&format!("seed = 2\n{toml}"))));
        assert_ne!(first, all(&Faults::new(&Config::from_toml(toml).unwrap(), 1)));
    }

    #[test]
    fn each_fault_has_its_rate() {
        for key in ["page_fault", "error", "wrong_output_size", "no_completion"] {
            let faults = faults(&format!("{key} = 0.25"));
            let met = |number: &u64| faults.of(&descriptor(COMPRESS), *number, false).is_some();
            let met = (0..10_000).filter(met).count();
            assert!((2300..2700).contains(&met), "{met} of 10000 met {key}");
        }
        let faults = faults("queue_full = 0.25\nslow = 0.25");
        let full = (0..10_000).filter(|&number| faults.refusal(number).is_some()).count();
        assert!((2300..2700).contains(&full), "{full}");
        let slow = (0..10_000).filter(|&number| faults.slowness(number).1).count();
        assert!((2300..2700).contains(&slow), "{slow}");
    }

    #[test]
    fn page_faults_are_inside_the_memory_that_was_chosen() {
        for (key, place, begin, bytes) in [
            ("source", Place::Source, 0x2000, 4096),
            ("destination", Place::Destination, 0x3000, 4096),
            ("aecs", Place::Aecs, 0x4000, 1568),
            ("completion", Place::Completion, 0x1000, 64),
        ] {
            let faults = faults(&format!("page_fault = 1\npage_fault_on = \"{key}\""));
            for number in 0..100 {
                let fault = faults.of(&descriptor(DECOMPRESS), number, false);
                assert!(
                    matches!(fault, Some(Fault::Page { place: at, address })
                        if at == place && (begin..begin + bytes).contains(&address)),
                    "{fault:?}"
                );
            }
        }
    }

    #[test]
    fn a_page_fault_happens_once_unless_it_is_to_happen_again() {
        for (toml, again) in
            [("page_fault = 1", false), ("page_fault = 1\npage_fault_again = 1", true)]
        {
            let faults = faults(toml);
            assert!(faults.of(&descriptor(COMPRESS), 0, false).is_some());
            assert_eq!(faults.of(&descriptor(COMPRESS), 1, true).is_some(), again);
        }
    }

    #[test]
    fn every_error_comes_up_and_chosen_ones_alone_where_there_are() {
        let errors = |faults: &Faults, opcode| {
            let of = |number| faults.of(&descriptor(opcode), number, false);
            let mut all: Vec<_> = (0..2000)
                .map(|number| match of(number) {
                    Some(Fault::Error { status, code, .. }) => (status, code),
                    other => panic!("{other:?}"),
                })
                .collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let any = faults("error = 1");
        assert_eq!(errors(&any, DECOMPRESS).len(), 28);
        assert_eq!(errors(&any, COMPRESS).len(), 12);
        let chosen = faults("error = 1\nerror_status = [\"0x0a:17\", \"0x0b\"]");
        assert_eq!(errors(&chosen, DECOMPRESS), [(0x0a, 17), (0x0b, 0)]);
    }

    #[test]
    fn errors_happen_to_the_chosen_operations_alone() {
        for (toml, compress, decompress) in [
            ("compress", true, false),
            ("decompress", false, true),
            ("compress,decompress", true, true),
        ] {
            let faults = faults(&format!("error = 1\nerror_on = \"{toml}\""));
            let of = |opcode| faults.of(&descriptor(opcode), 0, false).is_some();
            assert_eq!((of(COMPRESS), of(DECOMPRESS)), (compress, decompress), "{toml}");
        }
    }

    #[test]
    fn jitter_evens_out_over_two_operations() {
        let faults = faults("jitter = 0.1");
        for pair in 0..100 {
            let [(one, _), (other, _)] = [2 * pair, 2 * pair + 1].map(|job| faults.slowness(job));
            assert!((one + other - 2.0).abs() < 1e-9 && (0.9..=1.1).contains(&one), "{one}");
        }
        assert!((0..100).any(|job| faults.slowness(job).0 > 1.05));
    }

    #[test]
    fn a_size_of_a_stream_is_never_wrong_in_a_way_that_nobody_can_notice() {
        for detail in (0..u64::MAX).step_by(usize::MAX / 1000) {
            assert!(!matches!(wrong_size(&descriptor(COMPRESS), detail), WrongSize::Short(_)));
        }
    }
}
