//! A stream of three packets of which one is changed, and what a receiver makes of it.

use std::collections::BTreeSet;

use multifd_core::channel::Received;
use multifd_core::wire::RamPacket;
use multifd_core::{ChannelConfig, Error, ErrorKind, PageSize};

use crate::harness::{
    BLOCK, Content, Context, Packet, Random, STALE, Setup, Stop, Subject, Verdict, ensure,
    first_difference, offsets, parse, ram, read,
};
use crate::heap::Growth;

pub(super) const PAGE_SIZE: PageSize = PageSize::Kib4;

const PAGE_BYTES: usize = PAGE_SIZE.bytes();

/// Pages in the block. Those that no packet names must stay as they are.
const PAGES: usize = 16;

/// The pages with data that each packet carries.
const NORMAL: [&[usize]; 3] = [&[1, 3], &[9, 5, 12], &[11, 2]];

/// The zero page that each packet carries, in the order of [`NORMAL`].
const ZERO: [&[usize]; 3] = [&[], &[7], &[]];

/// What memory holds before a stream comes: a codec's scratch memory, and the guest's. Each stream is
/// taken over both, which must not show: a decoder that leaves a page short would give away what
/// was in memory before.
const FORMER: [(u8, u8); 2] = [(0x00, STALE), (0xff, !STALE)];

/// The packet that cases change: the one in the middle, since a stream may treat its first
/// otherwise, and the one behind it may show what a change has done.
pub(super) const CHANGED: usize = 1;

/// A valid stream of three small packets.
pub(crate) struct Scene<'a> {
    subject: &'a Subject,
    /// The source's memory.
    memory: Vec<u8>,
    pub(super) packets: Vec<Packet>,
}

impl<'a> Scene<'a> {
    /// Packets whose pages are compressible in several ways.
    pub(crate) fn of_small_packets(subject: &'a Subject) -> Verdict<Self> {
        Self::of(subject, &[Content::Text, Content::Fill, Content::LastByte, Content::Pointers])
    }

    /// Packets whose pages are noise: no byte of their payload can be missing.
    pub(super) fn of_noise(subject: &'a Subject) -> Verdict<Self> {
        Self::of(subject, &[Content::Noise])
    }

    fn of(subject: &'a Subject, kinds: &[Content]) -> Verdict<Self> {
        let mut random = Random::new(50);
        let mut memory = vec![0; PAGES * PAGE_BYTES];
        let normal = NORMAL.into_iter().flatten();
        for (&page, kind) in normal.zip(kinds.iter().cycle()) {
            kind.write(&mut random, &mut memory[page * PAGE_BYTES..][..PAGE_BYTES]);
        }
        let mut sender = subject.sender(&ram(PAGE_SIZE, &memory)?, Setup::default())?;
        let mut packets = Vec::new();
        for (normal, zero) in NORMAL.into_iter().zip(ZERO) {
            let pages = normal.iter().chain(zero).copied();
            packets.push(Packet::of(&sender.send(&offsets(PAGE_SIZE, pages))?, PAGE_SIZE));
        }
        let scene = Self { subject, memory, packets };
        let unchanged = scene.attempt(&scene.stream())?;
        scene.taken_exactly(&unchanged).context(|| "the stream without a change".to_owned())?;
        Ok(scene)
    }

    /// The stream as it was sent.
    fn stream(&self) -> Vec<u8> {
        self.packets.iter().flat_map(Packet::bytes).collect()
    }

    /// What a receiver makes of the stream with `packet` in the place of the changed one.
    pub(super) fn attempt_with(&self, packet: &Packet) -> Verdict<Attempt> {
        let packets = [&self.packets[0], packet, &self.packets[2]];
        self.attempt(&packets.into_iter().flat_map(Packet::bytes).collect::<Vec<_>>())
    }

    /// What a new receiver makes of `stream`. Fails the case where an error does not say what it
    /// must, where anything but the packets' own pages was written, where former bytes show, and
    /// where it takes more heap than it may.
    pub(super) fn attempt(&self, stream: &[u8]) -> Verdict<Attempt> {
        let growth = self.subject.heap_bound.and_then(|bound| Some((Growth::from_now()?, bound)));
        let [first, second] = FORMER.map(|(scratch, former)| self.once(stream, scratch, former));
        if let Some((growth, bound)) = growth {
            let (grown, bound) = (growth.peak() >> 20, bound >> 20);
            ensure!(grown <= bound, "that took {grown} MiB of heap, the bound is {bound} MiB");
        }
        let first = first?;
        first.same_as(&second?)?;
        Ok(first)
    }

    fn once(&self, stream: &[u8], scratch: u8, former: u8) -> Verdict<Attempt> {
        let destination = ram(PAGE_SIZE, &[former; PAGES * PAGE_BYTES])?;
        let config = ChannelConfig::new(Setup::default().channel, PAGE_SIZE, 0);
        let config = config.with_scratch_fill(scratch);
        let mut receiver = self.subject.receiver_as(&destination, &config)?;
        let mut packets: Vec<Taken> = Vec::new();
        let mut left = stream;
        let error = loop {
            let packet = parse(left, PAGE_SIZE);
            let received = receiver
                .try_receive(&mut left)
                .context(|| how_far(packet.as_ref(), &read(&destination), former))?;
            match received {
                Ok(Received::End) => break None,
                Ok(_) => {
                    let packet = packet.ok_or_else(|| Stop::failed("a malformed packet passed"))?;
                    packets.push(Taken::new(&packet));
                }
                Err(error) => {
                    blames_the_peer(&error, packet.map(|packet| packet.packet_num))?;
                    packets.extend(packet.map(|packet| Taken::new(&packet)));
                    break Some(error);
                }
            }
        };
        let attempt = Attempt { packets, error, former, memory: read(&destination) };
        attempt.wrote_only_its_pages()?;
        Ok(attempt)
    }

    /// Sets up receivers and has each fail on its second packet: on noise for each part of it.
    pub(crate) fn fail_receivers(&self) -> Verdict {
        let packet = &self.packets[CHANGED];
        let noise = Random::new(51).bytes(100);
        for part in packet.parts(PAGE_SIZE) {
            let attempt = self.attempt_with(&packet.with_part(&part, &noise))?;
            let refused = attempt.error.is_some();
            ensure!(refused, "100 bytes of noise were taken for {}", part.name);
        }
        Ok(())
    }

    /// Whether all packets were taken, and each page holds what was sent for it.
    pub(super) fn taken_exactly(&self, attempt: &Attempt) -> Verdict {
        if let Some(error) = &attempt.error {
            return Err(Stop::failed(format!("refused: {error}")));
        }
        let taken = attempt.packets.len();
        ensure!(taken == NORMAL.len(), "{taken} packets were taken, not {}", NORMAL.len());
        self.exact(attempt)
    }

    /// Whether every page of the packets that were taken holds what was sent for it. Pages of a
    /// packet that was refused, or that came twice in one packet, may hold anything.
    pub(super) fn exact(&self, attempt: &Attempt) -> Verdict {
        let former = [attempt.former; PAGE_BYTES];
        let mut expected = vec![Some(&former[..]); PAGES];
        for (number, packet) in attempt.packets.iter().enumerate() {
            let refused = attempt.refused().is_some() && number + 1 == attempt.packets.len();
            let unclear = refused || !packet.pages_are_different();
            for (at, &page) in packet.normal.iter().enumerate() {
                let sent = NORMAL.get(number).and_then(|pages| pages.get(at));
                let sent = sent.map(|&page| &self.memory[page * PAGE_BYTES..][..PAGE_BYTES]);
                expected[page] = if unclear { None } else { sent };
            }
            for &page in &packet.zero {
                expected[page] = if unclear { None } else { Some(&[0; PAGE_BYTES]) };
            }
        }
        for (page, (found, expected)) in
            attempt.memory.chunks_exact(PAGE_BYTES).zip(expected).enumerate()
        {
            let exact = expected.is_none_or(|expected| expected == found);
            ensure!(exact, "no error, but page {page} is not what was sent for it");
        }
        Ok(())
    }
}

/// What a receiver made of a stream.
pub(super) struct Attempt {
    /// The packets that it took, and last the one that it refused, where that had a valid header.
    packets: Vec<Taken>,
    pub(super) error: Option<Error>,
    /// What the guest's memory held before.
    former: u8,
    memory: Vec<u8>,
}

/// The numbers of the pages that a packet names.
struct Taken {
    normal: Vec<usize>,
    zero: Vec<usize>,
}

impl Taken {
    fn new(packet: &RamPacket<'_>) -> Self {
        let Some(pages) = packet.pages.filter(|pages| pages.block == BLOCK) else {
            return Self { normal: Vec::new(), zero: Vec::new() };
        };
        let page = |offset: u64| {
            let page = usize::try_from(offset).ok()? / PAGE_BYTES;
            (page < PAGES).then_some(page)
        };
        Self {
            normal: pages.normal.iter().filter_map(|offset| page(offset.get())).collect(),
            zero: pages.zero.iter().filter_map(|offset| page(offset.get())).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = usize> {
        self.normal.iter().chain(&self.zero).copied()
    }

    fn pages_are_different(&self) -> bool {
        self.all().collect::<BTreeSet<_>>().len() == self.normal.len() + self.zero.len()
    }
}

impl Attempt {
    /// Whether the changed packet was refused itself, not only the one behind it.
    pub(super) fn refused_at_once(&self) -> bool {
        self.error.is_some() && self.packets.len() <= CHANGED + 1
    }

    /// The packet that was refused, where it had a valid header.
    fn refused(&self) -> Option<&Taken> {
        self.packets.last().filter(|_| self.error.is_some())
    }

    /// Whether it came to the same over other former bytes. The pages of a packet that was refused
    /// may hold anything.
    fn same_as(&self, other: &Self) -> Verdict {
        let said = [self, other].map(|attempt| attempt.error.as_ref().map(Error::to_string));
        ensure!(
            said[0] == said[1] && self.packets.len() == other.packets.len(),
            "what memory held before decides what is said: once {:?}, once {:?}",
            said[0],
            said[1]
        );
        let unclear: BTreeSet<_> = self.refused().into_iter().flat_map(Taken::all).collect();
        for page in self.packets.iter().flat_map(Taken::all).filter(|page| !unclear.contains(page))
        {
            let [one, two] =
                [self, other].map(|attempt| &attempt.memory[page * PAGE_BYTES..][..PAGE_BYTES]);
            if let Some(at) = first_difference(one, two) {
                return Err(Stop::failed(format!(
                    "no error, but page {page} keeps what memory held before, from byte {at} on"
                )));
            }
        }
        Ok(())
    }

    fn wrote_only_its_pages(&self) -> Verdict {
        let named: BTreeSet<_> = self.packets.iter().flat_map(Taken::all).collect();
        for (page, content) in self.memory.chunks_exact(PAGE_BYTES).enumerate() {
            let untouched = content.iter().all(|&byte| byte == self.former);
            ensure!(
                untouched || named.contains(&page),
                "page {page} was written, which no packet names"
            );
        }
        Ok(())
    }
}

/// How far a packet has come of which no more is heard: to the first of its pages that is as it was.
fn how_far(packet: Option<&RamPacket<'_>>, memory: &[u8], former: u8) -> String {
    let Some(packet) = packet else { return "a malformed packet".to_owned() };
    let normal = Taken::new(packet).normal;
    let untouched = |&page: &usize| {
        memory[page * PAGE_BYTES..][..PAGE_BYTES].iter().all(|&byte| byte == former)
    };
    match normal.iter().position(untouched) {
        Some(index) => format!(
            "packet {}, page {index} (the first of {} not yet written)",
            packet.packet_num,
            normal.len()
        ),
        None => format!("packet {}, all pages written", packet.packet_num),
    }
}

/// Whether the error says that the peer is to blame, on which channel and, where its header was
/// good, in which packet.
fn blames_the_peer(error: &Error, packet_num: Option<u64>) -> Verdict {
    let peer = matches!(error.kind(), ErrorKind::Peer(_));
    ensure!(peer, "what a peer sent is not called the peer's fault: {error}");
    let place = error.place();
    ensure!(place.channel == Some(Setup::default().channel), "no channel in the error: {error}");
    if packet_num.is_some() {
        ensure!(place.packet_num == packet_num, "the packet's number is missing: {error}");
    }
    Ok(())
}
