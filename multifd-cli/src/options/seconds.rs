//! Times on the command line.

use std::time::Duration;

/// Reads a number of seconds above 0, such as `0.5`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let seconds = seconds.filter(|seconds| !seconds.is_zero());
    seconds.ok_or_else(|| format!("'{text}' is not a number of seconds above 0"))
}
