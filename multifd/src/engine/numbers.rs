//! Whether every packet has come that the source has numbered.

use std::collections::BTreeMap;

use multifd_core::wire::RamPacket;

/// The packet numbers of all channels together.
///
/// A source has one counter for all its channels, from 0 on (some say 1), and the numbers of a channel
/// only grow. So a number that is not here when every channel is past it was sent on a channel that is
/// not here, and its pages are lost. QEMU before 9.0 leaves out one number for each SYNC that comes in a
/// packet with pages; its packets with neither say nothing, and their numbers are not looked at.
///
/// A channel that is lost has a SYNC for each sync of the main channel, and there are two syncs at least:
/// so it leaves a gap, but where these two are all it has, and are the first number of all and the last. No
/// page is lost then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Numbers {
    /// The latest number of each channel.
    latest: Vec<Option<u64>>,
    /// Every number below has been looked for. Number 0 is apart.
    settled: u64,
    /// Those from there on that have come, as runs: first number, and the one behind the last.
    runs: BTreeMap<u64, u64>,
    zero: bool,
    /// Numbers that may be left out, and have not been found to be.
    left_out: u64,
    /// The lowest number that came twice, or behind a higher one of its channel. It is said where all
    /// are at a sync: what is wrong then does not depend on which channel was first.
    out_of_turn: Option<u64>,
}

/// What is wrong with the numbers that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// Packets never came: how many, and the lowest number of them.
    Lost { packets: u64, first: u64 },
    /// A number came twice, or behind a higher one of its channel.
    OutOfTurn(u64),
}

/// The most runs of numbers between two syncs, for each channel and in any case. Channels are apart by what
/// is on its way on each: some thousands of packets where their sockets have much room. A run takes some
/// 40 bytes, and a packet of 1344 at least to make: 1.3 MiB a channel, 5 MiB in any case.
const MOST_RUNS: (usize, usize) = (1 << 15, 1 << 17);

/// What is looked at of a packet that carries pages or a SYNC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    /// It is a SYNC with pages: the number before may be left out.
    pub(crate) leaves_out: bool,
}

impl From<&RamPacket<'_>> for Numbered {
    fn from(packet: &RamPacket<'_>) -> Self {
        let leaves_out = packet.is_sync() && packet.pages.is_some();
        Self { number: packet.packet_num, leaves_out }
    }
}

impl Numbers {
    pub(crate) fn new(channels: u8) -> Self {
        Self {
            latest: vec![None; channels.into()],
            settled: 1,
            runs: BTreeMap::new(),
            zero: false,
            left_out: 0,
            out_of_turn: None,
        }
    }

    /// A packet with pages or a SYNC has come on a channel.
    pub(crate) fn add(&mut self, channel: u8, Numbered { number, leaves_out }: Numbered) {
        let latest = &mut self.latest[usize::from(channel)];
        let fits = latest.is_none_or(|latest| number > latest);
        *latest = (*latest).max(Some(number));
        self.left_out += u64::from(leaves_out);
        let is_new = match number {
            0 => !std::mem::replace(&mut self.zero, true),
            number => self.insert(number),
        };
        if !(fits && is_new) {
            self.out_of_turn = Some(self.out_of_turn.map_or(number, |lowest| lowest.min(number)));
        }
    }

    fn most_runs(&self) -> usize {
        let (a_channel, at_least) = MOST_RUNS;
        (self.latest.len() * a_channel).max(at_least)
    }

    /// Whether a number is new, and can be kept.
    fn insert(&mut self, number: u64) -> bool {
        // The end of the run would be past the last number.
        let Some(end) = number.checked_add(1) else { return false };
        let before = self.runs.range(..=number).next_back().map(|(&first, &end)| (first, end));
        let came = number < self.settled || before.is_some_and(|(_, end)| number < end);
        if came || self.runs.len() >= self.most_runs() {
            return false;
        }
        let end = self.runs.remove(&end).unwrap_or(end);
        let first = before.filter(|&(_, end)| end == number).map_or(number, |(first, _)| first);
        self.runs.insert(first, end);
        true
    }

    /// All channels are at a SYNC: whatever is below the latest number of each has come, or never will.
    pub(crate) fn at_sync(&mut self) -> Result<(), Fault> {
        let below = self.latest.iter().map(|latest| latest.unwrap_or_default()).min();
        self.settle(below.unwrap_or_default())
    }

    /// All channels have brought everything.
    pub(crate) fn complete(&mut self) -> Result<(), Fault> {
        let latest = self.latest.iter().flatten().max();
        self.settle(latest.map_or(0, |latest| latest.saturating_add(1)))
    }

    fn settle(&mut self, below: u64) -> Result<(), Fault> {
        if let Some(number) = self.out_of_turn {
            return Err(Fault::OutOfTurn(number));
        }
        let from = self.settled;
        if below <= from {
            return Ok(());
        }
        let (mut came, mut first) = (0, None);
        let mut next = from;
        while let Some((start, end)) = self.runs.first_key_value().map(|(&s, &e)| (s, e)) {
            if start >= below {
                break;
            }
            self.runs.remove(&start);
            first = first.or((start > next).then_some(next));
            next = end;
            came += end.min(below) - start;
            if end > below {
                self.runs.insert(below, end);
                break;
            }
        }
        self.settled = below;
        let missing = below - from - came;
        match missing.checked_sub(self.left_out) {
            Some(lost @ 1..) => {
                // A counter that begins at 1 lacks 0 alone.
                let zero = u64::from(!self.zero);
                // Where there is no gap before a run, it is behind the last.
                let first = if self.zero { first.unwrap_or(next) } else { 0 };
                Err(Fault::Lost { packets: lost + zero, first })
            }
            _ => {
                self.left_out -= missing;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a channel of a source carries, by number; a SYNC ends each round.
    type Rounds = Vec<Vec<Numbered>>;

    /// A source of some channels, made from bits: which channel each packet goes to, in which round, and
    /// whether it is one that leaves numbers out.
    fn source(
        (channels, rounds): (usize, usize),
        first: u64,
        older: bool,
        mut bits: u32,
    ) -> Vec<Rounds> {
        let mut next = first;
        let mut source = vec![Rounds::new(); channels];
        for round in 0..rounds {
            source.iter_mut().for_each(|channel| channel.push(Vec::new()));
            // Setup has SYNCs alone.
            for _ in 0..if round == 0 { 0 } else { 3 } {
                let channel = &mut source[(bits as usize & 3) % channels];
                bits >>= 2;
                channel[round].push(Numbered { number: next, leaves_out: false });
                next += 1;
            }
            let turn = bits as usize;
            for at in 0..channels {
                let channel = &mut source[(turn + at) % channels];
                let pages = channel[round].last_mut().filter(|_| older && bits & 1 == 1);
                bits >>= 1;
                match pages {
                    // The last packet is made the SYNC, under the next number.
                    Some(packet) => *packet = Numbered { number: next, leaves_out: true },
                    None => channel[round].push(Numbered { number: next, leaves_out: false }),
                }
                next += 1;
            }
        }
        source
    }

    /// The channels' packets as a receiver gets them, without channel `lost`.
    fn receive(source: &[Rounds], lost: Option<usize>) -> Result<(), Fault> {
        let here: Vec<_> = (0..source.len()).filter(|&channel| Some(channel) != lost).collect();
        let mut numbers = Numbers::new(here.len() as u8);
        (0..source[0].len()).try_for_each(|round| {
            for (number, &channel) in (0..).zip(&here) {
                for &packet in &source[channel][round] {
                    numbers.add(number, packet);
                }
            }
            numbers.at_sync()
        })?;
        numbers.complete()
    }

    #[test]
    fn whatever_channel_is_lost_shows_and_a_whole_source_lacks_nothing() {
        for channels in 2..=4 {
            for older in [false, true] {
                for first in [0, 1] {
                    for bits in 0..1_u32 << 14 {
                        let bits = bits.wrapping_mul(0x9e37_79b1);
                        let source = source((channels, 3), first, older, bits);
                        assert_eq!(receive(&source, None), Ok(()), "{source:?}");
                        for lost in 0..channels {
                            let gone: BTreeSet<_> =
                                source[lost].iter().flatten().map(|packet| packet.number).collect();
                            let error = receive(&source, Some(lost)).unwrap_err();
                            let Fault::Lost { packets, first: lowest } = error else {
                                panic!("{error:?}");
                            };
                            assert!(packets <= gone.len() as u64 + 1, "{error:?}");
                            assert!(
                                older || first == 1 || gone.contains(&lowest),
                                "{error:?} {source:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_channel_whose_loss_does_not_show_has_carried_no_page() {
        let mut unseen = 0;
        for channels in 2..=4 {
            for bits in 0..1_u32 << 14 {
                let source = source((channels, 2), 0, false, bits.wrapping_mul(0x9e37_79b1));
                let last = source.iter().flatten().flatten().map(|packet| packet.number).max();
                for lost in 0..channels {
                    if receive(&source, Some(lost)).is_ok() {
                        let its = source[lost].iter().flatten().map(|packet| packet.number);
                        assert_eq!(its.collect::<Vec<_>>(), [0, last.unwrap()], "{source:?}");
                        unseen += 1;
                    }
                }
            }
        }
        assert!(unseen > 0);
    }

    fn packet(number: u64) -> Numbered {
        Numbered { number, leaves_out: false }
    }

    #[test]
    fn only_a_sync_with_pages_leaves_a_number_out() {
        use multifd_core::wire::{BlockName, PacketFlags, RamPacketBuilder};
        use multifd_core::{Compression, PageSize};

        let numbered = |bytes: &[u8]| {
            Numbered::from(&RamPacket::parse(bytes, PageSize::Kib4).expect("a packet"))
        };
        let mut builder = RamPacketBuilder::new(PageSize::Kib4);
        let name = BlockName::new("ram").expect("a name");
        let mut pages = builder.pages(Compression::None, 7, &name, [&[], &[0x1000]], 0).to_vec();
        assert_eq!(numbered(&pages), packet(7));
        assert_eq!(numbered(builder.sync(8)), packet(8));
        pages[11] |= PacketFlags::SYNC.bits() as u8;
        assert_eq!(numbered(&pages), Numbered { number: 7, leaves_out: true });
    }

    #[test]
    fn channels_may_be_apart_between_two_syncs_and_across_them() {
        let mut numbers = Numbers::new(2);
        // The first channel is ahead by the time the second has numbered its SYNC.
        for (channel, number) in [(0, 0), (1, 3), (0, 1), (0, 2)] {
            numbers.add(channel, packet(number));
            numbers.at_sync().unwrap();
        }
        numbers.complete().unwrap();
        assert_eq!(numbers.runs.len(), 0, "what is settled is not kept");
    }

    #[test]
    fn what_is_lost_is_said_by_its_lowest_number_and_how_much_it_is() {
        for (came, packets, first) in [
            (&[0, 1, 4, 5][..], 2, 2),
            (&[0, 2, 5], 3, 1),
            (&[0, 3], 2, 1),
            // Number 0, too, where there is more that is lost.
            (&[1, 2, 5], 3, 0),
        ] {
            let mut numbers = Numbers::new(1);
            came.iter().for_each(|&number| numbers.add(0, packet(number)));
            assert_eq!(numbers.complete(), Err(Fault::Lost { packets, first }), "{came:?}");
        }
        let mut numbers = Numbers::new(2);
        for (channel, number) in [(0, 0), (0, 1), (0, 9), (1, 5)] {
            numbers.add(channel, packet(number));
        }
        assert_eq!(numbers.at_sync(), Err(Fault::Lost { packets: 3, first: 2 }), "below 5");
    }

    #[test]
    fn a_number_that_came_before_or_goes_back_is_refused_whichever_channel_is_first() {
        let cases = [
            ([(0, 4), (0, 4), (1, 1)], 4),
            ([(0, 4), (1, 4), (1, 5)], 4),
            ([(0, 4), (0, 3), (1, 9)], 3),
            ([(0, 0), (1, 0), (1, 7)], 0),
            ([(0, 1), (1, 1), (1, u64::MAX)], 1),
        ];
        for (packets, lowest) in cases {
            // A channel's own packets are in order, however the channels are.
            let (ones, others): (Vec<_>, Vec<_>) =
                packets.into_iter().partition(|&(channel, _)| channel == 0);
            for order in [[&ones[..], &others], [&others, &ones]] {
                let mut numbers = Numbers::new(2);
                for &(channel, number) in order.into_iter().flatten() {
                    numbers.add(channel, packet(number));
                }
                assert_eq!(numbers.clone().at_sync(), Err(Fault::OutOfTurn(lowest)), "{packets:?}");
                assert_eq!(numbers.complete(), Err(Fault::OutOfTurn(lowest)), "{packets:?}");
            }
        }
        let mut numbers = Numbers::new(1);
        numbers.add(0, packet(1));
        numbers.complete().unwrap();
        numbers.add(0, packet(1));
        assert_eq!(numbers.complete(), Err(Fault::OutOfTurn(1)), "what is settled came before");
    }

    #[test]
    fn numbers_that_are_far_apart_take_a_limited_memory() {
        for (channels, most) in [(1, 1 << 17), (4, 1 << 17), (16, 1 << 19)] {
            let mut numbers = Numbers::new(channels);
            (1..=most + 1).for_each(|number| numbers.add(0, packet(number * 2)));
            assert_eq!(numbers.runs.len() as u64, most);
            assert_eq!(numbers.complete(), Err(Fault::OutOfTurn((most + 1) * 2)));
        }
        let mut numbers = Numbers::new(1);
        numbers.add(0, packet(u64::MAX - 1));
        assert_eq!(numbers.complete(), Err(Fault::Lost { packets: u64::MAX - 1, first: 0 }));
    }
}
