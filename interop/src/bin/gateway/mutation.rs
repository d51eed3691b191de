//! Edits of a recording that follow from a seed.

use std::fmt::Write as _;

use crate::recording::{Field, Part, Recording};

/// A recording that somebody has tampered with, in one of its parts.
#[derive(Debug)]
pub(crate) struct Mutated {
    pub(crate) part: Part,
    pub(crate) wires: Vec<Vec<u8>>,
    /// What was done, in words.
    pub(crate) what: String,
}

/// How often a part is chosen. What decides what the rest means is chosen more often than its share of
/// the bytes, which is nearly all page data.
const WEIGHTS: [(Part, u64); 10] = [
    (Part::Header, 12),
    (Part::Command, 10),
    (Part::Blocks, 14),
    (Part::Words, 10),
    (Part::Initial, 10),
    (Part::Packet, 22),
    (Part::Offsets, 6),
    (Part::Payload, 8),
    (Part::DeviceState, 6),
    (Part::Description, 2),
];

/// The recording with one to three edits in one of its parts.
pub(crate) fn of(recording: &Recording, seed: u64) -> Mutated {
    let mut random = Random(seed);
    let part = part(&mut random);
    let fields: Vec<_> = recording.fields.iter().filter(|field| field.part == part).collect();
    let edits = if random.below(10) < 6 { 1 } else { 2 + random.below(2) };
    let mut chosen: Vec<&Field> =
        (0..edits).map(|_| fields[random.below(fields.len() as u64) as usize]).collect();
    // From the last on: what is in front keeps its place.
    chosen.sort_by_key(|field| std::cmp::Reverse((field.wire, field.bytes.start)));
    chosen.dedup_by_key(|field| (field.wire, field.bytes.start));
    let mut wires = recording.wires.clone();
    let mut what = String::new();
    for field in chosen {
        let done = edit(&mut wires[field.wire], field, &mut random);
        let wire =
            if field.wire == 0 { "main".to_owned() } else { format!("channel {}", field.wire - 1) };
        let (from, length) = (field.bytes.start, field.bytes.len());
        let separator = if what.is_empty() { "" } else { "; " };
        _ = write!(what, "{separator}{wire}, {length} bytes at {from}: {done}");
    }
    Mutated { part, wires, what }
}

fn part(random: &mut Random) -> Part {
    let all = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut left = random.below(all);
    for (part, weight) in WEIGHTS {
        if left < weight {
            return part;
        }
        left -= weight;
    }
    Part::Payload
}

/// Changes the bytes of a field. Returns how.
fn edit(bytes: &mut Vec<u8>, field: &Field, random: &mut Random) -> String {
    let (from, to) = (field.bytes.start, field.bytes.end);
    let length = to - from;
    let at = from + random.below(length as u64) as usize;
    match random.below(if length <= 8 { 12 } else { 8 }) {
        0 => {
            let bit = random.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        1 => {
            bytes[at] = random.next() as u8;
            format!("byte {at} is {:#04x}", bytes[at])
        }
        2 => {
            for byte in &mut bytes[from..to] {
                *byte = random.next() as u8;
            }
            "noise".to_owned()
        }
        3 => {
            let fill = if random.below(2) == 0 { 0 } else { 0xff };
            bytes[from..to].fill(fill);
            format!("all {fill:#04x}")
        }
        4 => {
            let more: Vec<_> = (0..1 + random.below(8)).map(|_| random.next() as u8).collect();
            let count = more.len();
            bytes.splice(at..at, more);
            format!("{count} bytes more at {at}")
        }
        5 => {
            let count = 1 + random.below((to - at) as u64) as usize;
            bytes.drain(at..at + count);
            format!("{count} bytes at {at} left out")
        }
        6 => {
            let again = bytes[from..to].to_vec();
            bytes.splice(to..to, again);
            "twice".to_owned()
        }
        7 => {
            bytes.truncate(at);
            format!("the end at {at}")
        }
        _ => number(&mut bytes[from..to], random),
    }
}

/// Makes a big-endian number another that programs have trouble with.
fn number(bytes: &mut [u8], random: &mut Random) -> String {
    let bits = 8 * bytes.len() as u32;
    let most = u64::MAX >> (64 - bits);
    let now = bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    let new = match random.below(10) {
        0 => now.wrapping_add(1),
        1 => now.wrapping_sub(1),
        2 => most,
        3 => most >> 1,
        4 => (most >> 1) + 1,
        5 => 0,
        6 => now.wrapping_mul(2),
        7 => 1 << random.below(u64::from(bits)),
        8 => random.below(256),
        _ => now.wrapping_add(4096),
    } & most;
    let count = bytes.len();
    bytes.copy_from_slice(&new.to_be_bytes()[8 - count..]);
    format!("{new:#x} in place of {now:#x}")
}

/// Splitmix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        let fields =
            [0..4, 4..8, 8..1032].map(|bytes| Field { part: Part::Packet, wire: 1, bytes });
        let of = |part| fields.iter().cloned().map(move |field| Field { part, ..field });
        let fields = WEIGHTS.iter().flat_map(|&(part, _)| of(part)).collect();
        Recording { codec: "none", wires: vec![vec![7; 9], vec![7; 2000]], fields }
    }

    #[test]
    fn the_same_seed_makes_the_same_edits_and_other_seeds_make_others() {
        let recording = recording();
        let of = |seed| of(&recording, seed);
        assert_eq!(of(3).wires, of(3).wires);
        let different = (0..100).filter(|&seed| of(seed).wires != of(seed + 1).wires).count();
        assert!(different > 90, "{different}");
    }

    #[test]
    fn edits_change_something_and_every_part_is_chosen() {
        let recording = recording();
        let all: Vec<_> = (0..1000).map(|seed| of(&recording, seed)).collect();
        assert!(all.iter().filter(|mutated| mutated.wires != recording.wires).count() > 900);
        for (part, _) in WEIGHTS {
            assert!(all.iter().any(|mutated| mutated.part == part), "{part:?}");
        }
    }
}
