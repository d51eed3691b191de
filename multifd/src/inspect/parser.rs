//! A multifd channel as its packets: bytes in, events out, no IO.

use std::ops::Range;

use multifd_core::wire::{DeviceStatePacket, InitialPacket, PacketFlags, PacketHeader, RamPacket};
use multifd_core::{PageSize, PeerError};

use super::chunks::{Chunks, LENGTH, length_bytes};

/// Turns the bytes of one multifd channel, in pieces of any size, into [`ChannelEvent`]s.
///
/// It holds one packet without its payload. What is malformed ends it: where the next packet
/// starts is not known then, so that the rest is passed over.
#[derive(Debug)]
pub struct ChannelParser {
    channel: usize,
    page_size: PageSize,
    stage: Stage,
    /// The current item's bytes, as far as they are looked at.
    head: Vec<u8>,
    /// How long `head` has to get.
    wanted: usize,
    /// Bytes of payload or device data that are still to be passed over.
    passing: u64,
    /// Where the current item starts.
    start: u64,
    /// Bytes taken so far.
    offset: u64,
    packets: u64,
    fault: Option<PeerError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Initial,
    Header,
    Packet,
    /// The lengths that a payload with a chunk for each page begins with.
    Lengths,
    Payload(Item),
    /// The item is complete, and has been given or is about to be.
    Whole(Item),
    /// So is one that is no packet: see `fault`.
    Malformed,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Initial,
    Ram,
    DeviceState,
}

/// Something on a channel, and where.
#[derive(Clone, Debug)]
pub struct ChannelEvent<'a> {
    /// The channel's place among the connections, from 0, in the order of
    /// [`Inspector::connect`](super::Inspector::connect). Not the id in its initial packet.
    pub channel: usize,
    /// How many packets came before on this channel, the initial one not counted.
    pub packet: u64,
    /// Where it starts, in bytes from the channel's first.
    pub offset: u64,
    /// Its size in bytes, payload included.
    pub bytes: u64,
    /// What it is.
    pub content: Content<'a>,
}

/// What comes on a channel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Content<'a> {
    /// The initial packet.
    Initial {
        /// What it says.
        packet: InitialPacket,
        /// Whether its unused bytes are zero.
        unused_are_zero: bool,
    },
    /// A RAM packet or a SYNC, with all of its payload.
    Ram {
        /// What it says.
        packet: RamPacket<'a>,
        /// Its payload's chunks, where the codec has one for each page.
        chunks: Option<Chunks>,
        /// Whether its unused bytes are zero.
        unused_are_zero: bool,
    },
    /// A part of a device's state, with all of its data.
    DeviceState(DeviceStatePacket),
    /// What is no packet. Nothing comes after it but the end.
    Malformed {
        /// What is wrong.
        error: PeerError,
        /// The number that the packet claims.
        packet_num: Option<u64>,
    },
    /// The end of the channel.
    End {
        /// What it ended in, unless that was between two packets.
        cut: Option<Cut>,
    },
}

/// Where in a packet a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The part it ended in.
    pub within: &'static str,
    /// Bytes of that part that are missing.
    pub missing: u64,
}

impl ChannelParser {
    pub(super) fn new(channel: usize, page_size: PageSize) -> Self {
        Self {
            channel,
            page_size,
            stage: Stage::Initial,
            head: Vec::new(),
            wanted: InitialPacket::BYTES,
            passing: 0,
            start: 0,
            offset: 0,
            packets: 0,
            fault: None,
        }
    }

    /// Takes bytes off the front of `bytes`, up to the end of the next item, and says what that is.
    /// `None` when all of `bytes` has been taken.
    pub fn next<'p>(&'p mut self, bytes: &mut &[u8]) -> Option<ChannelEvent<'p>> {
        self.begin();
        while !matches!(self.stage, Stage::Whole(_) | Stage::Malformed) {
            match self.stage {
                Stage::Lost => {
                    self.offset += bytes.len() as u64;
                    *bytes = &[];
                    return None;
                }
                Stage::Payload(item) => {
                    self.pass(bytes)?;
                    self.stage = Stage::Whole(item);
                }
                stage => {
                    self.collect(bytes)?;
                    self.stage = self.after(stage).unwrap_or_else(|error| {
                        self.fault = Some(error);
                        Stage::Malformed
                    });
                }
            }
        }
        Some(self.event(self.content()))
    }

    /// What the channel ends in, if it ends here.
    pub fn end(&self) -> ChannelEvent<'_> {
        let within = |within, missing| Some(Cut { within, missing });
        let wanting = (self.wanted - self.head.len().min(self.wanted)) as u64;
        let cut = match self.stage {
            Stage::Initial => within("the initial packet", wanting),
            Stage::Header if self.head.is_empty() => None,
            Stage::Header => within("a packet's header", wanting),
            Stage::Packet => within("a packet", wanting),
            Stage::Lengths => within("a payload's lengths", wanting),
            Stage::Payload(_) => within("a payload", self.passing),
            Stage::Whole(_) | Stage::Malformed | Stage::Lost => None,
        };
        ChannelEvent {
            channel: self.channel,
            packet: self.packets,
            offset: self.offset,
            bytes: 0,
            content: Content::End { cut },
        }
    }

    /// Goes on to the next item, if the current one is complete.
    fn begin(&mut self) {
        match self.stage {
            Stage::Whole(item) => {
                self.packets += u64::from(item != Item::Initial);
                self.head.clear();
                self.wanted = PacketHeader::BYTES;
                self.start = self.offset;
                self.stage = Stage::Header;
            }
            Stage::Malformed => self.stage = Stage::Lost,
            _ => {}
        }
    }

    /// Adds to `head`; `None` while it is not as long as wanted.
    fn collect(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let count = bytes.len().min(self.wanted - self.head.len());
        let (taken, rest) = bytes.split_at(count);
        self.head.extend_from_slice(taken);
        *bytes = rest;
        self.offset += count as u64;
        (self.head.len() == self.wanted).then_some(())
    }

    /// Passes payload over; `None` while it is not at its end.
    fn pass(&mut self, bytes: &mut &[u8]) -> Option<()> {
        let count = self.passing.min(bytes.len() as u64);
        *bytes = &bytes[count as usize..];
        self.offset += count;
        self.passing -= count;
        (self.passing == 0).then_some(())
    }

    /// What comes after a stage whose bytes are all in `head`.
    fn after(&mut self, stage: Stage) -> Result<Stage, PeerError> {
        match stage {
            Stage::Initial => self.initial().map(|_| Stage::Whole(Item::Initial)),
            Stage::Header => {
                let header = self.header()?;
                self.wanted += header.following_bytes(self.page_size.page_count());
                Ok(Stage::Packet)
            }
            Stage::Packet if self.header()?.flags.contains(PacketFlags::DEVICE_STATE) => {
                self.passing = self.device_state()?.data_bytes.into();
                Ok(Stage::Payload(Item::DeviceState))
            }
            Stage::Packet => {
                let packet = self.ram()?;
                let lengths = length_bytes(&packet);
                self.passing = (packet.payload_bytes - lengths) as u64;
                self.wanted += lengths;
                Ok(if lengths > 0 { Stage::Lengths } else { Stage::Payload(Item::Ram) })
            }
            _ => Ok(Stage::Payload(Item::Ram)),
        }
    }

    fn header(&self) -> Result<PacketHeader, PeerError> {
        PacketHeader::parse(self.head.first_chunk().ok_or(PeerError::Truncated)?)
    }

    fn initial(&self) -> Result<InitialPacket, PeerError> {
        InitialPacket::parse(self.head.first_chunk().ok_or(PeerError::Truncated)?)
    }

    fn device_state(&self) -> Result<DeviceStatePacket, PeerError> {
        DeviceStatePacket::parse(self.head.first_chunk().ok_or(PeerError::Truncated)?)
    }

    fn ram(&self) -> Result<RamPacket<'_>, PeerError> {
        let bytes = RamPacket::bytes(self.page_size.page_count());
        RamPacket::parse(self.head.get(..bytes).ok_or(PeerError::Truncated)?, self.page_size)
    }

    /// The complete item. It has been parsed before, so that it is what it was then.
    fn content(&self) -> Content<'_> {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let parsed = match (&self.fault, self.stage) {
            (Some(error), _) => Err(error.clone()),
            (None, Stage::Whole(Item::Initial)) => self.initial().map(|packet| Content::Initial {
                packet,
                unused_are_zero: is_zero(&self.head[INITIAL_UNUSED]),
            }),
            (None, Stage::Whole(Item::DeviceState)) => {
                self.device_state().map(Content::DeviceState)
            }
            (None, _) => self.ram().map(|packet| Content::Ram {
                packet,
                chunks: self.chunks(&packet),
                unused_are_zero: is_zero(&self.head[RAM_UNUSED]),
            }),
        };
        parsed.unwrap_or_else(|error| Content::Malformed {
            error,
            packet_num: RamPacket::claimed_num(&self.head),
        })
    }

    fn chunks(&self, packet: &RamPacket<'_>) -> Option<Chunks> {
        let bytes = length_bytes(packet);
        let lengths = self.head.get(self.head.len() - bytes..).filter(|_| bytes > 0)?;
        let lengths = lengths
            .chunks_exact(LENGTH)
            .map(|length| length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)));
        Some(Chunks::new(lengths, self.page_size.bytes(), packet.payload_bytes - bytes))
    }

    fn event<'p>(&'p self, content: Content<'p>) -> ChannelEvent<'p> {
        ChannelEvent {
            channel: self.channel,
            packet: self.packets,
            offset: self.start,
            bytes: self.offset - self.start,
            content,
        }
    }
}

/// Where in an initial packet and in a RAM packet the bytes are that mean nothing.
const INITIAL_UNUSED: Range<usize> = 25..64;
const RAM_UNUSED: Range<usize> = 36..64;
