//! One round of a migration, event by event.
//!
//! ```text
//! feed → source channel ──→ socket ─→ link ─→ socket ─→ destination channel → memory
//!            │   ▲            bounded, so a slow side            │   ▲
//!            ▼   │            slows down the other              ▼   │
//!        queues and engines                              queues and engines
//! ```
//!
//! Each channel of each side has at most one event ahead: the end of what it is doing. Events happen
//! in the order of their times, and those of the same time in the order of the channels. So the same
//! input always gives the same result. A packet moves as a whole; pages go to devices one by one.

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

use crate::codec::Codec;
use crate::parameters::Parameters;
use crate::workload::{Shape, Workload};
use costs::Costs;
use destination::Destination;
use devices::Devices;
use source::Source;
pub use tally::{SideTally, Tally};

/// Simulates one round: all of `workload` goes from one memory into the other, until the last
/// channel is done. `placed` is called with the number of pages as packets arrive.
pub(crate) fn round(
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
    /// When the thread that hands out pages has the pages of the next packet.
    fed_at: u64,
    /// When the link is free. It carries packets in the order of writing.
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

/// The channel whose event it is.
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

    /// Lets `actor` go on until another channel's event comes first.
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

    /// The next packet, for a channel that asks at `now`, and when its pages are handed out. From
    /// then on the thread collects the pages of the packet after it.
    fn feed(&mut self, now: u64) -> Option<(u64, Shape)> {
        let packet = self.packets.next()?;
        let spent = self.costs.feed(packet);
        self.tally.feed_ns += spent;
        let given = now.max(self.fed_at);
        self.fed_at = given + spent;
        Some((given, packet))
    }

    /// Sends a packet over the link. Returns when it has arrived.
    fn transmit(&mut self, now: u64, packet: Shape) -> u64 {
        let spent = self.costs.transmit(packet);
        self.link_free = self.link_free.max(now) + spent;
        self.tally.link_ns += spent;
        self.tally.wire_bytes += packet.wire_bytes();
        self.link_free
    }
}
