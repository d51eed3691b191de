//! The end of a channel, in order or after an error.

use multifd_core::io::Blocking;
use multifd_core::ram::PageBatch;
use multifd_core::{ErrorKind, PageSize};
use pollster::block_on;

use crate::harness::{
    Context, FailingWriter, Packet, Pair, Random, Receiver, Setup, Stop, Subject, Verdict, ensure,
    mixed, offsets, ram,
};

const K4: PageSize = PageSize::Kib4;
const PAGES: usize = 32;

/// How often a channel ends before a new one must still work.
const TIMES: usize = 20;

pub(crate) fn a_channel_ends_cleanly_and_says_what_it_counted(subject: &Subject) -> Verdict {
    for _ in 0..TIMES {
        work(subject)?;
    }
    Ok(())
}

/// Sets up a channel, sends a few packets, and ends it.
fn work(subject: &Subject) -> Verdict {
    let mut pair = new_pair(subject)?;
    for packet in offsets(K4, 0..PAGES).chunks(12) {
        pair.carry(packet)?;
    }
    pair.finish()
}

fn new_pair(subject: &Subject) -> Verdict<Pair> {
    subject.pair(K4, &mixed(100, PAGES, K4.bytes()), Setup::default())
}

pub(crate) fn a_receiver_that_failed_can_be_cleaned_up_and_set_up_anew(
    subject: &Subject,
) -> Verdict {
    for time in 0..TIMES {
        let receiver = failed_receiver(subject, time as u64)?;
        receiver.finish().context(|| "cleaning up after an error".to_owned())?;
        work(subject).context(|| "on a new channel after an error".to_owned())?;
    }
    Ok(())
}

pub(crate) fn a_receiver_that_failed_can_be_dropped_and_set_up_anew(subject: &Subject) -> Verdict {
    for time in 0..TIMES {
        drop(failed_receiver(subject, time as u64)?);
        work(subject).context(|| "on a new channel after an error".to_owned())?;
    }
    Ok(())
}

/// A receiver that has taken a good packet and refused a bad one.
fn failed_receiver(subject: &Subject, seed: u64) -> Verdict<Receiver> {
    let Pair { mut sender, mut receiver } = new_pair(subject)?;
    receiver.receive(&sender.send(&offsets(K4, 0..8))?)?;
    let good = Packet::of(&sender.send(&offsets(K4, 8..PAGES))?, K4);
    let bad = good.with_payload(&Random::new(seed).bytes(200));
    match receiver.try_receive(&bad.bytes()) {
        Err(_) => Ok(receiver),
        Ok(_) => Err(Stop::failed("200 bytes of noise were taken for pages")),
    }
}

pub(crate) fn a_sender_whose_stream_failed_can_be_cleaned_up_and_set_up_anew(
    subject: &Subject,
) -> Verdict {
    /// The initial packet and a packet's header.
    const HEADERS: usize = 64 + 1344;

    let source = ram(K4, &mixed(101, PAGES, K4.bytes()))?;
    let batch = PageBatch::new(source.blocks()[0].clone(), K4, offsets(K4, 0..PAGES))
        .map_err(|error| Stop::failed(error.to_string()))?;
    let setup = Setup::default();
    for left in [64, 65, HEADERS, HEADERS + 1, HEADERS + 100] {
        let writer = Blocking::new(FailingWriter { left });
        let opened = subject.open(writer, K4, setup)?;
        let mut channel = opened.context(|| "setting up the sending side".to_owned())?;
        let Err(error) = block_on(channel.send_pages(&batch)) else {
            return Err(Stop::failed(format!(
                "no error on a stream that fails after {left} bytes"
            )));
        };
        let place = error.place();
        ensure!(matches!(error.kind(), ErrorKind::Io { .. }), "not a failure of IO: {error}");
        ensure!(
            place.channel == Some(setup.channel) && place.packet_num.is_some(),
            "the error does not say where: {error}"
        );
        block_on(channel.finish()).context(|| "cleaning up after an error".to_owned())?;
        work(subject).context(|| "on a new channel after an error".to_owned())?;
    }
    Ok(())
}

pub(crate) fn a_channel_that_was_never_used_ends_cleanly(subject: &Subject) -> Verdict {
    for page_size in PageSize::ALL {
        let memory = mixed(102, 4, page_size.bytes());
        subject.pair(page_size, &memory, Setup::default())?.finish()?;
        drop(subject.pair(page_size, &memory, Setup::default())?);
    }
    work(subject)
}
