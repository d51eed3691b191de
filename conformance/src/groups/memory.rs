//! What a channel takes, whatever it is sent.
//!
//! What the kernel counts for the whole process is looked at where it tells; it takes in C libraries,
//! too.
//! Where the program's allocator is a [`CountedHeap`](crate::CountedHeap), what every single stream
//! takes of the heap is looked at as well. Both count all threads: that is why these cases run alone.

use std::fs;

use super::hostile::{self, Scene};
use crate::harness::{Context, Setup, Stop, Subject, Verdict, ensure, ram, zeros};
use crate::heap::Growth;

const MIB: u64 = 1 << 20;

/// The window that a zstd decoder may take (2^27 bytes), and some room for all else.
const MEMORY_BOUND: u64 = 160 * MIB;

/// Address space is taken in larger steps: an arena of a new thread alone is 128 MiB.
const ADDRESS_SPACE_BOUND: u64 = 1024 * MIB;

pub(crate) fn no_hostile_packet_takes_more_memory_than_the_bound(subject: &Subject) -> Verdict {
    Usage::forget_peak();
    let before = match Usage::now() {
        Ok(before) => before,
        // What the heap counts is enough.
        Err(_) if Growth::from_now().is_some() => return hostile_packets(subject),
        Err(stop) => return Err(stop),
    };
    // The peak of address space cannot be forgotten. So as much is taken as there was at the peak,
    // though never touched: whatever comes on top makes a new one.
    let missing = before.address_space_peak - before.address_space;
    let _ballast = zeros(missing as usize).ok();
    hostile_packets(subject)?;
    let after = Usage::now()?;
    // A resident peak that could not be forgotten says nothing.
    let touched = if after.peak > before.peak { after.peak - before.resident } else { 0 };
    let allocated = after.address_space_peak - before.address_space_peak;
    for (what, grown, bound) in
        [("took", touched, MEMORY_BOUND), ("had allocated", allocated, ADDRESS_SPACE_BOUND)]
    {
        let [grown, bound] = [grown, bound].map(|bytes| bytes / MIB);
        ensure!(grown <= bound, "hostile packets {what} {grown} MiB, the bound is {bound} MiB");
    }
    Ok(())
}

/// The streams that a decoder may take too much for, each within the bound of the heap.
fn hostile_packets(subject: &Subject) -> Verdict {
    let subject = &Subject { heap_bound: Some(MEMORY_BOUND as usize), ..subject.clone() };
    hostile::counts_and_sizes_that_lie_are_refused(subject)?;
    hostile::a_payload_of_noise_is_refused(subject)?;
    hostile::a_changed_word_of_payload_gives_an_error_or_a_whole_packet(subject)?;
    hostile::a_flipped_bit_gives_an_error_or_a_whole_packet(subject)
}

pub(crate) fn channels_that_end_in_errors_leave_no_memory_behind(subject: &Subject) -> Verdict {
    /// Enough to fill the allocator's caches.
    const WARM_UP: usize = 50;
    const CHANNELS: usize = 500;
    /// 33 KiB a channel: less than the smallest state of any compressor.
    const BOUND: u64 = 16 * MIB;

    let scene = Scene::of_small_packets(subject)?;
    fail_channels(subject, &scene, WARM_UP)?;
    let before = Usage::now()?.resident;
    fail_channels(subject, &scene, CHANNELS)?;
    let grown = Usage::now()?.resident.saturating_sub(before);
    ensure!(
        grown <= BOUND,
        "{CHANNELS} channels that ended in errors left {} KiB behind",
        grown >> 10
    );
    Ok(())
}

/// Sets up both sides of `channels` channels, each of which ends in an error.
fn fail_channels(subject: &Subject, scene: &Scene<'_>, channels: usize) -> Verdict {
    let source = ram(multifd_core::PageSize::Kib4, &[7; 4096])?;
    for _ in 0..channels {
        let mut sender = subject.sender(&source, Setup::default())?;
        sender.send(&[0])?;
        scene.fail_receivers().context(|| "a receiver that fails".to_owned())?;
    }
    Ok(())
}

/// What the process takes, in bytes.
struct Usage {
    resident: u64,
    peak: u64,
    address_space: u64,
    address_space_peak: u64,
}

impl Usage {
    fn now() -> Verdict<Self> {
        let status = fs::read_to_string("/proc/self/status")
            .map_err(|error| Stop::not_applicable(format!("no /proc/self/status: {error}")))?;
        let field = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib << 10)
                .ok_or_else(|| Stop::not_applicable(format!("no {name} in /proc/self/status")))
        };
        Ok(Self {
            resident: field("VmRSS:")?,
            peak: field("VmHWM:")?,
            address_space: field("VmSize:")?,
            address_space_peak: field("VmPeak:")?,
        })
    }

    /// Has the peak of resident memory start over. Where that is not allowed, an earlier peak may
    /// hide a later one.
    fn forget_peak() {
        _ = fs::write("/proc/self/clear_refs", "5");
    }
}
