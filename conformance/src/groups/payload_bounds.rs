//! Payloads of incompressible pages fit into a receiver's buffer.

use multifd_core::PageSize;

use crate::harness::{Content, Context, Packet, Pair, Setup, Subject, Verdict, ensure, offsets};

pub(crate) fn incompressible_pages_stay_within_the_bounds_at_every_level(
    subject: &Subject,
) -> Verdict {
    for page_size in PageSize::ALL {
        let page_count = page_size.page_count();
        let memory = Content::Noise.pages(20, page_count, page_size.bytes());
        for level in subject.levels() {
            let setup = Setup { level, ..Setup::default() };
            let mut pair = subject.pair(page_size, &memory, setup)?;
            for pages in [1, page_count] {
                carry_within_bounds(subject, &mut pair, &offsets(page_size, 0..pages))
                    .context(|| format!("level {level:?}, {pages} pages of {page_size}"))?;
            }
        }
    }
    Ok(())
}

pub(crate) fn incompressible_pages_after_compressible_ones_stay_within_the_bounds(
    subject: &Subject,
) -> Verdict {
    for page_size in PageSize::ALL {
        let half = page_size.page_count() / 2;
        let mut memory = Content::Text.pages(21, half, page_size.bytes());
        memory.extend(Content::Noise.pages(22, half, page_size.bytes()));
        let mut pair = subject.pair(page_size, &memory, Setup::default())?;
        for pages in [0..half, half..2 * half, 0..2 * half, half..2 * half] {
            let place = format!("pages {pages:?} of {page_size}");
            carry_within_bounds(subject, &mut pair, &offsets(page_size, pages))
                .context(|| place)?;
        }
    }
    Ok(())
}

fn carry_within_bounds(subject: &Subject, pair: &mut Pair, offsets: &[u64]) -> Verdict {
    let page_size = pair.sender.ram.page_size();
    let bytes = pair.sender.send(offsets)?;
    let made = Packet::of(&bytes, page_size).payload.len();
    let (least, most) = subject.compression().payload_bounds(offsets.len(), page_size.bytes());
    ensure!((least..=most).contains(&made), "{made} bytes of payload, not {least} to {most}");
    pair.receiver.receive(&bytes)?;
    pair.compare(offsets)
}
