//! What is sent comes back, of every shape and content.

use multifd_core::PageSize;
use multifd_core::channel::Received;
use multifd_core::wire::{PacketHeader, RamPacketBuilder};

use crate::harness::{
    Content, Context, Pair, Random, STALE, Setup, Subject, Verdict, ensure, first_difference,
    mixed, offsets, ram, read,
};

const K4: PageSize = PageSize::Kib4;

pub(crate) fn packets_of_every_number_of_pages_come_back(subject: &Subject) -> Verdict {
    for page_size in PageSize::ALL {
        let page_count = page_size.page_count();
        let memory = mixed(1, page_count, page_size.bytes());
        let mut pair = subject.pair(page_size, &memory, Setup::default())?;
        for pages in 1..=page_count {
            let sent = pair.carry(&offsets(page_size, page_count - pages..page_count));
            sent.context(|| format!("{pages} pages of {page_size}"))?;
        }
        pair.finish()?;
    }
    Ok(())
}

pub(crate) fn every_kind_of_content_comes_back_alone_and_mixed(subject: &Subject) -> Verdict {
    for page_size in PageSize::ALL {
        for detect_zero_pages in [true, false] {
            let setup = Setup { detect_zero_pages, ..Setup::default() };
            for kind in Content::ALL {
                let memory = kind.pages(2, page_size.page_count(), page_size.bytes());
                round_trip_of(subject, page_size, &memory, setup)
                    .context(|| format!("{kind:?}, pages of {page_size}"))?;
            }
            let memory = mixed(3, page_size.page_count(), page_size.bytes());
            round_trip_of(subject, page_size, &memory, setup)
                .context(|| format!("mixed content, pages of {page_size}"))?;
        }
    }
    Ok(())
}

pub(crate) fn every_level_comes_back(subject: &Subject) -> Verdict {
    for page_size in PageSize::ALL {
        let memory = mixed(4, page_size.page_count() / 2, page_size.bytes());
        for level in subject.levels() {
            let setup = Setup { level, ..Setup::default() };
            // The second packet repeats the first, which a level may make use of.
            round_trip_of(subject, page_size, &memory, setup)
                .context(|| format!("level {level:?}, pages of {page_size}"))?;
        }
    }
    Ok(())
}

/// One channel that sends all of `memory` as one packet, twice.
fn round_trip_of(subject: &Subject, page_size: PageSize, memory: &[u8], setup: Setup) -> Verdict {
    let all = offsets(page_size, 0..memory.len() / page_size.bytes());
    let mut pair = subject.pair(page_size, memory, setup)?;
    pair.carry(&all)?;
    pair.carry(&all)?;
    pair.finish()
}

pub(crate) fn pages_in_any_order_of_offsets_land_at_their_own(subject: &Subject) -> Verdict {
    for page_size in PageSize::ALL {
        let pages = 2 * page_size.page_count();
        let memory = mixed(5, pages, page_size.bytes());
        let mut pair = subject.pair(page_size, &memory, Setup::default())?;
        let mut all = offsets(page_size, (0..pages).rev());
        for order in 0..4 {
            for packet in all.chunks(page_size.page_count()) {
                pair.carry(packet).context(|| format!("order {order}, pages of {page_size}"))?;
            }
            Random::new(order).shuffle(&mut all);
        }
        ensure!(
            read(&pair.sender.ram) == read(&pair.receiver.ram),
            "a page arrived that was not sent at its offset"
        );
        pair.finish()?;
    }
    Ok(())
}

pub(crate) fn thousands_of_packets_on_one_stream_come_back(subject: &Subject) -> Verdict {
    const PAGES: usize = 256;
    let mut random = Random::new(6);
    let mut pair = subject.pair(K4, &mixed(7, PAGES, K4.bytes()), Setup::default())?;
    let mut pages: Vec<_> = (0..PAGES).collect();
    for packet in 0..4000 {
        random.shuffle(&mut pages[..16]);
        let first = random.below(PAGES - 16);
        let count = 1 + random.below(16);
        pair.carry(&offsets(K4, pages[..16].iter().map(|page| first + page % 16).take(count)))
            .context(|| format!("packet {packet} of the stream"))?;
        if packet % 500 == 0 {
            pair.sync()?;
            rewrite(&pair, packet as u64, PAGES);
        }
    }
    pair.finish()
}

/// The guest goes on: its pages hold something else.
fn rewrite(pair: &Pair, seed: u64, pages: usize) {
    pair.sender.ram.blocks()[0].write(0, &mixed(seed, pages, K4.bytes()));
}

pub(crate) fn repeats_across_packets_come_back(subject: &Subject) -> Verdict {
    // Noise that comes again after every distance that a window may have, and again at once.
    const PAGES: usize = 1024;
    let memory = Content::Noise.pages(8, PAGES, K4.bytes());
    for level in subject.some_levels() {
        let setup = Setup { level, ..Setup::default() };
        let mut pair = subject.pair(K4, &memory, setup)?;
        for distance in [1, 2, 7, 8, 9, 32, 256, 1024] {
            for round in 0..2 {
                for first in (0..distance).step_by(128) {
                    let packet = offsets(K4, first..(first + 128).min(distance));
                    pair.carry(&packet).context(|| {
                        format!("level {level:?}, {distance} pages of noise, time {round}")
                    })?;
                }
            }
        }
        pair.finish()?;
    }
    Ok(())
}

pub(crate) fn packets_without_payload_leave_the_stream_as_it_was(subject: &Subject) -> Verdict {
    for page_size in PageSize::ALL {
        let page_bytes = page_size.bytes();
        let empty = packet_without_pages(page_size);
        // Two pages of text and two that are zero.
        let mut memory = Content::Text.pages(9, 2, page_bytes);
        memory.extend(vec![0; 2 * page_bytes]);
        let mut pair = subject.pair(page_size, &memory, Setup::default())?;
        pair.sync()?;
        for _ in 0..3 {
            pair.carry(&offsets(page_size, [1, 0]))?;
            pair.carry(&offsets(page_size, [2, 3])).context(|| "zero pages alone".to_owned())?;
            pair.receiver.receive(&empty).context(|| "a packet without pages".to_owned())?;
            pair.carry(&offsets(page_size, [0, 2, 1, 3]))?;
            pair.sync()?;
            pair.sync().context(|| "a second SYNC at once".to_owned())?;
        }
        pair.finish()?;
    }
    Ok(())
}

/// A packet with neither pages nor SYNC. No sender here makes one, but QEMU 7.2 does.
fn packet_without_pages(page_size: PageSize) -> Vec<u8> {
    let mut packet = RamPacketBuilder::new(page_size).sync(0).to_vec();
    // The last byte of the flags, the only one that is not 0.
    packet[PacketHeader::BYTES - 1] = 0;
    packet
}

pub(crate) fn a_stream_that_arrives_in_pieces_comes_back(subject: &Subject) -> Verdict {
    let memory = mixed(10, 64, K4.bytes());
    let source = ram(K4, &memory)?;
    let setup = Setup::default();
    for piece in [1, 7, 1000] {
        let mut sender = subject.sender(&source, setup)?;
        let destination = ram(K4, &vec![STALE; memory.len()])?;
        let mut receiver = subject.receiver(&destination, setup.channel)?;
        receiver.piece = piece;
        for packet in offsets(K4, 0..64).chunks(24) {
            receiver
                .receive(&sender.send(packet)?)
                .context(|| format!("in pieces of {piece} bytes"))?;
        }
        let sync = sender.sync()?;
        let received = receiver.receive_as(Received::Sync, &sync);
        received.context(|| "receiving a SYNC".to_owned())?;
        let difference = first_difference(&memory, &read(&destination));
        ensure!(
            difference.is_none(),
            "in pieces of {piece} bytes, the memory differs from {difference:?} on"
        );
    }
    Ok(())
}
