//! An inspection as programs read it. `docs/inspect.md` describes the fields.

use multifd::core::wire::BlockName;
use multifd::core::{Compression, PageSize};
use multifd::inspect::{
    BlockReport, ChannelReport, Connection, Counts, DeviceState, Finding, PacketRecord, Report,
    RoundReport,
};
use multifd::stream::SyncForm;
use serde::Serialize;

use super::packets::flags;
use super::text::knows_raw;
use crate::escape;

/// The line of a packet.
pub(super) fn packet(packet: &PacketRecord) -> String {
    let compression = Compression::of(packet.flags);
    line(&Packet {
        kind: "packet",
        channel: packet.channel,
        packet: packet.packet,
        offset: packet.offset,
        seconds: packet.time.map(|time| time.as_secs_f64()),
        round: packet.round,
        packet_num: packet.packet_num,
        flags: flags(packet),
        name: packet.name.as_ref().map(BlockName::as_str),
        counts: Counted::new(&packet.counts, Some(compression), packet.page_size),
    })
}

/// What all packets come to.
pub(crate) fn summary(report: &Report) -> Summary<'_> {
    let counted = |counts: &Counts| Counted::new(counts, report.compression, report.page_size);
    Summary {
        kind: "summary",
        machine: report.configuration.machine.as_deref(),
        uuid: report.uuid.map(|uuid| uuid.to_string()),
        page_size: report.page_size.bytes(),
        codec: report.compression.map(|compression| compression.to_string()),
        total: counted(&report.total()),
        main: Main::new(report),
        channels: report.channels.iter().map(|channel| Channel::new(channel, counted)).collect(),
        rounds: report.rounds.iter().map(|round| Round::new(round, counted)).collect(),
        blocks: report.blocks.iter().map(|block| Block::new(block, counted)).collect(),
        errors: report.findings.errors(),
        notes: report.findings.notes(),
        findings: report.findings.iter().map(Found::new).collect(),
    }
}

/// A line of JSON. No type here can fail: all keys are text.
pub(super) fn line(value: &impl Serialize) -> String {
    escape::json(&serde_json::to_string(value).unwrap_or_default())
}

#[derive(Serialize)]
struct Packet<'a> {
    kind: &'static str,
    channel: usize,
    packet: u64,
    offset: u64,
    seconds: Option<f64>,
    round: u64,
    packet_num: Option<u64>,
    flags: Vec<String>,
    name: Option<&'a str>,
    #[serde(flatten)]
    counts: Counted,
}

#[derive(Serialize)]
pub(crate) struct Summary<'a> {
    kind: &'static str,
    machine: Option<&'a str>,
    uuid: Option<String>,
    page_size: usize,
    codec: Option<String>,
    total: Counted,
    main: Main<'a>,
    channels: Vec<Channel>,
    rounds: Vec<Round<'a>>,
    blocks: Vec<Block<'a>>,
    errors: u64,
    notes: u64,
    findings: Vec<Found>,
}

/// Pages and bytes.
#[derive(Serialize)]
struct Counted {
    packets: u64,
    normal_pages: u64,
    raw_pages: Option<u64>,
    zero_pages: u64,
    payload_bytes: u64,
    wire_bytes: u64,
    ratio: Option<f64>,
}

impl Counted {
    fn new(counts: &Counts, compression: Option<Compression>, page_size: PageSize) -> Self {
        Self {
            packets: counts.packets,
            normal_pages: counts.normal_pages,
            raw_pages: knows_raw(compression).then_some(counts.raw_pages),
            zero_pages: counts.zero_pages,
            payload_bytes: counts.payload_bytes,
            wire_bytes: counts.wire_bytes,
            ratio: counts.ratio(page_size),
        }
    }
}

#[derive(Serialize)]
struct Main<'a> {
    bytes: u64,
    sync: Option<&'static str>,
    syncs: u64,
    sections: u64,
    zero_pages: u64,
    normal_pages: u64,
    return_path: bool,
    early_state_bytes: u64,
    postcopy: bool,
    is_whole: bool,
    device_state: Option<Devices<'a>>,
}

impl<'a> Main<'a> {
    fn new(report: &'a Report) -> Self {
        let main = &report.main;
        Self {
            bytes: main.bytes,
            sync: main.sync.map(|form| match form {
                SyncForm::Flush => "flush",
                SyncForm::EachSection => "each-section",
            }),
            syncs: main.syncs,
            sections: main.sections,
            zero_pages: main.zero_pages,
            normal_pages: main.normal_pages,
            return_path: main.return_path,
            early_state_bytes: main.early_state_bytes,
            postcopy: main.postcopy,
            is_whole: main.is_whole,
            device_state: main.device_state.as_ref().map(Devices::new),
        }
    }
}

/// The device state of a migration or of an image.
#[derive(Serialize)]
pub(super) struct Devices<'a> {
    offset: u64,
    bytes: u64,
    description_bytes: Option<u64>,
    sections: Vec<Device<'a>>,
}

#[derive(Serialize)]
struct Device<'a> {
    name: &'a str,
    instance_id: u32,
    version: u32,
    section_id: u32,
    offset: u64,
    bytes: u64,
}

impl<'a> Devices<'a> {
    pub(super) fn new(state: &'a DeviceState) -> Self {
        let sections = state.sections.iter().map(|section| Device {
            name: &section.name,
            instance_id: section.instance_id,
            version: section.version,
            section_id: section.section_id,
            offset: section.offset,
            bytes: section.bytes,
        });
        Self {
            offset: state.offset,
            bytes: state.bytes,
            description_bytes: state.description_bytes,
            sections: sections.collect(),
        }
    }
}

#[derive(Serialize)]
struct Channel {
    id: Option<u8>,
    syncs: u64,
    empty: u64,
    device_state: u64,
    #[serde(flatten)]
    counts: Counted,
}

impl Channel {
    fn new(channel: &ChannelReport, counted: impl Fn(&Counts) -> Counted) -> Self {
        Self {
            id: channel.id,
            syncs: channel.syncs,
            empty: channel.empty,
            device_state: channel.device_state,
            counts: counted(&channel.counts),
        }
    }
}

#[derive(Serialize)]
struct Round<'a> {
    main_zero_pages: u64,
    main_normal_pages: u64,
    channel_bytes: &'a [u64],
    #[serde(flatten)]
    counts: Counted,
}

impl<'a> Round<'a> {
    fn new(round: &'a RoundReport, counted: impl Fn(&Counts) -> Counted) -> Self {
        Self {
            main_zero_pages: round.main_zero_pages,
            main_normal_pages: round.main_normal_pages,
            channel_bytes: &round.channel_bytes,
            counts: counted(&round.counts),
        }
    }
}

#[derive(Serialize)]
struct Block<'a> {
    name: &'a str,
    bytes: u64,
    pages: u64,
    sent: u64,
    sent_again: u64,
    most_times: u32,
    main_pages: u64,
    #[serde(flatten)]
    counts: Counted,
}

impl<'a> Block<'a> {
    fn new(block: &'a BlockReport, counted: impl Fn(&Counts) -> Counted) -> Self {
        Self {
            name: block.name.as_str(),
            bytes: block.bytes,
            pages: block.pages,
            sent: block.sent,
            sent_again: block.sent_again,
            most_times: block.most_times,
            main_pages: block.main_pages,
            counts: counted(&block.counts),
        }
    }
}

/// A finding.
#[derive(Serialize)]
pub(super) struct Found {
    severity: String,
    code: &'static str,
    /// None for the main channel.
    channel: Option<usize>,
    offset: u64,
    packet: Option<u64>,
    packet_num: Option<u64>,
    text: String,
}

impl Found {
    pub(super) fn new(finding: &Finding) -> Self {
        let Finding { place, kind, .. } = finding;
        Self {
            severity: kind.severity().to_string(),
            code: kind.code(),
            channel: match place.connection {
                Connection::Channel(number) => Some(number),
                _ => None,
            },
            offset: place.offset,
            packet: place.packet,
            packet_num: place.packet_num,
            text: kind.to_string(),
        }
    }
}
