//! What a relay shows while it runs.

use std::time::Instant;

use multifd::relay::RelayProgress;

use crate::size::Bytes;

/// The line that says what a relay has moved: pages, bytes in and out, ratio, rate.
pub(super) fn text(progress: RelayProgress) -> impl FnMut() -> String {
    let mut began = None;
    move || {
        let (from, to) = (progress.from.snapshot(), progress.to.snapshot());
        let (bytes_in, bytes_out) = (from.wire_bytes(), to.wire_bytes());
        if bytes_in == 0 {
            return "waiting for the source".to_owned();
        }
        let seconds = began.get_or_insert_with(Instant::now).elapsed().as_secs_f64();
        let pages = from.total().normal_pages + from.zero_pages();
        let rate = Bytes((bytes_in as f64 / seconds.max(0.1)) as u64);
        let ratio = bytes_in as f64 / bytes_out.max(1) as f64;
        let (bytes_in, bytes_out) = (Bytes(bytes_in), Bytes(bytes_out));
        format!("{pages} pages, {bytes_in} in, {bytes_out} out (ratio {ratio:.2}), {rate}/s in")
    }
}
