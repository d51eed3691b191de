//! The time of day, for machines.

use time::OffsetDateTime;

/// Now, in UTC, as RFC 3339 has it, to the millisecond: `2026-11-26T20:39:35.042Z`.
pub(crate) fn now() -> String {
    rfc3339(OffsetDateTime::now_utc())
}

/// Seconds since 1970 in UTC.
pub(super) fn unix_seconds() -> f64 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e9
}

fn rfc3339(at: OffsetDateTime) -> String {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, milli) = at.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_all_its_digits_so_that_lines_sort_by_it() {
        let at = |nanos| rfc3339(OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap());
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_000_000_000 - 1), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_405_007_900_000), "2000-02-29T00:00:05.007Z");
    }
}
