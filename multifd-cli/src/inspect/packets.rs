//! The list of all packets.

use multifd::core::Compression;
use multifd::core::wire::{BlockName, PacketFlags};
use multifd::inspect::PacketRecord;

use crate::escape::one_line;

/// The columns. Their widths are fixed: the first packet is printed before the others are read.
pub(super) fn header() -> String {
    format!(
        "{:>7}  {:>7}  {:>12}  {:>5}  {:>10}  {:<10}  {:>6}  {:>5}  {:>5}  {:>8}  {:>6}  {}",
        "channel",
        "packet",
        "byte",
        "round",
        "packet_num",
        "flags",
        "normal",
        "raw",
        "zero",
        "payload",
        "ratio",
        "block"
    )
}

pub(super) fn row(packet: &PacketRecord) -> String {
    let dash = || "-".to_owned();
    let counts = &packet.counts;
    let row = format!(
        "{:>7}  {:>7}  {:>12}  {:>5}  {:>10}  {:<10}  {:>6}  {:>5}  {:>5}  {:>8}  {:>6}  {}",
        packet.channel,
        packet.packet,
        packet.offset,
        packet.round,
        packet.packet_num.map_or_else(dash, |number| number.to_string()),
        flags(packet).join(" "),
        counts.normal_pages,
        counts.raw_pages,
        counts.zero_pages,
        counts.payload_bytes,
        counts.ratio(packet.page_size).map_or_else(dash, |ratio| format!("{ratio:.2}")),
        packet.name.as_ref().map_or("", BlockName::as_str),
    );
    one_line(row.trim_end())
}

/// The names of the packet's flags. `none` is named only if there are pages.
pub(super) fn flags(packet: &PacketRecord) -> Vec<String> {
    let names = [(PacketFlags::SYNC, "sync"), (PacketFlags::DEVICE_STATE, "device-state")];
    let set = names.into_iter().filter(|(flag, _)| packet.flags.contains(*flag));
    let mut flags: Vec<_> = set.map(|(_, name)| name.to_owned()).collect();
    let compression = Compression::of(packet.flags);
    let has_pages = packet.counts.normal_pages + packet.counts.zero_pages > 0;
    if has_pages || compression != Compression::None {
        flags.push(compression.to_string());
    }
    flags
}
