//! One round of a migration, event by event.
//!
//! ```text
//! feed → source channel ──→ socket ─→ link ─→ socket ─→ destination channel → memory
//!            │   ▲            bounded, so a slow side holds      │   ▲
//!            ▼   │            up the other                       ▼   │
//!        queues and engines                              queues and engines
//! ```
//!
//! Each channel of each side has at most one event ahead of it: the end of what it is doing. Events
//! happen in the order of their times, those of one time in the order of the channels, so that a
//! run is always the same. A packet moves as a whole; what goes to a device goes page by page.

mod costs;
mod destination;
mod devices;
mod jobs;
mod source;
mod tally;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::codec::Codec;
use super::parameters::Parameters;
use super::workload::{Shape, Workload};
use costs::Costs;
use destination::Destination;
use devices::Devices;
use source::Source;
pub(super) use tally::{SideTally, Tally};

/// Simulates one round: everything of `workload` from one memory into the other, until the last
/// channel is done. `placed` is told of pages as they arrive.
pub(super) fn round(
    parameters: &Parameters,
    codec: &Codec,
    workload: &Workload,
    channels: u8,
    placed: &mut dyn FnMut(u64),
) -> Tally {
    let devices = &parameters.devices;
    let mut round = Round {
        costs: Costs::new(parameters, codec),
        packets: workload.packets(),
        fed_at: 0,
        link_free: 0,
        socket_buffer: parameters.link.socket_buffer,
        sources: (0..channels).map(|_| Source::default()).collect(),
        destinations: (0..channels).map(|_| Destination::default()).collect(),
        source_devices: Devices::new(devices, devices.compress),
        destination_devices: Devices::new(devices, devices.decompress),
        agenda: (0..channels).map(|channel| Reverse((0, Actor::Source(channel)))).collect(),
        tally: Tally::default(),
        placed,
    };
    round.run();
    round.tally
}

struct Round<'a, P> {
    costs: Costs,
    packets: P,
    /// When the thread that hands out pages has those of the next packet.
    fed_at: u64,
    /// When the link is free. It carries packets in the order in which they were written.
    link_free: u64,
    socket_buffer: u64,
    sources: Vec<Source>,
    destinations: Vec<Destination>,
    source_devices: Devices,
    destination_devices: Devices,
    agenda: BinaryHeap<Reverse<(u64, Actor)>>,
    tally: Tally,
    placed: &'a mut dyn FnMut(u64),
}

/// Whose event it is: the channel with that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Actor {
    Source(u8),
    Destination(u8),
}

impl<P: Iterator<Item = Shape>> Round<'_, P> {
    fn run(&mut self) {
        while let Some(Reverse((now, actor))) = self.agenda.pop() {
            self.act(now, actor);
        }
    }

    /// Lets `actor` go on for as long as nobody else's event comes first.
    fn act(&mut self, mut now: u64, actor: Actor) {
        loop {
            self.tally.elapsed_ns = self.tally.elapsed_ns.max(now);
            let next = match actor {
                Actor::Source(channel) => self.source(channel, now),
                Actor::Destination(channel) => self.destination(channel, now),
            };
            let Some(next) = next else { return };
            if self.agenda.peek().is_some_and(|Reverse(first)| *first < (next, actor)) {
                self.agenda.push(Reverse((next, actor)));
                return;
            }
            now = next;
        }
    }

    /// The next packet, and when its pages have been handed out to whoever asks at `now`. The next
    /// one's are being looked for from then on.
    fn feed(&mut self, now: u64) -> Option<(u64, Shape)> {
        let packet = self.packets.next()?;
        let spent = self.costs.feed(packet);
        self.tally.feed_ns += spent;
        let given = now.max(self.fed_at);
        self.fed_at = given + spent;
        Some((given, packet))
    }

    /// Sends a packet over the link. Returns when it is on the other side.
    fn transmit(&mut self, now: u64, packet: Shape) -> u64 {
        let spent = self.costs.transmit(packet);
        self.link_free = self.link_free.max(now) + spent;
        self.tally.link_ns += spent;
        self.tally.wire_bytes += packet.wire_bytes();
        self.link_free
    }
}
