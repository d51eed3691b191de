//! A recording that is inspected: no panic, whatever it holds, and a report that can be written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use multifd::inspect::recording;
use multifd_fuzz::parts;

fuzz_target!(|input: &[u8]| {
    let (_, parts) = parts(input);
    let Some((&main, channels)) = parts.split_first() else { return };
    let mut packets = 0_u64;
    let report = recording(main, channels.iter().copied(), |_| packets += 1);
    let report = report.expect("bytes in memory can be read");
    assert!(report.total().packets <= packets);
});
