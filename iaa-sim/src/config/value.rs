//! Values as they are written: numbers, rates, times, lists.

use toml::de::{DeTable, DeValue};

/// A key of a TOML file, and its value as a variable would have it, or why it could not.
pub(super) type Entry = (String, Result<String, String>);

/// All keys of a TOML file.
pub(super) fn toml_keys(text: &str) -> Result<Vec<Entry>, String> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = 1 + text[..at].matches('\n').count();
        format!("line {line}: {}", error.message())
    })?;
    let entries = table.get_ref().iter();
    Ok(entries.map(|(key, value)| (key.get_ref().to_string(), written(value.get_ref()))).collect())
}

fn written(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|error| error.to_string()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(is) => Ok(u8::from(*is).to_string()),
        DeValue::Array(values) => {
            let values: Result<Vec<_>, _> =
                values.iter().map(|value| written(value.get_ref())).collect();
            Ok(values?.join(","))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => {
            Err("neither a text, a number, true, false nor a list".to_owned())
        }
    }
}

pub(super) fn whole(value: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("not a whole number from {least} to {most}"))
}

/// A number of bytes such as `4096`, `512K`, `2M` or `2G`, with powers of 1024, which is a power of 2.
pub(super) fn power_of_2(value: &str, least: u32, most: u32) -> Result<u32, String> {
    let units = [("K", 1024.0), ("M", 1024.0 * 1024.0), ("G", 1024.0 * 1024.0 * 1024.0)];
    let bytes = with_unit(value, &units, f64::from(most)).map(|bytes| bytes as u32);
    bytes
        .filter(|&bytes| bytes >= least && bytes.is_power_of_two())
        .ok_or_else(|| format!("no power of 2 from {least} to {most}, such as 2M or 2G"))
}

pub(super) fn number(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| "not a whole number below 2^64".to_owned())
}

pub(super) fn or_never(value: &str) -> Result<Option<u64>, String> {
    match value {
        "never" => Ok(None),
        number => match number.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err("neither never nor a descriptor's number".to_owned()),
        },
    }
}

pub(super) fn rate(value: &str) -> Result<f64, String> {
    fraction(value, 0.0, 1.0)
}

pub(super) fn fraction(value: &str, least: f64, most: f64) -> Result<f64, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("not a number from {least} to {most}"))
}

pub(super) fn switch(value: &str) -> Result<bool, String> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("neither 0 nor 1".to_owned()),
    }
}

/// Values with commas between them, at least one.
pub(super) fn list<T>(
    value: &str,
    one: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    value.split(',').map(|value| one(value.trim())).collect()
}

/// A time such as `800`, `800ns`, `1.5us`, `2ms` or `1s`.
pub(super) fn nanoseconds(value: &str) -> Result<u64, String> {
    let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    // An hour: no operation takes that long, and sums of it stay far below what a u64 holds.
    with_unit(value, &units, 3.6e12)
        .ok_or_else(|| "not a time up to an hour, such as 800ns, 5us, 1ms or 1s".to_owned())
}

/// Bytes a second such as `0`, `500000`, `800M` or `1.5G`, with powers of 1000.
pub(super) fn throughput(value: &str) -> Result<u64, String> {
    let units = [("K", 1e3), ("M", 1e6), ("G", 1e9)];
    // Slower than that, a page would take seconds.
    with_unit(value, &units, 1e12)
        .filter(|&bytes| bytes == 0 || bytes >= 1000)
        .ok_or_else(|| "neither 0 nor 1K to 1000G bytes a second, such as 800M or 1.5G".to_owned())
}

fn with_unit(value: &str, units: &[(&str, f64)], most: f64) -> Option<u64> {
    let unit = units.iter().find_map(|(unit, factor)| Some((value.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((value, 1.0));
    let number = number.parse::<f64>().ok()? * factor;
    (0.0..=most).contains(&number).then(|| number.round() as u64)
}
