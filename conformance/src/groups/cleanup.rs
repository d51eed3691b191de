//! The end of a channel, in order or after an error.

use std::sync::Arc;

use multifd_core::channel::ChannelCounters;
use multifd_core::{MethodStats, PageSize};

use crate::harness::{
    Context, Packet, Pair, Random, Receiver, Setup, Stop, Subject, Verdict, ensure, mixed, offsets,
    ram,
};

const K4: PageSize = PageSize::Kib4;
const PAGES: usize = 32;

/// How often a channel ends before a new one must still work.
const TIMES: usize = 20;

pub(crate) fn a_channel_ends_cleanly_and_says_what_it_counted(subject: &Subject) -> Verdict {
    for _ in 0..TIMES {
        let mut pair = new_pair(subject)?;
        let counters = [&pair.sender.counters, &pair.receiver.counters].map(Arc::clone);
        let mut counted = counters.each_ref().map(|side| side.method_stats());
        for packet in offsets(K4, 0..PAGES).chunks(12) {
            pair.carry(packet)?;
            for (side, counted) in counters.iter().zip(&mut counted) {
                goes_on(side, counted)?;
            }
        }
        pair.finish()?;
        for (side, counted) in counters.iter().zip(&mut counted) {
            goes_on(side, counted).context(|| "at the end".to_owned())?;
        }
    }
    Ok(())
}

/// Whether the codec counts by the same names as before, and nothing has become less.
fn goes_on(counters: &ChannelCounters, counted: &mut MethodStats) -> Verdict {
    let now = counters.method_stats();
    let right = now.iter().count() == counted.iter().count()
        && now.iter().zip(counted.iter()).all(|(now, old)| now.0 == old.0 && now.1 >= old.1);
    ensure!(right, "the codec counted {counted:?}, and then {now:?}");
    *counted = now;
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
    let parts = good.parts(K4);
    let part = &parts[seed as usize % parts.len()];
    let bad = good.with_part(part, &Random::new(seed).bytes(200));
    match receiver.try_receive(&mut &bad.bytes()[..])? {
        Err(_) => Ok(receiver),
        Ok(_) => Err(Stop::failed(format!("200 bytes of noise were taken for {}", part.name))),
    }
}

pub(crate) fn a_sender_whose_stream_failed_can_be_cleaned_up_and_set_up_anew(
    subject: &Subject,
) -> Verdict {
    let source = ram(K4, &mixed(101, PAGES, K4.bytes()))?;
    // Before anything is written of a packet, within its header, behind it, and in the payload.
    for written in [0, 1, 1344, 1345, 1444] {
        let mut sender = subject.sender(&source, Setup::default())?;
        sender.fail_after(written, &offsets(K4, 0..PAGES))?;
        sender.finish().context(|| "cleaning up after an error".to_owned())?;
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
