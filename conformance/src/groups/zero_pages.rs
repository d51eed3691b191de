//! Zero pages, at their first and at later arrivals.

use std::sync::Arc;

use multifd_core::PageSize;
use multifd_core::ram::Ram;

use crate::harness::{
    Content, Context, Packet, STALE, Setup, Subject, Verdict, ensure, fresh_ram, offsets, page_of,
    ram,
};

pub(crate) fn the_first_arrival_of_a_zero_page_leaves_fresh_memory_untouched(
    subject: &Subject,
) -> Verdict {
    for page_size in PageSize::ALL {
        let destination = fresh_ram(page_size, 4)?;
        // A mark by which to see whether the page is written.
        destination.blocks()[0].write(0, &[STALE]);
        send_zero_pages(subject, &destination, &[0])?;
        let page = page_of(&destination, 0);
        ensure!(page[0] == STALE, "fresh memory was written for a zero page of {page_size}");
    }
    Ok(())
}

pub(crate) fn the_first_arrival_of_a_zero_page_clears_memory_that_is_not_fresh(
    subject: &Subject,
) -> Verdict {
    for page_size in PageSize::ALL {
        let destination = ram(page_size, &vec![STALE; 4 * page_size.bytes()])?;
        send_zero_pages(subject, &destination, &[3, 0])?;
        for page in 0..4 {
            let expected = if page == 0 || page == 3 { 0 } else { STALE };
            let found = page_of(&destination, offsets(page_size, [page])[0]);
            let right = found.iter().all(|&byte| byte == expected);
            ensure!(right, "page {page} of {page_size} is not all {expected:#04x}");
        }
    }
    Ok(())
}

pub(crate) fn a_later_arrival_of_a_zero_page_clears_the_page(subject: &Subject) -> Verdict {
    for page_size in PageSize::ALL {
        let source = ram(page_size, &Content::Text.pages(30, 4, page_size.bytes()))?;
        let destination = fresh_ram(page_size, 4)?;
        let setup = Setup::default();
        let mut sender = subject.sender(&source, setup)?;
        let mut receiver = subject.receiver(&destination, setup.channel)?;
        receiver.receive(&sender.send(&offsets(page_size, 0..4))?)?;
        source.blocks()[0].write(0, &vec![0; page_size.bytes()]);
        receiver.receive(&sender.send(&offsets(page_size, [2, 0]))?)?;
        for (page, offset) in offsets(page_size, 0..4).into_iter().enumerate() {
            let equal = page_of(&source, offset) == page_of(&destination, offset);
            ensure!(equal, "page {page} of {page_size} differs after page 0 became zero");
        }
    }
    Ok(())
}

pub(crate) fn a_packet_of_zero_pages_alone_has_no_payload(subject: &Subject) -> Verdict {
    for page_size in PageSize::ALL {
        let destination = ram(page_size, &vec![STALE; 4 * page_size.bytes()])?;
        let source = ram(page_size, &vec![0; 4 * page_size.bytes()])?;
        let setup = Setup::default();
        let mut sender = subject.sender(&source, setup)?;
        let mut receiver = subject.receiver(&destination, setup.channel)?;
        let bytes = sender.send(&offsets(page_size, [1, 2]))?;
        let packet = Packet::of(&bytes, page_size);
        let announced = [Packet::NORMAL_PAGES, Packet::ZERO_PAGES, Packet::PAYLOAD_BYTES]
            .map(|field| packet.word(field));
        ensure!(
            announced == [0, 2, 0] && packet.payload.is_empty(),
            "normal pages, zero pages and bytes of payload are {announced:?}, not 0, 2 and 0"
        );
        receiver.receive(&bytes)?;
    }
    Ok(())
}

pub(crate) fn zero_pages_sent_as_normal_pages_clear_the_memory(subject: &Subject) -> Verdict {
    let setup = Setup { detect_zero_pages: false, ..Setup::default() };
    for page_size in PageSize::ALL {
        for pages in [1, page_size.page_count()] {
            let memory = vec![0; pages * page_size.bytes()];
            let mut pair = subject.pair(page_size, &memory, setup)?;
            pair.carry(&offsets(page_size, 0..pages))
                .context(|| format!("{pages} pages of {page_size}"))?;
        }
    }
    Ok(())
}

/// Sends the pages with the numbers in `pages`, zero all, as one packet.
fn send_zero_pages(subject: &Subject, destination: &Arc<Ram>, pages: &[usize]) -> Verdict {
    let page_size = destination.page_size();
    let source = ram(page_size, &vec![0; 4 * page_size.bytes()])?;
    let setup = Setup::default();
    let mut sender = subject.sender(&source, setup)?;
    let mut receiver = subject.receiver(destination, setup.channel)?;
    receiver.receive(&sender.send(&offsets(page_size, pages.iter().copied()))?)
}
