//! The barrier between the main channel and the multifd channels of a receiving side.

use multifd_core::wire::RamPacket;

use crate::error::Error;

/// What the main channel waits for at a sync.
pub(crate) const AT_SYNC: &str = "every channel at its SYNC";

/// How far the channels and the main channel are, so that no page of a round overtakes one of the
/// round before.
///
/// ```text
/// a channel    admit … admit ─→ at_sync ─→ wait until it has passed ─→ admit …    ended
/// main channel                     pass, when all are at their SYNC ─→ … complete
/// ```
///
/// Whether a migration is whole depends on what its connections carry, and never on which of their
/// threads runs first: see the tests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Barrier {
    channels: Vec<Channel>,
    /// A sync has been passed.
    has_synced: bool,
    /// The main channel has said that all pages have been sent. What a channel brings now is too
    /// late.
    complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Channel {
    position: Position,
    /// It carries nothing more. Its position stays what it was: pages that came behind the last
    /// sync are an error, whether the channel has ended by then or not.
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Position {
    /// Nothing since the last sync.
    Idle,
    /// Pages, or a SYNC that is still to be noted, since the last sync.
    Busy,
    /// At its SYNC, where it waits for the main channel.
    AtSync,
}

/// What a packet is to the barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Neither pages nor SYNC. QEMU before 9.0 may send such a packet behind the last SYNC, where
    /// that SYNC came in a packet with pages.
    Nothing,
    /// Pages, a SYNC, or both.
    Something,
}

impl From<&RamPacket<'_>> for Content {
    fn from(packet: &RamPacket<'_>) -> Self {
        if packet.pages.is_none() && !packet.is_sync() { Self::Nothing } else { Self::Something }
    }
}

impl Barrier {
    pub(crate) fn new(channels: u8) -> Self {
        let channel = Channel { position: Position::Idle, ended: false };
        Self { channels: vec![channel; channels.into()], has_synced: false, complete: false }
    }

    /// A packet has come on a channel; its pages are not in place yet, and must not be after an
    /// error.
    pub(crate) fn admit(&mut self, channel: u8, content: Content) -> Result<(), Error> {
        if content == Content::Nothing {
            return Ok(());
        }
        self.check(channel)?;
        self.channel(channel).position = Position::Busy;
        Ok(())
    }

    /// A channel is at its SYNC. It must not go on before it [`has_passed`](Self::has_passed).
    pub(crate) fn at_sync(&mut self, channel: u8) -> Result<(), Error> {
        self.check(channel)?;
        self.channel(channel).position = Position::AtSync;
        Ok(())
    }

    fn check(&mut self, channel: u8) -> Result<(), Error> {
        if self.complete {
            return Err(Error::AfterLastSync(channel));
        }
        match self.channel(channel).position {
            Position::AtSync => Err(Error::AheadOfSync(channel)),
            Position::Idle | Position::Busy => Ok(()),
        }
    }

    /// Whether all others have come to the SYNC that a channel is at.
    pub(crate) fn has_passed(&self, channel: u8) -> bool {
        self.channels[usize::from(channel)].position != Position::AtSync
    }

    /// A channel carries nothing more.
    pub(crate) fn ended(&mut self, channel: u8) {
        self.channel(channel).ended = true;
    }

    /// The main channel is at a sync: lets all channels go on if all are at theirs and nothing is wrong with
    /// what they have brought, as `check` says; `None` while one is not. A channel that has ended will never
    /// be.
    pub(crate) fn pass(
        &mut self,
        check: impl FnOnce() -> Result<(), Error>,
    ) -> Option<Result<(), Error>> {
        if let Some(number) = self.find(|channel| channel.ended && !channel.is_at_sync()) {
            return Some(Err(Error::EndedEarly(number)));
        }
        if !self.channels.iter().all(Channel::is_at_sync) {
            return None;
        }
        Some(check().map(|()| {
            self.channels.iter_mut().for_each(|channel| channel.position = Position::Idle);
            self.has_synced = true;
        }))
    }

    /// The channels that are not at their SYNC.
    pub(crate) fn behind(&self) -> Vec<u8> {
        (0..).zip(&self.channels).filter(|(_, own)| !own.is_at_sync()).map(|(own, _)| own).collect()
    }

    /// Whether a sync has been passed.
    pub(crate) fn has_synced(&self) -> bool {
        self.has_synced
    }

    /// The main channel has said that all pages have been sent.
    pub(crate) fn complete(&mut self) -> Result<(), Error> {
        match self.find(|channel| channel.position != Position::Idle) {
            Some(number) => Err(Error::AfterLastSync(number)),
            None => {
                self.complete = true;
                Ok(())
            }
        }
    }

    /// Whether the main channel has said that all pages have been sent.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.channels.iter().all(|channel| channel.ended)
    }

    fn channel(&mut self, number: u8) -> &mut Channel {
        &mut self.channels[usize::from(number)]
    }

    fn find(&self, is: impl Fn(&Channel) -> bool) -> Option<u8> {
        // The count fits: it came from a `u8`.
        self.channels.iter().position(is).map(|number| number as u8)
    }
}

impl Channel {
    fn is_at_sync(&self) -> bool {
        self.position == Position::AtSync
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What a channel carries.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Step {
        Pages,
        Empty,
        Sync,
        End,
    }

    /// How a migration ends: none of it is in an order of threads.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Verdict {
        Whole,
        EndedEarly(u8),
        AfterLastSync(u8),
        /// The main channel waits for a channel that is still open.
        Waits,
    }

    /// A migration of two channels, whose threads may run in any order.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Threads {
        barrier: Barrier,
        /// Steps that each channel has done, and whether it waits at its SYNC.
        channels: [(usize, bool); 2],
        /// Syncs that the main channel has passed.
        main: usize,
    }

    /// What one thread can do.
    enum Turn {
        /// Nothing: it waits, or is over.
        Nothing,
        Next(Threads),
        Refused(Error),
    }

    impl Threads {
        fn start() -> Self {
            Self { barrier: Barrier::new(2), channels: [(0, false); 2], main: 0 }
        }

        fn channel(&self, number: u8, steps: &[Step]) -> Turn {
            let mut next = self.clone();
            let (done, waits) = &mut next.channels[usize::from(number)];
            if *waits {
                *waits = !next.barrier.has_passed(number);
                return if *waits { Turn::Nothing } else { Turn::Next(next) };
            }
            let Some(step) = steps.get(*done) else { return Turn::Nothing };
            *done += 1;
            let result = match step {
                Step::Pages => next.barrier.admit(number, Content::Something),
                Step::Empty => next.barrier.admit(number, Content::Nothing),
                Step::Sync => {
                    let admitted = next.barrier.admit(number, Content::Something);
                    admitted.and_then(|()| {
                        *waits = true;
                        next.barrier.at_sync(number)
                    })
                }
                Step::End => {
                    next.barrier.ended(number);
                    Ok(())
                }
            };
            match result {
                Ok(()) => Turn::Next(next),
                Err(error) => Turn::Refused(error),
            }
        }

        /// The end of a channel that waits at its SYNC is noted before the others are there.
        fn end_at_sync(&self, number: u8, steps: &[Step]) -> Turn {
            let mut next = self.clone();
            let (done, waits) = &mut next.channels[usize::from(number)];
            if !*waits || steps.get(*done) != Some(&Step::End) {
                return Turn::Nothing;
            }
            *done += 1;
            next.barrier.ended(number);
            Turn::Next(next)
        }

        fn main(&self, syncs: usize) -> Turn {
            let mut next = self.clone();
            let result = match self.main.cmp(&syncs) {
                std::cmp::Ordering::Less => match next.barrier.pass(|| Ok(())) {
                    None => return Turn::Nothing,
                    Some(result) => result,
                },
                std::cmp::Ordering::Equal => next.barrier.complete(),
                std::cmp::Ordering::Greater => return Turn::Nothing,
            };
            next.main += 1;
            match result {
                Ok(()) => Turn::Next(next),
                Err(error) => Turn::Refused(error),
            }
        }

        /// Follows every order of the threads from here on.
        fn walk(
            self,
            channels: [&[Step]; 2],
            syncs: usize,
            seen: &mut HashSet<Self>,
            verdicts: &mut HashSet<Verdict>,
        ) {
            if !seen.insert(self.clone()) {
                return;
            }
            self.nobody_overtakes();
            let turns = [
                self.channel(0, channels[0]),
                self.channel(1, channels[1]),
                self.end_at_sync(0, channels[0]),
                self.end_at_sync(1, channels[1]),
                self.main(syncs),
            ];
            let mut over = true;
            for turn in turns {
                over &= matches!(turn, Turn::Nothing);
                match turn {
                    Turn::Nothing => {}
                    Turn::Next(next) => next.walk(channels, syncs, seen, verdicts),
                    Turn::Refused(Error::EndedEarly(number)) => {
                        verdicts.insert(Verdict::EndedEarly(number));
                    }
                    Turn::Refused(Error::AfterLastSync(number)) => {
                        verdicts.insert(Verdict::AfterLastSync(number));
                    }
                    Turn::Refused(error) => panic!("{error}"),
                }
            }
            if over {
                let whole = self.main == syncs + 1;
                assert!(
                    !whole
                        || channels.iter().any(|steps| !steps.contains(&Step::End))
                        || self.barrier.all_ended()
                );
                verdicts.insert(if whole { Verdict::Whole } else { Verdict::Waits });
            }
        }

        /// While a channel's SYNC is pending, and when all is over, whatever it brings is refused.
        fn nobody_overtakes(&self) {
            for number in 0..2 {
                let waits = self.channels[usize::from(number)].1;
                if waits && !self.barrier.has_passed(number) {
                    let ahead = |result| matches!(result, Err(Error::AheadOfSync(_)));
                    assert!(ahead(self.barrier.clone().admit(number, Content::Something)));
                    assert!(ahead(self.barrier.clone().at_sync(number)));
                    assert!(self.barrier.clone().admit(number, Content::Nothing).is_ok());
                }
            }
        }
    }

    /// Every channel that carries up to `most` packets, ended or still open.
    fn scripts(most: usize) -> Vec<Vec<Step>> {
        let mut all = vec![vec![]];
        let mut last = all.clone();
        for _ in 0..most {
            last = last
                .iter()
                .flat_map(|script: &Vec<Step>| {
                    [Step::Pages, Step::Empty, Step::Sync].map(|step| {
                        let mut longer = script.clone();
                        longer.push(step);
                        longer
                    })
                })
                .collect();
            all.extend_from_slice(&last);
        }
        let ended = all.iter().map(|script| [&script[..], &[Step::End]].concat());
        let ended: Vec<_> = ended.collect();
        all.extend(ended);
        all
    }

    /// What is wrong with one channel, from its bytes alone.
    fn fault(number: u8, steps: &[Step], syncs: usize) -> Option<Verdict> {
        let sent = steps.iter().filter(|step| **step == Step::Sync).count();
        let behind_last = steps.iter().rev().take_while(|step| **step != Step::Sync);
        let pages_behind_last = behind_last.filter(|step| **step == Step::Pages).count() > 0;
        if sent < syncs {
            let ended = steps.last() == Some(&Step::End);
            Some(if ended { Verdict::EndedEarly(number) } else { Verdict::Waits })
        } else if sent > syncs || pages_behind_last {
            Some(Verdict::AfterLastSync(number))
        } else {
            None
        }
    }

    #[test]
    fn the_same_bytes_have_the_same_verdict_in_whatever_order_the_threads_run() {
        let scripts = scripts(3);
        let mut whole = 0;
        for left in &scripts {
            for right in &scripts {
                for syncs in 0..=2 {
                    let mut verdicts = HashSet::new();
                    let channels = [&left[..], &right[..]];
                    Threads::start().walk(channels, syncs, &mut HashSet::new(), &mut verdicts);
                    let faults: HashSet<_> = [fault(0, left, syncs), fault(1, right, syncs)]
                        .into_iter()
                        .flatten()
                        .collect();
                    if faults.is_empty() {
                        assert_eq!(
                            verdicts,
                            HashSet::from([Verdict::Whole]),
                            "{channels:?}, {syncs}"
                        );
                        whole += 1;
                    } else {
                        // Of two faults either may be found first.
                        assert!(verdicts.is_subset(&faults), "{channels:?}, {syncs}: {verdicts:?}");
                    }
                }
            }
        }
        assert!(whole > 100, "{whole}");
    }

    #[test]
    fn a_sync_is_passed_with_the_first_and_all_have_ended_with_the_last() {
        let mut barrier = Barrier::new(2);
        for sync in 0..3 {
            assert_eq!(barrier.has_synced(), sync > 0);
            for number in [0, 1] {
                assert!(barrier.pass(|| Ok(())).is_none());
                barrier.at_sync(number).unwrap();
            }
            let refused = barrier.pass(|| Err(Error::SecondMain)).unwrap();
            assert!(matches!(refused, Err(Error::SecondMain)));
            assert!(!barrier.has_passed(0) && !barrier.has_passed(1), "nobody goes on");
            barrier.pass(|| Ok(())).unwrap().unwrap();
            assert!(barrier.has_synced() && barrier.has_passed(0));
        }
        for number in [1, 0] {
            assert!(!barrier.all_ended());
            barrier.ended(number);
        }
        assert!(barrier.all_ended());
    }

    #[test]
    fn those_that_are_not_at_their_sync_are_behind_and_all_is_sent_when_that_was_said() {
        let mut barrier = Barrier::new(3);
        assert_eq!(barrier.behind(), [0, 1, 2]);
        barrier.admit(1, Content::Something).unwrap();
        barrier.at_sync(0).unwrap();
        assert_eq!(barrier.behind(), [1, 2]);
        barrier.at_sync(1).unwrap();
        barrier.at_sync(2).unwrap();
        assert!(barrier.behind().is_empty());
        assert!(barrier.complete().is_err() && !barrier.is_complete());
        barrier.pass(|| Ok(())).unwrap().unwrap();
        assert_eq!(barrier.behind(), [0, 1, 2]);
        assert!(!barrier.is_complete());
        barrier.complete().unwrap();
        assert!(barrier.is_complete());
    }

    #[test]
    fn a_packet_is_something_with_pages_or_a_sync_and_nothing_without_both() {
        use multifd_core::wire::{BlockName, PacketFlags, RamPacketBuilder};
        use multifd_core::{Compression, PageSize};

        let content = |bytes: &[u8]| {
            Content::from(&RamPacket::parse(bytes, PageSize::Kib4).expect("a packet"))
        };
        let mut builder = RamPacketBuilder::new(PageSize::Kib4);
        let name = BlockName::new("ram").expect("a name");
        let mut pages = builder.pages(Compression::None, 1, &name, [&[], &[0x1000]], 0).to_vec();
        assert_eq!(content(&pages), Content::Something);
        pages[11] |= PacketFlags::SYNC.bits() as u8;
        assert_eq!(content(&pages), Content::Something);
        let mut sync = builder.sync(2).to_vec();
        assert_eq!(content(&sync), Content::Something);
        sync[11] = 0;
        assert_eq!(content(&sync), Content::Nothing);
    }
}
