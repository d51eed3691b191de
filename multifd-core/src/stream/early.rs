//! Sections that come before the pages: the state that some devices send early.
//!
//! A FULL section's body has no length. Among the devices' state at the stream's end that does no
//! harm, since all of it is kept as it is. Before the end of ram the stream goes on behind the
//! section, so its end has to be found: it is the first FOOTER with the section's number that is
//! directly followed by the head of something that may come there. A body would have to hold these
//! nine bytes or more by chance to be cut off.

use std::mem;

use super::StreamErrorKind;
use super::wire::{self, section};

/// A FOOTER's length: its type byte and the section's number.
pub(super) const FOOTER_BYTES: usize = 5;

/// The highest version that the head of a section is taken to have. QEMU's are below 100.
const MOST_VERSION: u32 = 0xffff;

/// The most bytes behind a section that are needed to know that it has ended: the head of another.
pub(super) const MOST_BEHIND: usize = 6 + 255 + 8;

/// Bytes that are taken in before the end is looked for, so that not much behind it is copied.
const PIECE: usize = 512;

/// Where in the stream a section comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    BeforeStart,
    /// Between the START of ram, which has this number, and its END.
    InRam(u32),
}

/// Whether bytes are the start of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    So,
    Not,
    /// As far as they have come.
    Open,
}

/// A FULL section before the end of ram, as it arrives.
#[derive(Debug)]
pub(super) struct EarlySection {
    place: Place,
    /// All that has come of the section and of what follows it.
    bytes: Vec<u8>,
    /// Up to where no end of the section begins; 0 until its head has come.
    looked: usize,
}

/// The end of a section was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The section, from its type byte to the end of its FOOTER.
    pub(super) section: Vec<u8>,
    /// What came behind it before the bytes in which the end showed.
    pub(super) behind: Vec<u8>,
    /// How many of the bytes in which the end showed are the section's.
    pub(super) taken: usize,
}

impl EarlySection {
    pub(super) fn new(place: Place) -> Self {
        Self { place, bytes: Vec::new(), looked: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes in `bytes`, the first of which is the type byte. Gives the section once its end is
    /// known, which depends on the bytes alone, not on how they are split.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<Ended>, StreamErrorKind> {
        let before = self.bytes.len();
        for piece in bytes.chunks(PIECE) {
            self.bytes.extend_from_slice(piece);
            if let Some(end) = self.find_end()? {
                let mut behind = self.bytes.split_off(end);
                behind.truncate(before.saturating_sub(end));
                let section = mem::take(&mut self.bytes);
                return Ok(Some(Ended { section, behind, taken: end.saturating_sub(before) }));
            }
        }
        Ok(None)
    }

    fn find_end(&mut self) -> Result<Option<usize>, StreamErrorKind> {
        if self.looked == 0 {
            match head(&self.bytes) {
                (Is::So, end) => self.looked = end,
                (Is::Open, _) => return Ok(None),
                (Is::Not, _) => return Err(NO_SECTION),
            }
        }
        let footer = [&[section::FOOTER], &self.bytes[1..FOOTER_BYTES]].concat();
        let candidate = |byte: &u8| *byte == section::FOOTER || *byte == section::START;
        while let Some(at) = self.bytes[self.looked..].iter().position(candidate) {
            self.looked += at;
            let here = &self.bytes[self.looked..];
            match starts_with(here, &footer) {
                Is::So => match self.follows(&here[FOOTER_BYTES..]) {
                    Is::So => return Ok(Some(self.looked + FOOTER_BYTES)),
                    Is::Open => return Ok(None),
                    Is::Not => {}
                },
                Is::Open => return Ok(None),
                Is::Not => match ram_start(here) {
                    // Without a FOOTER before it.
                    Is::So => return Err(NO_FOOTERS),
                    Is::Open => return Ok(None),
                    Is::Not => {}
                },
            }
            self.looked += 1;
        }
        self.looked = self.bytes.len();
        Ok(None)
    }

    /// Whether what is here may follow the section.
    fn follows(&self, here: &[u8]) -> Is {
        match (here.first(), self.place) {
            (None, _) => Is::Open,
            (Some(&section::COMMAND), _) => command(&here[1..]),
            (Some(&(section::FULL | section::START)), _) => head(here).0,
            (Some(&(section::PART | section::END)), Place::InRam(id)) => {
                starts_with(&here[1..], &id.to_be_bytes())
            }
            _ => Is::Not,
        }
    }
}

const NO_SECTION: StreamErrorKind =
    StreamErrorKind::Misplaced("the device state comes before the END of ram");

pub(super) const NO_FOOTERS: StreamErrorKind = StreamErrorKind::Misplaced(
    "a device sends its state before the RAM, whose end is not known in a stream without FOOTERs: \
     turn send-section-footer on in the source's machine type",
);

/// Whether bytes are the head of a section, type byte included, and how long that is.
fn head(bytes: &[u8]) -> (Is, usize) {
    const BEFORE_NAME: usize = 6;
    let Some(&length) = bytes.get(BEFORE_NAME - 1) else { return (Is::Open, 0) };
    let name_end = BEFORE_NAME + usize::from(length);
    let name = &bytes[BEFORE_NAME..name_end.min(bytes.len())];
    if length == 0 || !name.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return (Is::Not, 0);
    }
    match bytes.get(name_end + 4..).and_then(<[u8]>::first_chunk) {
        None => (Is::Open, 0),
        Some(version) if u32::from_be_bytes(*version) > MOST_VERSION => (Is::Not, 0),
        Some(_) => (Is::So, name_end + 8),
    }
}

/// Whether bytes are a COMMAND from behind its type byte.
fn command(bytes: &[u8]) -> Is {
    let Some(number) = bytes.first_chunk() else {
        return if bytes.first().is_none_or(|&byte| byte == 0) { Is::Open } else { Is::Not };
    };
    let known = wire::command::lengths(u16::from_be_bytes(*number));
    match (known, bytes[2..].first_chunk()) {
        (None, _) => Is::Not,
        (Some(_), None) => Is::Open,
        (Some(lengths), Some(length)) if lengths.contains(&u16::from_be_bytes(*length)) => Is::So,
        (Some(_), Some(_)) => Is::Not,
    }
}

/// Whether bytes are the START of ram.
fn ram_start(bytes: &[u8]) -> Is {
    const BEHIND_ID: &[u8] = b"\x03ram\0\0\0\0\0\0\0\x04";
    match starts_with(bytes, &[section::START]) {
        Is::So if bytes.len() <= FOOTER_BYTES => Is::Open,
        Is::So => starts_with(&bytes[FOOTER_BYTES..], BEHIND_ID),
        is => is,
    }
}

fn starts_with(bytes: &[u8], what: &[u8]) -> Is {
    let common = bytes.len().min(what.len());
    match bytes[..common] == what[..common] {
        false => Is::Not,
        true if common < what.len() => Is::Open,
        true => Is::So,
    }
}

/// A dirty-bitmap section without bitmaps, which a source with the capability sends directly behind
/// ram's START: one word says that nothing comes.
pub(super) const DIRTY_BITMAP: &str = "dirty-bitmap";
pub(super) const DIRTY_BITMAP_VERSION: u32 = 1;
pub(super) const NO_BITMAPS: u8 = 0x01;

/// The START of a dirty-bitmap section without bitmaps.
pub(super) fn no_bitmaps(section_id: u32, instance_id: u32, footers: bool) -> Vec<u8> {
    let mut bytes = vec![section::START];
    bytes.extend_from_slice(&section_id.to_be_bytes());
    bytes.push(DIRTY_BITMAP.len() as u8);
    bytes.extend_from_slice(DIRTY_BITMAP.as_bytes());
    bytes.extend_from_slice(&instance_id.to_be_bytes());
    bytes.extend_from_slice(&DIRTY_BITMAP_VERSION.to_be_bytes());
    bytes.push(NO_BITMAPS);
    if footers {
        bytes.push(section::FOOTER);
        bytes.extend_from_slice(&section_id.to_be_bytes());
    }
    bytes
}

/// Checks that a destination takes `bytes` for whole early sections at this place.
pub(super) fn check(bytes: &[u8], place: Place, footers: bool) -> Result<(), StreamErrorKind> {
    let mut left = bytes;
    while !left.is_empty() {
        left = behind_section(left, place, footers)?;
    }
    Ok(())
}

/// What of `bytes` is behind its first section.
pub(super) fn behind_section(
    bytes: &[u8],
    place: Place,
    footers: bool,
) -> Result<&[u8], StreamErrorKind> {
    const WRONG: StreamErrorKind = StreamErrorKind::Misuse(
        "the early state is not made of whole FULL sections, or the body of one has the end of a \
         section in it",
    );
    if let (Place::InRam(_), Some(id)) = (place, bytes.get(1..FOOTER_BYTES)) {
        let id = id.iter().fold(0, |id, &byte| id << 8 | u32::from(byte));
        if let Some(rest) = bytes.strip_prefix(&no_bitmaps(id, 0, footers)[..]) {
            return Ok(rest);
        }
    }
    if bytes.first() != Some(&section::FULL) || !footers {
        return Err(WRONG);
    }
    // What will come behind the last one.
    let next = match place {
        Place::BeforeStart => b"\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04".to_vec(),
        Place::InRam(id) => [&[section::PART], &id.to_be_bytes()[..]].concat(),
    };
    let mut section = EarlySection::new(place);
    let ended = match section.push(bytes)? {
        Some(ended) => Some(ended),
        None => section.push(&next)?,
    };
    let length = ended.map(|ended| ended.section.len()).filter(|&length| length <= bytes.len());
    length.map(|length| &bytes[length..]).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU sends it for a virtio-mem device.
    fn section(body: &[u8]) -> Vec<u8> {
        let head = b"\x04\0\0\0\x26\x0evirtio-mem-dev\0\0\0\0\0\0\0\x01";
        [&head[..], body, b"\x7e\0\0\0\x26"].concat()
    }

    const START: &[u8] = b"\x01\0\0\0\x01\x03ram\0\0\0\0\0\0\0\x04";

    /// The length of the section that `bytes` begin with, fed in pieces.
    fn length(bytes: &[u8], place: Place, size: usize) -> Result<Option<usize>, StreamErrorKind> {
        let (mut section, mut before) = (EarlySection::new(place), 0);
        for piece in bytes.chunks(size) {
            if let Some(ended) = section.push(piece)? {
                let come = [&ended.section[..], &ended.behind].concat();
                assert_eq!(come, bytes[..before + ended.taken]);
                assert!(ended.taken == 0 || ended.behind.is_empty());
                return Ok(Some(ended.section.len()));
            }
            before += piece.len();
        }
        Ok(None)
    }

    #[test]
    fn a_section_ends_at_the_footer_that_something_follows_however_it_is_split() {
        let in_ram = Place::InRam(1);
        let section = section(b"\x7e\0\0\0\x26\x01\x02\x7e\0\0\0\x27\x04\x08\x00");
        let part = b"\x02\0\0\0\x01".as_slice();
        let command = b"\x08\0\x02\0\x04".as_slice();
        for (next, place) in [
            (START, Place::BeforeStart),
            (&section, Place::BeforeStart),
            (command, Place::BeforeStart),
            (part, in_ram),
            (&section, in_ram),
            (command, in_ram),
        ] {
            let bytes = [&section[..], next].concat();
            for size in 1..=bytes.len() {
                assert_eq!(length(&bytes, place, size), Ok(Some(section.len())), "{size}");
            }
        }
        // A PART of another section, and before START any.
        for (next, place) in
            [(part, Place::BeforeStart), (b"\x02\0\0\0\x02", in_ram), (b"\x08\0\x0c\0\0", in_ram)]
        {
            assert_eq!(length(&[&section[..], next].concat(), place, 1), Ok(None));
        }
    }

    #[test]
    fn a_section_ends_there_wherever_its_end_is_in_the_pieces_in_which_it_is_looked_for() {
        let near = PIECE - 60..PIECE + 10;
        for body in near.step_by(if cfg!(miri) { 13 } else { 1 }) {
            let section = section(&vec![0x7e; body]);
            let bytes = [&section[..], START, &[0; 3 * PIECE]].concat();
            for size in [bytes.len(), PIECE - 1, PIECE + 1, 7] {
                assert_eq!(length(&bytes, Place::BeforeStart, size), Ok(Some(section.len())));
            }
        }
    }

    #[test]
    fn a_section_in_a_stream_without_footers_is_refused_where_ram_starts() {
        let section = section(b"body");
        let bytes = [&section[..section.len() - FOOTER_BYTES], START].concat();
        for size in 1..=bytes.len() {
            assert_eq!(length(&bytes, Place::BeforeStart, size), Err(NO_FOOTERS), "{size}");
        }
    }

    #[test]
    fn what_has_no_head_of_a_section_is_refused() {
        for bytes in [
            &b"\x04\0\0\0\x01\0"[..],
            b"\x04\0\0\0\x01\x02a\0",
            b"\x04\0\0\0\x01\x01a\0\0\0\0\xff\0\0\0",
        ] {
            assert_eq!(length(bytes, Place::BeforeStart, 1), Err(NO_SECTION));
        }
    }

    #[test]
    fn only_what_a_destination_takes_for_whole_sections_may_be_sent() {
        let good = section(b"body");
        let two = [&good[..], &good].concat();
        for place in [Place::BeforeStart, Place::InRam(1)] {
            for bytes in [&[][..], &good, &two] {
                assert_eq!(check(bytes, place, true), Ok(()));
            }
            let holds_its_end = section(&[&good[..], START].concat());
            let cut = &good[..good.len() - 1];
            let more = [&two[..], b"x"].concat();
            for bytes in [&holds_its_end[..], cut, &more, b"\0"] {
                check(bytes, place, true).unwrap_err();
            }
            check(&good, place, false).unwrap_err();
        }
        for footers in [true, false] {
            let bitmaps = no_bitmaps(2, 0, footers);
            assert_eq!(check(&bitmaps, Place::InRam(1), footers), Ok(()));
            check(&bitmaps, Place::BeforeStart, footers).unwrap_err();
        }
    }
}
