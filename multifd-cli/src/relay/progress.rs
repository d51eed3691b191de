//! What a relay shows while it runs.

use std::time::Instant;

use multifd::relay::RelayProgress;

use crate::progress::moved;
use crate::size::Bytes;

/// The line that says what a relay has moved. It waits for a source on `listen` first.
pub(super) fn text(progress: RelayProgress, listen: String) -> impl FnMut() -> String {
    let mut began = None;
    move || {
        let (from, to) = (progress.from.snapshot(), progress.to.snapshot());
        let (bytes_in, bytes_out) = (from.wire_bytes(), to.wire_bytes());
        if from.ram_bytes == 0 {
            return format!("waiting for a source on {listen}");
        }
        let time = began.get_or_insert_with(Instant::now).elapsed();
        let moved = moved(&from, time);
        let ratio = bytes_in as f64 / bytes_out.max(1) as f64;
        format!("{moved}; {} in, {} out (ratio {ratio:.2})", Bytes(bytes_in), Bytes(bytes_out))
    }
}
