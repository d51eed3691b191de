//! Speeds, times and shares, as people write them.

use std::num::NonZeroU64;
use std::time::Duration;

use multifd::core::PageSize;
use multifd_plan::Speed;

const SPEEDS: [(&str, f64); 21] = [
    ("bit/s", 0.125),
    ("kbit/s", 125.0),
    ("Mbit/s", 125e3),
    ("Gbit/s", 125e6),
    ("bps", 0.125),
    ("kbps", 125.0),
    ("Kbps", 125.0),
    ("Mbps", 125e3),
    ("Gbps", 125e6),
    ("Kbit/s", 125.0),
    ("B/s", 1.0),
    ("kB/s", 1e3),
    ("KB/s", 1e3),
    ("MB/s", 1e6),
    ("GB/s", 1e9),
    ("KiB/s", 1024.0),
    ("kiB/s", 1024.0),
    ("MiB/s", 1_048_576.0),
    ("GiB/s", 1_073_741_824.0),
    ("page/s", PageSize::Kib4.bytes() as f64),
    ("pages/s", PageSize::Kib4.bytes() as f64),
];

/// A number alone is one of seconds.
const TIMES: [(&str, f64); 9] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("", 1e9),
    ("m", 60e9),
    ("min", 60e9),
    ("h", 3.6e12),
];

/// The longest time, and the longest time of a single page, in nanoseconds: an hour and a
/// millisecond. With them the times of the largest memory fit into a `u64`.
const LONGEST: f64 = 3.6e12;
const LONGEST_OF_A_PAGE: f64 = 1e6;

/// The longest time that is waited for, in nanoseconds: 365 days.
const LONGEST_WAIT: f64 = 365.0 * 24.0 * 3.6e12;

/// Reads `100Gbit/s`, `25Gbps`, `12.5GB/s`, `400MiB/s` or `20000pages/s` (of 4 KiB).
pub(crate) fn speed(text: &str) -> Result<Speed, String> {
    Speed::new(dirty_rate(text)?)
        .ok_or_else(|| format!("'{text}' is out of range: a speed is 1MB/s to 1000000GB/s"))
}

/// Reads what may be sent at most, in bits or bytes, into bytes a second.
pub(crate) fn bandwidth(text: &str) -> Result<NonZeroU64, String> {
    let of_bytes = |(name, _): &&(&str, f64)| !name.starts_with("page");
    let units: Vec<_> = SPEEDS.iter().filter(of_bytes).copied().collect();
    let bytes = number_with_unit(text, &units).map(|bytes| bytes.round() as u64);
    bytes.and_then(NonZeroU64::new).ok_or_else(|| {
        format!("'{text}' is not a bandwidth: write bits as 25Gbps, bytes as 1.5GiB/s or 100MB/s")
    })
}

/// As [`speed()`], in bytes a second, of any size: a guest may write very little.
pub(crate) fn dirty_rate(text: &str) -> Result<f64, String> {
    number_with_unit(text, &SPEEDS).ok_or_else(|| {
        format!("'{text}' is not a speed: write it as 100Gbit/s, 25Gbps, 12.5GB/s or 20000pages/s")
    })
}

/// Reads a time above 0, such as `300ms`, `1.5s` or `2m`; without a unit, it is in seconds.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    let nanoseconds = time_up_to(LONGEST_WAIT, "365 days, the limit", text)?;
    if nanoseconds == 0 {
        return Err(format!("'{text}' is not a time above 0: write it as 300ms, 1.5s or 2m"));
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Reads `300ms` or `2s` into nanoseconds.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    time_up_to(LONGEST, "an hour, the limit", text)
}

/// Reads the time of a page or a packet, `75ns` or `1.5us`, into nanoseconds.
pub(crate) fn cost(text: &str) -> Result<u64, String> {
    time_up_to(LONGEST_OF_A_PAGE, "1ms, the limit for a page or a packet", text)
}

fn time_up_to(most: f64, in_words: &str, text: &str) -> Result<u64, String> {
    let time = number_with_unit(text, &TIMES)
        .ok_or_else(|| format!("'{text}' is not a time: write it as 75ns, 300ms, 1.5s or 2m"))?;
    if time <= most {
        return Ok(time.round() as u64);
    }
    Err(format!("'{text}' is more than {in_words}"))
}

/// Reads a share of 1, such as `0.94`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share
        .ok_or_else(|| format!("'{text}' is not a share: write a number from 0 to 1, such as 0.52"))
}

/// Reads a share of 1 that is not 0.
pub(crate) fn share_above_0(text: &str) -> Result<f64, String> {
    match share(text)? {
        0.0 => Err("the share must be more than 0".to_owned()),
        share => Ok(share),
    }
}

/// Reads `CODEC=RATIO`, such as `zstd=2.5`: bytes of pages for each byte of payload.
pub(crate) fn ratio_of(text: &str) -> Result<(String, f64), String> {
    let refused = || format!("'{text}' is not a codec's ratio: write it as zstd=2.5");
    let (codec, ratio) = text.split_once('=').ok_or_else(refused)?;
    let ratio: f64 = ratio.parse().map_err(|_| refused())?;
    if (1.0..=1000.0).contains(&ratio) {
        return Ok((codec.to_owned(), ratio));
    }
    Err(format!(
        "'{text}' is out of range: a ratio is 1 to 1000, as pages that do not shrink are sent raw"
    ))
}

/// Reads `CODEC=SPEED`, such as `zstd=400MB/s`.
pub(crate) fn speed_of(text: &str) -> Result<(String, Speed), String> {
    let (codec, rest) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not a codec's speed: write it as zstd=400MB/s"))?;
    Ok((codec.to_owned(), speed(rest)?))
}

fn number_with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let number: f64 = number.parse().ok()?;
    Some(number * factor).filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_have_a_unit_and_bits_are_not_bytes() {
        for (text, bytes) in [
            ("100Gbit/s", 12.5e9),
            ("25Gbps", 3.125e9),
            ("25 Mbps", 3.125e6),
            ("1.5GiB/s", 1.5 * 1_073_741_824.0),
            ("12.5 GB/s", 12.5e9),
            ("400MiB/s", 400.0 * 1_048_576.0),
            ("20000pages/s", 20000.0 * 4096.0),
        ] {
            assert_eq!(speed(text).map(Speed::bytes_per_second), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_bandwidth_says_whether_it_is_of_bits_or_bytes() {
        for (text, bytes) in
            [("25Gbps", 3_125_000_000), ("1GiB/s", 1 << 30), ("100 Mbit/s", 12_500_000)]
        {
            assert_eq!(bandwidth(text).map(NonZeroU64::get), Ok(bytes), "{text}");
        }
        for text in ["", "1G", "0Gbps", "1 bps", "10pages/s", "-1MB/s", "fast"] {
            let error = bandwidth(text).unwrap_err();
            assert!(error.contains(text) && error.contains("25Gbps"), "{error}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in ["", "100", "100G", "0GB/s", "-1GB/s", "1e400GB/s", "GB/s", "9999999999GB/s"] {
            assert!(speed(text).unwrap_err().contains("GB/s"), "{text}");
        }
        for text in ["", "s", "-1ms", "3d", "2h", "3601", "0x5s", "1e3s"] {
            assert!(time(text).unwrap_err().contains(text), "{text}");
            assert!(cost(text).unwrap_err().contains(text), "{text}");
        }
        assert!(cost("2ms").unwrap_err().contains("1ms"));
        for text in ["", "1.1", "-0.1", "NaN", "50%"] {
            assert!(share(text).is_err(), "{text}");
        }
        for text in ["zstd", "zstd=", "zstd=0.5", "zstd=inf", "zstd=NaN"] {
            assert!(ratio_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_into_nanoseconds() {
        for (text, ns) in [("75ns", 75), ("1.5us", 1500), ("300ms", 300_000_000), ("0s", 0)] {
            assert_eq!(time(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn a_wait_is_above_0_and_in_seconds_where_nothing_else_is_said() {
        for (text, ms) in
            [("10", 10_000), ("0.5", 500), ("300ms", 300), ("1.5 s", 1500), ("2m", 120_000)]
        {
            assert_eq!(wait(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["0", "0s", "-1", "", "soon", "9999999h", "1e400", "NaN"] {
            let error = wait(text).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
