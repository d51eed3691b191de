//! What each step costs in nanoseconds, by the figures of the machines.

use super::jobs::JobCosts;
use crate::codec::{Codec, Work};
use crate::parameters::{Parameters, Speed};
use crate::workload::{PAGE, Shape};

#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    scan_page: f64,
    place_page: f64,
    send_byte: f64,
    receive_byte: f64,
    link_byte: f64,
    feed_page: f64,
    packet: f64,
    compress_page: f64,
    decompress_page: f64,
    /// CPU time of pages that go to devices, at the source and at the destination.
    pub(super) jobs: Option<[JobCosts; 2]>,
}

impl Costs {
    pub(super) fn new(parameters: &Parameters, codec: &Codec) -> Self {
        let Parameters { link, cpu, devices, .. } = parameters;
        let page = |speed: Speed| speed.ns(PAGE);
        let (compress_page, decompress_page, jobs) = match codec.work {
            Work::Nothing => (0.0, 0.0, None),
            Work::Cpu(speed) => (page(speed.compress), page(speed.decompress), None),
            Work::Devices(fallback) => {
                let jobs = |speed| JobCosts {
                    submit: devices.submit_ns,
                    collect: devices.collect_ns,
                    software: page(speed).round() as u64,
                };
                (0.0, 0.0, Some([jobs(fallback.compress), jobs(fallback.decompress)]))
            }
        };
        Self {
            scan_page: page(cpu.scan),
            // Uncompressed pages are received in place.
            place_page: if matches!(codec.work, Work::Nothing) { 0.0 } else { page(cpu.copy) },
            send_byte: cpu.send.ns(1),
            receive_byte: cpu.receive.ns(1),
            link_byte: link.bytes_per_second.ns(1) / link.efficiency,
            feed_page: cpu.feed_ns as f64,
            packet: cpu.packet_ns as f64,
            compress_page,
            decompress_page,
            jobs,
        }
    }

    /// Handing out the packet's pages to a channel.
    pub(super) fn feed(&self, packet: Shape) -> u64 {
        (packet.pages() as f64 * self.feed_page).round() as u64
    }

    /// Private copies, the scan for zeros, and compression on the CPU.
    pub(super) fn prepare(&self, packet: Shape) -> u64 {
        let pages = packet.pages() as f64 * self.scan_page;
        (self.packet + pages + packet.normal as f64 * self.compress_page).round() as u64
    }

    pub(super) fn send(&self, packet: Shape) -> u64 {
        (packet.wire_bytes() as f64 * self.send_byte).round() as u64
    }

    pub(super) fn transmit(&self, packet: Shape) -> u64 {
        (packet.wire_bytes() as f64 * self.link_byte).ceil() as u64
    }

    pub(super) fn receive(&self, packet: Shape) -> u64 {
        (self.packet + packet.wire_bytes() as f64 * self.receive_byte).round() as u64
    }

    /// Decompression on the CPU, and placing the pages.
    pub(super) fn place(&self, packet: Shape) -> u64 {
        let page = self.decompress_page + self.place_page;
        (packet.normal as f64 * page).round() as u64
    }
}
