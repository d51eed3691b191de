//! A multifd channel's bytes, split into its packets.

use std::ops::Range;

use multifd_core::channel::{Frame, Framing, MAIN_MAGIC, Opened, Opening, Wanted};
use multifd_core::wire::{DeviceStatePacket, InitialPacket, PacketHeader, RamPacket};
use multifd_core::{PageSize, PeerError};

use super::chunks::{self, Chunks};
use super::finding::FindingKind;

/// Turns the bytes of one multifd channel, in pieces of any size, into [`ChannelEvent`]s.
///
/// It keeps one packet and, of a payload, only the lengths at its start. After malformed bytes the
/// start of the next packet is unknown, so the rest of the channel is skipped.
#[derive(Debug)]
pub(super) struct ChannelParser {
    channel: usize,
    stage: Stage,
    /// The part that has come of the lengths at the start of the current payload.
    lengths: Vec<u8>,
    /// Packets before the current item.
    packets: u64,
    /// Where the current item starts.
    start: u64,
    /// Bytes taken so far.
    offset: u64,
}

#[derive(Debug)]
enum Stage {
    Opening(Opening),
    Packets(Framing),
    /// After malformed bytes.
    Lost,
}

/// What has come.
enum Item {
    /// The framing's current packet, with all of its payload or data.
    Packet,
    /// Anything else.
    Other(Content<'static>),
}

/// Something on a channel, and where.
#[derive(Debug)]
pub(super) struct ChannelEvent<'a> {
    /// The channel's index.
    pub(super) channel: usize,
    /// How many packets came before it on the channel, without the initial packet.
    pub(super) packet: u64,
    /// Where it starts, in bytes from the start of the channel.
    pub(super) offset: u64,
    /// Its size in bytes, payload included.
    pub(super) bytes: u64,
    /// What it is.
    pub(super) content: Content<'a>,
}

/// How a channel ends.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    pub(super) channel: usize,
    /// How many complete packets it has.
    pub(super) packet: u64,
    /// Its size in bytes.
    pub(super) offset: u64,
    /// [`FindingKind::Cut`], if it ends within a packet.
    pub(super) cut: Option<FindingKind>,
}

/// What comes on a channel.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Initial {
        packet: InitialPacket,
        unused_are_zero: bool,
    },
    /// A RAM packet or a SYNC, with all of its payload.
    Ram {
        packet: RamPacket<'a>,
        /// Its payload's chunks, if the codec has one for each page.
        chunks: Option<Chunks>,
        unused_are_zero: bool,
    },
    /// A part of a device's state, with all of its data.
    DeviceState(DeviceStatePacket),
    /// Bytes that are not a valid packet. Nothing comes after them.
    Malformed {
        error: PeerError,
        /// The packet's number, if it has one.
        packet_num: Option<u64>,
    },
}

impl ChannelParser {
    pub(super) fn new(channel: usize) -> Self {
        let (stage, lengths) = (Stage::Opening(Opening::new()), Vec::new());
        Self { channel, stage, lengths, packets: 0, start: 0, offset: 0 }
    }

    /// Takes bytes off the front of `bytes`, up to the end of the next item, and returns the item.
    /// `None` when all of `bytes` is taken. `page_size` is used from the end of the initial packet on.
    pub(super) fn next(
        &mut self,
        bytes: &mut &[u8],
        page_size: PageSize,
    ) -> Option<ChannelEvent<'_>> {
        let item = self.advance(bytes, page_size)?;
        let (channel, packet) = (self.channel, self.packets);
        let (offset, end) = (self.start, self.offset);
        self.start = end;
        let content = match item {
            Item::Packet => {
                self.packets += 1;
                self.packet()?
            }
            Item::Other(content) => content,
        };
        let bytes = end - offset;
        Some(ChannelEvent { channel, packet, offset, bytes, content })
    }

    /// The end of the channel, if no more bytes come.
    pub(super) fn end(&mut self) -> End {
        let cut = match &mut self.stage {
            Stage::Opening(opening) => {
                let missing = (InitialPacket::BYTES - opening.bytes().len()) as u64;
                (missing > 0).then_some(("the initial packet", missing))
            }
            Stage::Packets(framing) => missing(framing, self.lengths.len()),
            Stage::Lost => None,
        };
        let cut = cut.map(|(within, missing)| FindingKind::Cut { within, missing });
        End { channel: self.channel, packet: self.packets, offset: self.offset, cut }
    }

    /// Takes bytes up to the end of the next item.
    fn advance(&mut self, bytes: &mut &[u8], page_size: PageSize) -> Option<Item> {
        while !bytes.is_empty() {
            let before = bytes.len();
            let item = match &mut self.stage {
                Stage::Opening(opening) if opening.bytes().len() == InitialPacket::BYTES => {
                    self.stage = Stage::Packets(Framing::new(page_size));
                    None
                }
                Stage::Opening(opening) => open(opening, bytes),
                Stage::Packets(framing) => frame(framing, &mut self.lengths, bytes),
                Stage::Lost => {
                    *bytes = &[];
                    None
                }
            };
            self.offset += (before - bytes.len()) as u64;
            if let Some(Item::Other(Content::Malformed { .. })) = item {
                self.stage = Stage::Lost;
            }
            if item.is_some() {
                return item;
            }
        }
        None
    }

    /// The framing's current packet, which is complete.
    fn packet(&self) -> Option<Content<'_>> {
        let Stage::Packets(framing) = &self.stage else { return None };
        let Some(packet) = framing.ram_packet() else {
            let packet = DeviceStatePacket::parse(framing.bytes().first_chunk()?);
            return packet.ok().map(Content::DeviceState);
        };
        Some(Content::Ram {
            packet,
            chunks: Chunks::new(&packet, &self.lengths, framing.page_size()),
            unused_are_zero: is_zero(&framing.bytes()[RAM_UNUSED]),
        })
    }
}

/// Takes bytes of the initial packet.
fn open(opening: &mut Opening, bytes: &mut &[u8]) -> Option<Item> {
    let count = take(opening.want(), bytes);
    let error = match opening.filled(count) {
        Ok(None) => return None,
        Ok(Some(Opened::Channel(packet))) => {
            let unused_are_zero = is_zero(&opening.bytes()[INITIAL_UNUSED]);
            return Some(Item::Other(Content::Initial { packet, unused_are_zero }));
        }
        Ok(Some(Opened::Main | Opened::Nothing)) => {
            PeerError::Magic { found: u32::from_be_bytes(MAIN_MAGIC) }
        }
        Err(error) => error,
    };
    Some(Item::Other(Content::Malformed { error, packet_num: None }))
}

/// Takes bytes of a packet, of its payload or of its data.
fn frame(framing: &mut Framing, lengths: &mut Vec<u8>, bytes: &mut &[u8]) -> Option<Item> {
    let (count, left) = match framing.want() {
        Wanted::Packet(room) => {
            lengths.clear();
            (take(room, bytes), None)
        }
        Wanted::Payload(left) => {
            let (payload, rest) =
                bytes.split_at(bytes.len().min(left.try_into().unwrap_or(usize::MAX)));
            let lacking = length_bytes(framing) - lengths.len();
            lengths.extend(payload.iter().take(lacking));
            *bytes = rest;
            (payload.len(), Some(left - payload.len() as u64))
        }
        Wanted::Nothing => return None,
    };
    let left = match framing.filled(count) {
        Ok(None | Some(Frame::End)) => left?,
        Ok(Some(Frame::Ram(packet))) => packet.payload_bytes as u64,
        Ok(Some(Frame::DeviceState(packet))) => packet.data_bytes.into(),
        Err(error) => {
            let packet_num = framing.claimed_num();
            return Some(Item::Other(Content::Malformed { error, packet_num }));
        }
    };
    (left == 0).then_some(Item::Packet)
}

/// The incomplete part of a packet, and how many of its bytes are missing. `None` between two
/// packets.
fn missing(framing: &mut Framing, lengths: usize) -> Option<(&'static str, u64)> {
    let missing = match framing.want() {
        Wanted::Packet(room) => room.len() as u64,
        Wanted::Payload(left) => {
            let lacking = length_bytes(framing) - lengths;
            return Some(if lacking > 0 {
                ("a payload's lengths", lacking as u64)
            } else {
                ("a payload", left)
            });
        }
        Wanted::Nothing => return None,
    };
    match framing.bytes().len() {
        0 => None,
        filled if filled < PacketHeader::BYTES => Some(("a packet's header", missing)),
        _ => Some(("a packet", missing)),
    }
}

/// The size in bytes of the lengths at the start of the current payload.
fn length_bytes(framing: &Framing) -> usize {
    framing.ram_packet().map_or(0, |packet| chunks::length_bytes(&packet))
}

/// Moves bytes from the front of `bytes` into `room`. Returns how many.
fn take(room: &mut [u8], bytes: &mut &[u8]) -> usize {
    let count = room.len().min(bytes.len());
    let (taken, rest) = bytes.split_at(count);
    room[..count].copy_from_slice(taken);
    *bytes = rest;
    count
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// The unused bytes of an initial packet and of a RAM packet.
const INITIAL_UNUSED: Range<usize> = 25..64;
const RAM_UNUSED: Range<usize> = 36..64;
