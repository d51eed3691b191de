//! Several channels at once, each with its own state, into one memory.

use std::sync::Arc;
use std::thread;

use multifd_core::PageSize;
use multifd_core::ram::Ram;

use crate::harness::{
    Content, Context, Pair, Random, STALE, Setup, Stop, Subject, Verdict, ensure, first_difference,
    mixed, offsets, ram, read,
};

const K4: PageSize = PageSize::Kib4;
const PAGES: usize = 128;

/// A channel of its own out of memory of its own, into `destination`.
fn channel(subject: &Subject, number: u8, memory: &[u8], destination: &Arc<Ram>) -> Verdict<Pair> {
    let setup = Setup { channel: number, ..Setup::default() };
    let sender = subject.sender(&ram(K4, memory)?, setup)?;
    let receiver = subject.receiver(destination, number)?;
    Ok(Pair { sender, receiver })
}

fn stale_ram() -> Verdict<Arc<Ram>> {
    ram(K4, &vec![STALE; PAGES * K4.bytes()])
}

pub(crate) fn two_channels_that_interleave_do_not_share_state(subject: &Subject) -> Verdict {
    let memories = [mixed(110, PAGES, K4.bytes()), mixed(111, PAGES, K4.bytes())];
    let mut channels = Vec::new();
    for (number, memory) in (0..).zip(&memories) {
        channels.push(channel(subject, number, memory, &stale_ram()?)?);
    }
    // The packets are made in turns and taken channel by channel.
    let mut streams = [Vec::new(), Vec::new()];
    for packet in offsets(K4, 0..PAGES).chunks(9) {
        for (channel, stream) in channels.iter_mut().zip(&mut streams) {
            stream.push(channel.sender.send(packet)?);
        }
    }
    for (channel, stream) in channels.iter_mut().zip(streams).rev() {
        for packet in stream {
            channel.receiver.receive(&packet)?;
        }
        channel.compare(&offsets(K4, 0..PAGES))?;
    }
    // And now both in turns.
    for packet in offsets(K4, (0..PAGES).rev()).chunks(5) {
        for channel in &mut channels {
            channel.carry(packet).context(|| "channels in turns".to_owned())?;
        }
    }
    channels.into_iter().try_for_each(Pair::finish)
}

pub(crate) fn a_channel_that_fails_or_ends_does_not_disturb_another(subject: &Subject) -> Verdict {
    let memory = mixed(112, PAGES, K4.bytes());
    let mut steady = channel(subject, 0, &memory, &stale_ram()?)?;
    for (turn, packet) in offsets(K4, 0..PAGES).chunks(6).enumerate() {
        steady.carry(packet)?;
        let mut other = channel(subject, 1, &memory, &stale_ram()?)?;
        other.carry(packet)?;
        if turn % 2 == 0 {
            other.finish()?;
            continue;
        }
        let mut bytes = other.sender.send(&offsets(K4, [3, 2, 1]))?;
        bytes.truncate(bytes.len() - 1);
        if other.receiver.try_receive(&mut &bytes[..])?.is_ok() {
            return Err(Stop::failed("a truncated packet was taken"));
        }
    }
    steady.finish()
}

pub(crate) fn two_channels_at_once_fill_one_memory(subject: &Subject) -> Verdict {
    let memory = mixed(113, PAGES, K4.bytes());
    let destination = stale_ram()?;
    at_once(|number| {
        let mut channel = channel(subject, number, &memory, &destination)?;
        let mut random = Random::new(number.into());
        // Every second page is this channel's, in many packets.
        let mut own = offsets(K4, (0..PAGES).filter(|page| page % 2 == usize::from(number)));
        for _ in 0..40 {
            random.shuffle(&mut own);
            let packets = 1 + random.below(own.len());
            own.chunks(packets).try_for_each(|packet| channel.carry(packet))?;
        }
        channel.finish()
    })?;
    let difference = first_difference(&memory, &read(&destination));
    ensure!(difference.is_none(), "the memory differs from byte {difference:?} on");
    Ok(())
}

pub(crate) fn two_channels_may_write_one_page_at_once(subject: &Subject) -> Verdict {
    let destination = stale_ram()?;
    at_once(|number| {
        let memory = Content::Text.pages(114 + u64::from(number), PAGES, K4.bytes());
        let mut channel = channel(subject, number, &memory, &destination)?;
        let mut all = offsets(K4, 0..PAGES);
        for turn in 0..100 {
            Random::new(turn).shuffle(&mut all);
            // What the pages hold then is either channel's, or a bit of both.
            let packet = channel.sender.send(&all)?;
            channel.receiver.receive(&packet)?;
        }
        channel.finish()
    })?;
    let mut last = channel(subject, 2, &mixed(116, PAGES, K4.bytes()), &destination)?;
    last.carry(&offsets(K4, 0..PAGES)).context(|| "one channel after two".to_owned())?;
    last.finish()
}

/// Does the work of channel 0 and of channel 1 at the same time.
fn at_once(work: impl Fn(u8) -> Verdict + Sync) -> Verdict {
    let done = thread::scope(|scope| {
        let work = &work;
        let workers = [0, 1].map(|number| scope.spawn(move || work(number)));
        workers.map(thread::ScopedJoinHandle::join)
    });
    for (number, done) in done.into_iter().enumerate() {
        let verdict = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        verdict.context(|| format!("channel {number}"))?;
    }
    Ok(())
}
