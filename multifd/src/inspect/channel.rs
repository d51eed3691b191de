//! The packets of a multifd channel, counted and checked.

use std::time::Duration;

use multifd_core::wire::{BlockName, DeviceStatePacket, InitialPacket, PacketFlags, RamPacket};
use multifd_core::{Compression, PageSize, PeerError};

use super::chunks::Chunks;
use super::finding::{Connection, FindingKind, Place};
use super::parser::{ChannelEvent, Content};
use super::report::Counts;
use super::tally::{Channel, Tally};
use super::trace::TracePoint;

/// A packet, as an inspection lists it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PacketRecord {
    /// The channel's index in the order of [`Inspector::connect`](super::Inspector::connect).
    pub channel: usize,
    /// How many packets came before it on the channel, without the initial packet.
    pub packet: u64,
    /// Where it starts, in bytes from the start of the channel.
    pub offset: u64,
    /// When all of it had come, since the start of the migration, if that is known.
    pub time: Option<Duration>,
    /// How many SYNC packets came before it on the channel.
    pub round: u64,
    /// Its flags.
    pub flags: PacketFlags,
    /// Its number in the source's count; device state has none.
    pub packet_num: Option<u64>,
    /// The RAM block of its pages, or the device whose state it is.
    pub name: Option<BlockName>,
    /// Its pages and bytes.
    pub counts: Counts,
    /// The size of its pages.
    pub page_size: PageSize,
}

impl Tally {
    /// Counts and checks what came next on a channel, `time` after the start of the migration if that
    /// is known. Returns the record if it is a packet.
    pub(super) fn channel(
        &mut self,
        event: &ChannelEvent<'_>,
        time: Option<Duration>,
    ) -> Option<PacketRecord> {
        let place = |packet_num| Place {
            connection: Connection::Channel(event.channel),
            offset: event.offset,
            packet: Some(event.packet),
            packet_num,
        };
        match &event.content {
            Content::Initial { packet, unused_are_zero } => {
                let place = Place { packet: None, ..place(None) };
                self.unused(place, *unused_are_zero);
                self.initial(place, event, packet);
                None
            }
            Content::Malformed { error, packet_num } => {
                self.channels[event.channel].is_broken = true;
                // A device-state packet has no number, and its fields are in other places.
                let field = packet_num.map_or_else(|| head_field(error), |_| ram_field(error));
                let place = at(place(*packet_num), field);
                self.findings.add(place, FindingKind::Malformed(error.clone()));
                None
            }
            Content::DeviceState(packet) => {
                Some(self.device_state(place(None), event, packet, time))
            }
            Content::Ram { packet, chunks, unused_are_zero } => {
                let place = place(Some(packet.packet_num));
                self.unused(place, *unused_are_zero);
                Some(self.ram(place, event, packet, chunks.as_ref(), time))
            }
        }
    }

    fn initial(&mut self, place: Place, event: &ChannelEvent<'_>, packet: &InitialPacket) {
        let id = packet.channel;
        let same = |channel: &Channel| channel.report.id == Some(id);
        if let Some(other) = self.channels.iter().position(same) {
            let kind = FindingKind::RepeatedChannelId { id, other };
            self.findings.add(at(place, field::ID), kind);
        }
        self.channels[event.channel].report.id = Some(id);
        let expected = *self.uuid.get_or_insert(packet.uuid);
        if expected != packet.uuid {
            let from = "the first channel";
            let kind = FindingKind::Uuid { found: packet.uuid, from, expected };
            self.findings.add(at(place, field::UUID), kind);
        }
        let wire_bytes = event.bytes;
        self.tally(event.channel, 0, Counts { wire_bytes, ..Counts::default() });
    }

    fn device_state(
        &mut self,
        place: Place,
        event: &ChannelEvent<'_>,
        packet: &DeviceStatePacket,
        time: Option<Duration>,
    ) -> PacketRecord {
        let channel = &mut self.channels[event.channel];
        channel.report.device_state += 1;
        channel.first_device_state.get_or_insert(place);
        let counts = Counts { packets: 1, wire_bytes: event.bytes, ..Counts::default() };
        self.record(event, PacketFlags::DEVICE_STATE, Some(packet.device.clone()), counts, time)
    }

    fn ram(
        &mut self,
        place: Place,
        event: &ChannelEvent<'_>,
        packet: &RamPacket<'_>,
        chunks: Option<&Chunks>,
        time: Option<Duration>,
    ) -> PacketRecord {
        let counts = counts(event, packet, chunks);
        if packet.pages.is_none() && !packet.is_sync() {
            // Its number repeats that of an earlier packet, so it is not checked.
            self.channels[event.channel].report.empty += 1;
            self.findings.add(place, FindingKind::Empty);
        } else {
            self.number(place, event.channel, packet.packet_num);
        }
        if let Some(pages) = &packet.pages {
            self.codec(place, packet.compression());
            if let Some(fault) = chunks.and_then(|chunks| chunks.fault.clone()) {
                let payload = event.bytes - packet.payload_bytes as u64;
                self.findings.add(at(place, payload), FindingKind::Lengths(fault));
            }
            let round = self.channels[event.channel].report.syncs;
            self.pages(place, round, pages, &counts);
            self.channels[event.channel].behind_sync.get_or_insert((place, 0)).1 += 1;
        }
        let name = packet.pages.and_then(|pages| BlockName::new(pages.block).ok());
        let record = self.record(event, packet.flags, name, counts, time);
        if packet.is_sync() {
            let channel = &mut self.channels[event.channel];
            channel.report.syncs += 1;
            channel.syncs_with_pages += u64::from(packet.pages.is_some());
            channel.behind_sync = None;
        }
        PacketRecord { packet_num: Some(packet.packet_num), ..record }
    }

    fn unused(&mut self, place: Place, are_zero: bool) {
        if !are_zero {
            self.findings.add(place, FindingKind::Unused);
        }
    }

    fn number(&mut self, place: Place, channel: usize, found: u64) {
        let channel = &mut self.channels[channel];
        let is_new = self.numbers.insert(found);
        match channel.last_num {
            Some(last) if found <= last => {
                self.findings.add(at(place, field::NUM), FindingKind::NumberOrder { found, last });
            }
            _ if !is_new => {
                self.findings.add(at(place, field::NUM), FindingKind::RepeatedNumber(found));
            }
            _ => {}
        }
        channel.last_num = channel.last_num.max(Some(found));
    }

    fn codec(&mut self, place: Place, found: Compression) {
        let place = at(place, field::FLAGS);
        match self.compression {
            None => {
                self.compression = Some(found);
                if matches!(found, Compression::Private(_)) {
                    self.findings.add(place, FindingKind::PrivateCodec(found));
                }
            }
            Some(expected) if expected != found => {
                self.findings.add(place, FindingKind::Compression { found, expected });
            }
            Some(_) => {}
        }
    }

    /// Counts the packet and returns its record.
    fn record(
        &mut self,
        event: &ChannelEvent<'_>,
        flags: PacketFlags,
        name: Option<BlockName>,
        counts: Counts,
        time: Option<Duration>,
    ) -> PacketRecord {
        let ChannelEvent { channel, packet, offset, .. } = *event;
        let report = &mut self.channels[channel].report;
        let round = report.syncs;
        let point = TracePoint { offset: offset + event.bytes, time, packets: packet + 1 };
        report.trace.push(point);
        self.tally(channel, round, counts);
        PacketRecord {
            channel,
            packet,
            offset,
            time,
            round,
            flags,
            packet_num: None,
            name,
            counts,
            page_size: self.page_size,
        }
    }

    fn tally(&mut self, channel: usize, round: u64, counts: Counts) {
        self.channels[channel].report.counts += counts;
        let round = self.round(round);
        round.counts += counts;
        if channel >= round.channel_bytes.len() {
            round.channel_bytes.resize(channel + 1, 0);
        }
        round.channel_bytes[channel] += counts.wire_bytes;
    }
}

fn counts(event: &ChannelEvent<'_>, packet: &RamPacket<'_>, chunks: Option<&Chunks>) -> Counts {
    let normal_pages = packet.pages.map_or(0, |pages| pages.normal.len()) as u64;
    Counts {
        packets: 1,
        normal_pages,
        zero_pages: packet.pages.map_or(0, |pages| pages.zero.len()) as u64,
        raw_pages: match packet.compression() {
            Compression::None => normal_pages,
            _ => chunks.map_or(0, |chunks| chunks.raw),
        },
        payload_bytes: packet.payload_bytes as u64,
        wire_bytes: event.bytes,
    }
}

/// The place `bytes` further on.
pub(super) fn at(place: Place, bytes: u64) -> Place {
    Place { offset: place.offset + bytes, ..place }
}

/// The offsets of fields in a packet.
pub(super) mod field {
    pub(in crate::inspect) const VERSION: u64 = 4;
    pub(in crate::inspect) const FLAGS: u64 = 8;
    pub(in crate::inspect) const PAGES_ALLOC: u64 = 12;
    pub(in crate::inspect) const NORMAL_PAGES: u64 = 16;
    pub(in crate::inspect) const PAYLOAD: u64 = 20;
    pub(in crate::inspect) const NUM: u64 = 24;
    pub(in crate::inspect) const ZERO_PAGES: u64 = 32;
    pub(in crate::inspect) const NAME: u64 = 64;
    pub(in crate::inspect) const SLOTS: u64 = 320;
    /// Of the initial packet.
    pub(in crate::inspect) const UUID: u64 = 8;
    /// Of the initial packet.
    pub(in crate::inspect) const ID: u64 = 24;
}

/// The offset of the malformed field in a packet of any kind.
fn head_field(error: &PeerError) -> u64 {
    match error {
        PeerError::Version { .. } => field::VERSION,
        PeerError::Flags { .. } | PeerError::DeviceStateFlags { .. } => field::FLAGS,
        _ => 0,
    }
}

/// The offset of the malformed field in a RAM packet.
fn ram_field(error: &PeerError) -> u64 {
    match error {
        PeerError::PagesAlloc { .. } => field::PAGES_ALLOC,
        PeerError::NormalPages { .. } => field::NORMAL_PAGES,
        PeerError::PayloadSize { .. } => field::PAYLOAD,
        PeerError::ZeroPages { .. } => field::ZERO_PAGES,
        PeerError::OffsetMisaligned { .. } => field::SLOTS,
        PeerError::NameEmpty | PeerError::NameNotUtf8 | PeerError::NameNotTerminated => field::NAME,
        error => head_field(error),
    }
}
