//! The device state: everything from the first FULL section on.
//!
//! A FULL body has no length, so the state is kept as it is, up to the end of the stream. How that
//! is found depends on the source. One without a return path closes the stream. One with a return
//! path keeps it open and waits for an answer, so there the end has to be recognised in the bytes:
//! the VMDESCRIPTION, the last thing that QEMU sends, has a length and is JSON.

use super::wire::section;
use crate::PageSize;

/// The type byte and the length before a VMDESCRIPTION's JSON, with the EOF before both.
const DESCRIPTION_HEAD: usize = 6;

/// The length of a FOOTER: its type byte and the section's number.
const FOOTER_BYTES: usize = 5;

/// What may be part of the end before the last zero byte: an EOF with its length, and a FOOTER.
const BEFORE_LAST_ZERO: usize = DESCRIPTION_HEAD - 1 + FOOTER_BYTES;

/// The most that a collector of the end alone keeps: more than any VMDESCRIPTION has.
const LONGEST_END: usize = 8 << 20;

/// Bytes that are taken in before what is not needed of them is forgotten.
const PIECE: usize = 64 << 10;

/// The device state as it arrives.
#[derive(Debug, Default)]
pub(super) struct Collector {
    bytes: Vec<u8>,
    last_zero: Option<usize>,
    /// Keep no more than it takes to know the end.
    end_alone: bool,
    /// Sections end in a FOOTER, so that the EOF comes behind one.
    footers: bool,
}

impl Collector {
    /// A collector that keeps all, or no more than it takes to know the end, of a stream whose
    /// sections end in a FOOTER or not.
    pub(super) fn new(end_alone: bool, footers: bool) -> Self {
        Self { end_alone, footers, ..Self::default() }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes in `bytes` up to the end of the first VMDESCRIPTION that is whole, wherever they are
    /// split. Returns how many these are; `None` where all were taken and it has not ended.
    pub(super) fn push_to_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut taken = 0;
        // A VMDESCRIPTION ends in a brace.
        while let Some(brace) = bytes[taken..].iter().position(|&byte| byte == b'}') {
            let end = taken + brace + 1;
            self.push(&bytes[taken..end]);
            if self.is_described() {
                return Some(end);
            }
            taken = end;
        }
        self.push(&bytes[taken..]);
        None
    }

    /// Takes in `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        bytes.chunks(PIECE).for_each(|piece| self.push_piece(piece));
    }

    fn push_piece(&mut self, chunk: &[u8]) {
        if let Some(at) = chunk.iter().rposition(|&byte| byte == 0) {
            self.last_zero = Some(self.bytes.len() + at);
        }
        self.bytes.extend_from_slice(chunk);
        if self.end_alone {
            self.forget();
        }
    }

    /// Forgets what cannot be part of the end.
    fn forget(&mut self) {
        let count = self.behind();
        self.bytes.drain(..count);
    }

    /// Gives what cannot be part of the end, and keeps the rest.
    pub(super) fn take_behind(&mut self) -> Vec<u8> {
        let count = self.behind();
        self.bytes.drain(..count).collect()
    }

    /// How many of the bytes cannot be part of a VMDESCRIPTION, of the EOF before it or of the FOOTER
    /// before that.
    fn behind(&mut self) -> usize {
        let needed = match self.last_zero {
            Some(last_zero) => last_zero.saturating_sub(BEFORE_LAST_ZERO),
            None => self.bytes.len().saturating_sub(BEFORE_LAST_ZERO),
        };
        if self.bytes.len() - needed > LONGEST_END {
            // No zero for as long as that: what is here cannot be a VMDESCRIPTION.
            self.last_zero = None;
            self.bytes.len() - BEFORE_LAST_ZERO
        } else {
            self.last_zero = self.last_zero.map(|at| at - needed);
            needed
        }
    }

    /// Whether the bytes so far end in EOF and a whole VMDESCRIPTION. A device's own state may look
    /// like that; where sections end in a FOOTER, one has to come before.
    fn is_described(&self) -> bool {
        let Some(eof) = described_at(&self.bytes, self.last_zero) else { return false };
        let footer = eof.checked_sub(FOOTER_BYTES).map(|at| self.bytes[at]);
        !self.footers || eof == 0 || footer == Some(section::FOOTER)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Whether these bytes can be all of a stream's device state: they end in EOF, or in EOF and a
/// whole VMDESCRIPTION. With `footers` a section, if there is any, has to end in one before a lone
/// EOF.
pub(super) fn is_whole(bytes: &[u8], footers: bool) -> bool {
    description_at(bytes).is_some()
        || match bytes {
            [only] => *only == section::EOF,
            [.., footer, _, _, _, _, last] if footers => {
                *footer == section::FOOTER && *last == section::EOF
            }
            [.., last] => !footers && *last == section::EOF,
            [] => false,
        }
}

/// A device state with no device in it, but with the VMDESCRIPTION by which its end is known.
pub(super) fn without_devices(page_size: PageSize) -> Vec<u8> {
    described_end(page_size, "")
}

/// EOF and the VMDESCRIPTION that lists `devices`, which are JSON separated by commas.
pub(super) fn described_end(page_size: PageSize, devices: &str) -> Vec<u8> {
    let bytes = page_size.bytes();
    with_json(format!("{{\"page_size\": {bytes}, \"devices\": [{devices}]}}").as_bytes())
}

/// EOF and the VMDESCRIPTION that is `json`.
pub(super) fn with_json(json: &[u8]) -> Vec<u8> {
    let mut bytes = vec![section::EOF, section::DESCRIPTION];
    bytes.extend_from_slice(&(json.len() as u32).to_be_bytes());
    bytes.extend_from_slice(json);
    bytes
}

/// Where the EOF is before the VMDESCRIPTION that these bytes end in, if they do.
fn description_at(bytes: &[u8]) -> Option<usize> {
    described_at(bytes, bytes.iter().rposition(|&byte| byte == 0))
}

/// The sections of a device state, up to the EOF, and the JSON of its VMDESCRIPTION. `None` where it
/// has no VMDESCRIPTION.
pub fn split_description(device_state: &[u8]) -> Option<(&[u8], &[u8])> {
    let eof = description_at(device_state)?;
    Some((&device_state[..eof], &device_state[eof + DESCRIPTION_HEAD..]))
}

/// How many bytes follow the first EOF with a whole VMDESCRIPTION, if there is one with something
/// behind it.
pub(super) fn trailing(bytes: &[u8]) -> Option<usize> {
    // JSON has no zero byte, so that no byte is looked at twice.
    let mut zeros = bytes.iter().enumerate().filter(|&(_, &byte)| byte == 0).map(|(at, _)| at);
    zeros.find_map(|eof| {
        let (json, rest) = described(&bytes[eof..])?;
        (!rest.is_empty() && !json.contains(&0) && is_description(json)).then_some(rest.len())
    })
}

/// JSON has no zero byte. So an EOF with a VMDESCRIPTION that fills the rest has the last zero byte
/// there is either in the length or in the EOF itself, which leaves few places to look at.
fn described_at(bytes: &[u8], last_zero: Option<usize>) -> Option<usize> {
    let last_zero = last_zero?;
    (last_zero.saturating_sub(DESCRIPTION_HEAD - 1)..=last_zero).find(|&eof| {
        let whole = described(&bytes[eof..]).filter(|(_, rest)| rest.is_empty());
        whole.is_some_and(|(json, _)| is_description(json))
    })
}

/// The JSON of a VMDESCRIPTION after an EOF, and what follows it. `bytes` starts with the EOF.
fn described(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, json) = bytes.split_at_checked(DESCRIPTION_HEAD)?;
    let &[section::EOF, section::DESCRIPTION, a, b, c, d] = head else { return None };
    json.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)
}

/// Whether `json` is one object from its first byte to its last and has the keys that a
/// VMDESCRIPTION has. What is inside them is not looked at, and no tree is built: that would take
/// many times the memory of what a peer sent.
fn is_description(json: &[u8]) -> bool {
    if json.first() != Some(&b'{') {
        return false;
    }
    let (mut page_size, mut devices) = (false, false);
    let (mut depth, mut string, mut escaped) = (0_usize, None, false);
    for (at, &byte) in json.iter().enumerate() {
        match (string, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(start), b'"') => {
                page_size |= depth == 1 && json[start..at] == *b"page_size";
                devices |= depth == 1 && json[start..at] == *b"devices";
                string = None;
            }
            (None, b'"') => string = Some(at + 1),
            (None, b'{' | b'[') => depth += 1,
            (None, b'}' | b']') if depth <= 1 => {
                return depth == 1 && at + 1 == json.len() && page_size && devices;
            }
            (None, b'}' | b']') => depth -= 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOOTER: [u8; 5] = [section::FOOTER, 0, 0, 0, 9];

    fn with_description(before: &[u8], json: &str) -> Vec<u8> {
        let length = (json.len() as u32).to_be_bytes();
        [before, &[section::EOF, section::DESCRIPTION], &length, json.as_bytes()].concat()
    }

    fn is_described_at_once(bytes: &[u8]) -> bool {
        let mut collector = Collector::default();
        collector.push(bytes);
        collector.is_described()
    }

    #[test]
    fn a_device_state_without_devices_is_whole_and_described() {
        let bytes = without_devices(PageSize::Kib64);
        assert!(is_whole(&bytes, true) && is_described_at_once(&bytes));
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes[6..]).is_ok());
    }

    #[test]
    fn a_description_is_known_only_at_its_last_byte_however_it_arrives() {
        // A length with a zero byte at its end, one that looks like a head itself, and long ones.
        let longest = if cfg!(miri) { 35 } else { 0x10000 };
        for length in [34, 0x100, 0x0600, longest] {
            let json = r#"{"devices": [{}], "page_size": 1"#;
            let json = format!("{json}{}}}", " ".repeat(length - json.len() - 1));
            let bytes = with_description(&[&[4, 0, 6, 0], FOOTER.as_slice()].concat(), &json);
            let mut collector = Collector::default();
            for byte in &bytes {
                assert!(!collector.is_described());
                collector.push(&[*byte]);
            }
            assert!(collector.is_described());
            collector.push(b"}");
            assert!(!collector.is_described());
        }
    }

    #[test]
    fn the_end_alone_is_as_good_as_everything() {
        let json = r#"{"devices": [{}], "page_size": 1}"#;
        let long = if cfg!(miri) { 100 } else { 5000 };
        let body = [vec![section::FULL; long], vec![0; 300], vec![7; long]].concat();
        let state = [&body[..], &FOOTER].concat();
        let with = with_description(&state, json);
        let without = [&state[..], &[section::EOF]].concat();
        for chunk in [1, 7, 4096, 10000] {
            for (bytes, has_description) in [(&with, true), (&without, false)] {
                let mut end = Collector::new(true, true);
                bytes.chunks(chunk).for_each(|chunk| end.push(chunk));
                assert_eq!(end.is_described(), has_description, "{chunk}");
                assert!(end.len() < 100, "{chunk}: {} bytes are kept", end.len());
                assert!(is_whole(&end.into_bytes(), true), "{chunk}");
            }
        }
    }

    #[test]
    fn the_first_description_ends_it_however_it_arrives() {
        let json = r#"{"devices": [{}], "page_size": 1}"#;
        let first = with_description(&[&[4, 0, 6, 0], FOOTER.as_slice()].concat(), json);
        let both = [&first, &with_description(&FOOTER, json)[..]].concat();
        for chunk in [1, 7, first.len(), both.len()] {
            for end_alone in [false, true] {
                let (mut collector, mut end) = (Collector::new(end_alone, true), 0);
                for piece in both.chunks(chunk) {
                    let ended = collector.push_to_end(piece);
                    end += ended.unwrap_or(piece.len());
                    if ended.is_some() {
                        break;
                    }
                }
                assert_eq!(end, first.len(), "{chunk}");
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "20 MiB take Miri too long")]
    fn what_is_kept_of_the_end_is_bounded() {
        let mut end = Collector::new(true, true);
        for _ in 0..20 {
            end.push(&[1; 1 << 20]);
            assert!(end.len() <= LONGEST_END + (1 << 20));
        }
        end.push(&with_description(&FOOTER, r#"{"devices": [], "page_size": 1}"#));
        assert!(end.is_described());
    }

    #[test]
    fn a_description_in_a_devices_own_state_is_not_the_end_where_sections_have_footers() {
        let json = r#"{"devices": [], "page_size": 1}"#;
        let inner = with_description(&[section::FULL, 1, 2, 3, 4, 5], json);
        let whole = with_description(&[&inner[..], FOOTER.as_slice()].concat(), json);
        for end_alone in [false, true] {
            for step in [1, 7, 1000] {
                let mut collector = Collector::new(end_alone, true);
                let mut taken = 0;
                let end = whole.chunks(step).find_map(|chunk| {
                    let end = collector.push_to_end(chunk);
                    taken += end.unwrap_or(chunk.len());
                    end
                });
                assert!(end.is_some() && taken == whole.len(), "{end_alone}, {step}: {taken}");
            }
        }
        assert_eq!(Collector::new(false, false).push_to_end(&whole), Some(inner.len()));
    }

    #[test]
    fn what_is_no_description_is_not_taken_for_one() {
        for json in [
            "{}",
            r#"{"page_size": 4096}"#,
            r#"{"devices": [], "of": {"page_size": 4096}}"#,
            r#"["page_size", "devices"]"#,
            r#"{"page_size": 1, "devices": 2}}"#,
            r#"{"page_size": 1}, {"devices": 2}"#,
            r#"{"page_size": 1, "devices": "}"#,
            r#"{"page_size": 1, "devices": {}"#,
            r#"{"page_size": 1, "devices": "\"}"#,
        ] {
            assert!(!is_described_at_once(&with_description(&[], json)), "{json}");
        }
        for json in [
            r#"{"page_size": 1, "devices": 2}"#,
            r#"{"page_size": 1, "devices": "}"}"#,
            r#"{"page_size": 1, "devices": "\"\\"}"#,
        ] {
            assert!(is_described_at_once(&with_description(&[], json)), "{json}");
        }
    }

    #[test]
    fn a_state_without_a_description_ends_in_a_footer_and_eof() {
        let section = [&[section::FULL, 1, 2, 3], FOOTER.as_slice()].concat();
        let whole = [section.as_slice(), &[section::EOF]].concat();
        assert!(is_whole(&whole, true));
        assert!(is_whole(&[section::EOF], true));
        for end in 0..whole.len() {
            assert!(!is_whole(&whole[..end], true), "{end}");
        }
    }

    #[test]
    fn a_state_of_a_source_without_footers_ends_in_eof() {
        assert!(is_whole(&[section::FULL, 1, 2, 3, section::EOF], false));
        assert!(!is_whole(&[section::FULL, 1, 2, 3], false));
        assert!(!is_whole(&[section::FULL, 1, 2, 3, section::EOF], true));
    }

    #[test]
    fn what_follows_a_description_is_counted() {
        let json = r#"{"page_size": 4096, "devices": []}"#;
        let whole = with_description(&[&[4, 0, 6, 0], FOOTER.as_slice()].concat(), json);
        assert_eq!(trailing(&whole), None);
        for rest in [b"}".as_slice(), b"\0", b"\0\x06\0\0\0\x01{"] {
            assert_eq!(trailing(&[&whole, rest].concat()), Some(rest.len()));
        }
        assert_eq!(trailing(&whole[..whole.len() - 1]), None);
    }
}
