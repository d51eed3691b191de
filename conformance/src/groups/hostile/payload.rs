//! Payloads that no encoder makes.

use super::scene::{CHANGED, PAGE_SIZE, Scene};
use crate::harness::{Context, Packet, Random, Subject, Verdict, ensure};

pub(crate) fn bytes_behind_the_payload_are_not_ignored(subject: &Subject) -> Verdict {
    let scene = Scene::of_small_packets(subject)?;
    let packet = &scene.packets[CHANGED];
    let noise = Random::new(60).bytes(100);
    // A stream may take one byte as the beginning of what comes next, and zeros as empty blocks.
    // But 0xff begins nothing in any format.
    let tails: [(&[u8], bool, bool); 5] = [
        (&[0xff], true, false),
        (&[0xff; 64], true, true),
        (&[0], false, false),
        (&[0; 64], false, false),
        (&noise, true, false),
    ];
    for part in packet.parts(PAGE_SIZE) {
        for (tail, refused, at_once) in tails {
            let part_bytes = &packet.payload[part.range.clone()];
            let longer = packet.with_part(&part, &[part_bytes, tail].concat());
            let bytes = tail.len();
            let place = || format!("{bytes} bytes ({:#04x} …) behind {}", tail[0], part.name);
            let attempt = scene.attempt_with(&longer).context(place)?;
            ensure!(!refused || attempt.error.is_some(), "{} were ignored", place());
            ensure!(!at_once || attempt.refused_at_once(), "{} were taken", place());
            if attempt.error.is_none() {
                scene.exact(&attempt).context(place)?;
            }
        }
    }
    Ok(())
}

pub(crate) fn a_payload_of_noise_is_refused(subject: &Subject) -> Verdict {
    let scene = Scene::of_small_packets(subject)?;
    let packet = &scene.packets[CHANGED];
    for part in packet.parts(PAGE_SIZE) {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            // In a terse format, fewer bytes may well be a page.
            let size = 16 + random.below(485);
            let noise = packet.with_part(&part, &random.bytes(size));
            let place = || format!("{size} bytes of noise (seed {seed}) for {}", part.name);
            let attempt = scene.attempt_with(&noise).context(place)?;
            ensure!(attempt.refused_at_once(), "{} were taken", place());
        }
    }
    Ok(())
}

pub(crate) fn a_changed_word_of_payload_gives_an_error_or_a_whole_packet(
    subject: &Subject,
) -> Verdict {
    let scene = Scene::of_small_packets(subject)?;
    let packet = &scene.packets[CHANGED];
    for at in interesting_places(packet.payload.len()) {
        for (what, word) in words(&packet.payload[at..]) {
            let mut changed = packet.clone();
            changed.payload[at..at + word.len()].copy_from_slice(&word);
            scene
                .attempt_with(&changed)
                .context(|| format!("{what} at byte {at} of the payload"))?;
        }
    }
    Ok(())
}

/// Both ends of a payload of `bytes` bytes, where lengths and headers stand, and places between.
fn interesting_places(bytes: usize) -> Vec<usize> {
    let mut random = Random::new(61);
    let between = (0..48).map(|_| random.below(bytes));
    let mut places: Vec<_> =
        (0..bytes.min(48)).chain(between).chain(bytes.saturating_sub(16)..bytes).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// Lengths that a decoder must not believe: some that it has no memory for, and a page's.
const LENGTHS: [u32; 7] = [0, 4096, 4097, 1 << 28, 1 << 30, i32::MAX as u32, u32::MAX];

/// What a length at the start of `bytes` could be turned into, in either byte order.
fn words(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut words =
        vec![("the byte 0".to_owned(), vec![0]), ("the byte 0xff".to_owned(), vec![0xff])];
    if let Some(&word) = bytes.first_chunk() {
        let (big, little) = (u32::from_be_bytes(word), u32::from_le_bytes(word));
        let lengths = |length: u32| {
            LENGTHS.into_iter().chain([length.wrapping_add(1), length.wrapping_sub(1)])
        };
        words.extend(
            lengths(big).map(|it| (format!("the word {it:#x}"), it.to_be_bytes().to_vec())),
        );
        words.extend(
            lengths(little)
                .map(|it| (format!("the little-endian word {it:#x}"), it.to_le_bytes().to_vec())),
        );
    }
    words
}

pub(crate) fn a_flipped_bit_gives_an_error_or_a_whole_packet(subject: &Subject) -> Verdict {
    const FLIPS: usize = 1500;
    let scene = Scene::of_small_packets(subject)?;
    let mut random = Random::new(62);
    let packet = &scene.packets[CHANGED];
    let header_bytes = packet.header.len();
    let places = interesting_places(packet.payload.len());
    for flip in 0..FLIPS {
        // Half of them in what the header says; of the rest, half where lengths and headers stand.
        let in_header = flip % 2 == 0;
        let at = match flip % 4 {
            0 | 2 => random.below(Packet::OFFSETS + 64),
            1 => random.below(packet.payload.len().min(4096)),
            _ => places[random.below(places.len())],
        };
        let mut changed = packet.clone();
        let bytes = if in_header { &mut changed.header } else { &mut changed.payload };
        let bit = random.below(8);
        bytes[at] ^= 1 << bit;
        let byte = if in_header { at } else { header_bytes + at };
        scene
            .attempt_with(&changed)
            .and_then(|attempt| if in_header { scene.exact(&attempt) } else { Ok(()) })
            .context(|| format!("bit {bit} of byte {byte} of a packet flipped"))?;
    }
    Ok(())
}
