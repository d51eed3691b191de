//! Sizes in bytes, as people write and read them.

use std::fmt;

const UNITS: [(&str, u32); 4] = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];

/// Reads `4096`, `512M`, `1.5G`, `2GiB`. The units are powers of 1024.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let too_large = || format!("'{text}' is too large");
    let refused = || format!("'{text}' is not a size: write it as 512M or 1.5G");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_uppercase();
    let unit = unit.strip_suffix("IB").or(unit.strip_suffix('B')).unwrap_or(&unit);
    let shift = match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, shift)) => *shift,
        None if unit.is_empty() => 0,
        None => return Err(refused()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let count: u64 = whole.parse().map_err(|_| refused())?;
    // More digits could not give whole bytes anyhow.
    let digits = u32::try_from(part.len()).ok().filter(|digits| *digits <= 18);
    let scale = 10_u128.pow(digits.ok_or_else(refused)?);
    let part: u64 = part.parse().map_err(|_| refused())?;
    let scaled = (u128::from(count) * scale + u128::from(part)).checked_mul(1 << shift);
    let scaled = scaled.ok_or_else(too_large)?;
    if scaled % scale != 0 {
        return Err(format!("'{text}' is not a whole number of bytes"));
    }
    u64::try_from(scaled / scale).map_err(|_| too_large())
}

/// A number of bytes, to be shown in the largest unit that it fills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((name, shift)) = UNITS.iter().rev().find(|(_, shift)| self.0 >> shift > 0) else {
            return write!(f, "{} bytes", self.0);
        };
        if self.0.trailing_zeros() >= *shift {
            write!(f, "{} {name}iB", self.0 >> shift)
        } else {
            write!(f, "{:.2} {name}iB", self.0 as f64 / (1_u64 << shift) as f64)
        }
    }
}

/// `bytes` in GiB.
pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4096B", 4096),
            ("4k", 4096),
            ("512M", 512 << 20),
            ("2G", 2 << 30),
            ("2 GiB", 2 << 30),
            ("1t", 1 << 40),
            ("1.5G", 3 << 29),
            ("0.0625 MiB", 64 << 10),
            ("2gb", 2 << 30),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in [
            "",
            "M",
            "-1",
            "1.3G",
            "1.",
            ".5G",
            "1.5.0G",
            "2X",
            "2GiBi",
            "0x10",
            "M2",
            "20000000T",
            "1e3",
            "18446744073709551615.000000000000000001T",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_they_fill() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (4096, "4 KiB"),
            (512 << 20, "512 MiB"),
            (3 << 29, "1.50 GiB"),
            (1 << 40, "1 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
