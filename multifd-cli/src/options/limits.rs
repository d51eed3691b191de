//! How patient a migration is, and how much it may send.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::units;

/// How patient a migration is.
#[derive(Debug, clap::Args)]
pub(crate) struct Limits {
    /// How long to wait for the other side while no byte moves, or none for any time
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = wait_or_none)]
    progress_timeout: Limit,
    /// How long the migration may take from its first connection on; any time if not given
    #[arg(long, value_name = "TIME", value_parser = units::wait, allow_negative_numbers = true)]
    pub(crate) time_limit: Option<Duration>,
}

/// How patient a side that others connect to is.
#[derive(Debug, clap::Args)]
pub(crate) struct ChannelTimeout {
    /// How long a connection may take to say what it is, and all of them to be there
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = units::wait,
        allow_negative_numbers = true
    )]
    pub(crate) channel_timeout: Duration,
}

/// How much a side that sends may send.
#[derive(Debug, clap::Args)]
pub(crate) struct Bandwidth {
    /// The most to send a second, such as 25Gbps or 1.5GiB/s; as much as goes if not given
    #[arg(long, value_name = "SPEED", value_parser = units::bandwidth)]
    pub(crate) max_bandwidth: Option<NonZeroU64>,
}

/// A time, or any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit(Option<Duration>);

impl Limits {
    /// How long to wait while no byte moves.
    pub(crate) fn progress_timeout(&self) -> Option<Duration> {
        self.progress_timeout.0
    }
}

fn wait_or_none(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { units::wait(text).map(|time| Limit(Some(time))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_time_or_none() {
        assert_eq!(wait_or_none("none"), Ok(Limit(None)));
        assert_eq!(wait_or_none("90s"), Ok(Limit(Some(Duration::from_secs(90)))));
        assert!(wait_or_none("0").is_err() && wait_or_none("never").is_err());
    }
}
