//! Counts and sizes in the packet's header.

use super::scene::{CHANGED, Scene};
use crate::harness::{Context, Packet, Stop, Subject, Verdict};

/// What must become of a packet with a wrong count.
enum Answer {
    Refused,
    /// Taken, with every page as it was sent.
    Exact,
}
use Answer::{Exact, Refused};

/// The changed packet has 128 slots, 3 normal pages, 1 zero page.
const COUNTS: [(&str, usize, u32, Answer); 21] = [
    ("pages_alloc", Packet::PAGES_ALLOC, 0, Refused),
    ("pages_alloc", Packet::PAGES_ALLOC, 3, Refused),
    ("pages_alloc", Packet::PAGES_ALLOC, 4, Exact),
    ("pages_alloc", Packet::PAGES_ALLOC, 127, Exact),
    ("pages_alloc", Packet::PAGES_ALLOC, 129, Refused),
    ("pages_alloc", Packet::PAGES_ALLOC, u32::MAX, Refused),
    ("normal_pages", Packet::NORMAL_PAGES, 0, Refused),
    ("normal_pages", Packet::NORMAL_PAGES, 2, Refused),
    ("normal_pages", Packet::NORMAL_PAGES, 4, Refused),
    ("normal_pages", Packet::NORMAL_PAGES, 127, Refused),
    ("normal_pages", Packet::NORMAL_PAGES, 128, Refused),
    ("normal_pages", Packet::NORMAL_PAGES, 129, Refused),
    ("normal_pages", Packet::NORMAL_PAGES, u32::MAX, Refused),
    ("zero_pages", Packet::ZERO_PAGES, 0, Exact),
    ("zero_pages", Packet::ZERO_PAGES, 2, Exact),
    ("zero_pages", Packet::ZERO_PAGES, 126, Refused),
    ("zero_pages", Packet::ZERO_PAGES, u32::MAX, Refused),
    ("next_packet_size", Packet::PAYLOAD_BYTES, 0, Refused),
    ("next_packet_size", Packet::PAYLOAD_BYTES, 1 << 20, Refused),
    ("next_packet_size", Packet::PAYLOAD_BYTES, (1 << 20) + 1, Refused),
    ("next_packet_size", Packet::PAYLOAD_BYTES, u32::MAX, Refused),
];

pub(crate) fn counts_and_sizes_that_lie_are_refused(subject: &Subject) -> Verdict {
    let scene = Scene::of_small_packets(subject)?;
    let packet = &scene.packets[CHANGED];
    let size = packet.word(Packet::PAYLOAD_BYTES);
    let off_by_one =
        [size - 1, size + 1].map(|size| ("next_packet_size", Packet::PAYLOAD_BYTES, size, Refused));
    for (field, at, value, answer) in COUNTS.into_iter().chain(off_by_one) {
        let attempt = scene.attempt_with(&packet.with_word(at, value)).and_then(|attempt| {
            match (answer, &attempt.error) {
                (Exact, _) => scene.taken_exactly(&attempt),
                (Refused, Some(_)) => scene.exact(&attempt),
                (Refused, None) => Err(Stop::failed("the stream was taken without an error")),
            }
        });
        attempt.context(|| format!("{field} {value} instead of {}", packet.word(at)))?;
    }
    Ok(())
}
