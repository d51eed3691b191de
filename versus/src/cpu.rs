//! CPU time of another process.

use std::fs;
use std::time::Duration;

use crate::error::Error;

/// The CPU time of all threads that the process has or had, in user and in system mode, to the
/// system's clock tick (usually 10 ms). The process may have ended, as long as nobody has waited for
/// it.
pub(crate) fn of_process(id: u32) -> Result<Duration, Error> {
    let path = format!("/proc/{id}/stat");
    let stat = fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
    let ticks = ticks(&stat).ok_or_else(|| Error::Other(format!("no CPU time in {path}")))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// utime and stime: the 14th and the 15th field of `stat`. The second, the program's name in
/// brackets, may have blanks and brackets in it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use std::time::Instant;

    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "17 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks("17 (a) S 1 2 3"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn work_is_counted() {
        let (began, before) = (Instant::now(), of_process(std::process::id()).unwrap());
        while of_process(std::process::id()).unwrap() < before + Duration::from_millis(20) {
            assert!(began.elapsed() < Duration::from_secs(60));
        }
    }
}
