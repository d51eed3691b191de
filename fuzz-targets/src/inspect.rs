//! A recording that is inspected: no panic, whatever it holds, and a report that can be written.

use multifd::inspect::recording;

use crate::parts;

/// Runs the target on one input.
pub fn inspect(input: &[u8]) {
    let (_, parts) = parts(input);
    let Some((&main, channels)) = parts.split_first() else { return };
    let mut packets = 0_u64;
    let report = recording(main, channels.iter().copied(), |_| packets += 1);
    let report = report.expect("bytes in memory can be read");
    assert!(report.total().packets <= packets);
}
