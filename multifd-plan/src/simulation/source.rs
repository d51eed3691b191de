//! A channel of the source.

use std::cmp::Reverse;

use super::jobs::Jobs;
use super::{Actor, Round};
use crate::workload::Shape;

#[derive(Debug, Default)]
pub(super) struct Source {
    stage: Stage,
    jobs: Jobs,
    /// Bytes that the channel has written and the destination has not read.
    in_flight: u64,
}

/// What the channel does, up to its next event.
#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// It has nothing to do.
    #[default]
    Idle,
    /// Its pages are copied and are submitted to devices one by one.
    Submitting(Shape),
    /// The payload is complete.
    Ready(Shape),
    /// The socket has no room since that time.
    Blocked { packet: Shape, since: u64 },
    /// The packet is in the socket.
    Written(Shape),
}

impl<P: Iterator<Item = Shape>> Round<'_, P> {
    /// What the channel does at `now`. Returns the time of its next event; `None` if it waits for
    /// the destination, or is done.
    pub(super) fn source(&mut self, channel: u8, now: u64) -> Option<u64> {
        let index = usize::from(channel);
        let (stage, next) = match self.sources[index].stage {
            Stage::Idle => self.begin(index, now)?,
            Stage::Submitting(packet) => self.submit(index, packet, now),
            Stage::Ready(packet) => self.write(index, packet, now),
            Stage::Blocked { packet, since } => {
                self.tally.blocked_ns += now - since;
                self.write(index, packet, now)
            }
            Stage::Written(packet) => {
                let arrival = self.transmit(now, packet);
                if self.destinations[index].expect(arrival, packet) {
                    self.agenda.push(Reverse((arrival, Actor::Destination(channel))));
                }
                (Stage::Idle, Some(now))
            }
        };
        self.sources[index].stage = stage;
        next
    }

    fn begin(&mut self, index: usize, now: u64) -> Option<(Stage, Option<u64>)> {
        let (given, packet) = self.feed(now)?;
        let spent = self.costs.prepare(packet);
        let side = &mut self.tally.source;
        side.busy_ns += spent;
        side.pages += packet.pages();
        if self.costs.jobs.is_none() {
            side.software_pages += packet.normal;
        }
        self.tally.normal_pages += packet.normal;
        self.tally.zero_pages += packet.zero;
        self.sources[index].jobs.begin(packet.normal);
        let stage = match self.costs.jobs {
            Some(_) => Stage::Submitting(packet),
            None => Stage::Ready(packet),
        };
        Some((stage, Some(given + spent)))
    }

    fn submit(&mut self, index: usize, packet: Shape, now: u64) -> (Stage, Option<u64>) {
        let Some([costs, _]) = self.costs.jobs else { return (Stage::Ready(packet), Some(now)) };
        let (jobs, side) = (&mut self.sources[index].jobs, &mut self.tally.source);
        match jobs.submit(now, &mut self.source_devices, costs, side) {
            Some(next) => (Stage::Submitting(packet), Some(next)),
            None => (Stage::Ready(packet), Some(jobs.collect(now, costs, side))),
        }
    }

    /// Writes the packet if the socket has room. A packet larger than the buffer is written when the
    /// buffer is empty.
    fn write(&mut self, index: usize, packet: Shape, now: u64) -> (Stage, Option<u64>) {
        let bytes = packet.wire_bytes();
        let in_flight = &mut self.sources[index].in_flight;
        if *in_flight > 0 && *in_flight + bytes > self.socket_buffer {
            return (Stage::Blocked { packet, since: now }, None);
        }
        *in_flight += bytes;
        let spent = self.costs.send(packet);
        self.tally.source.busy_ns += spent;
        (Stage::Written(packet), Some(now + spent))
    }

    /// The destination has read a packet of the channel.
    pub(super) fn make_room(&mut self, channel: u8, now: u64, packet: Shape) {
        let source = &mut self.sources[usize::from(channel)];
        source.in_flight -= packet.wire_bytes();
        if matches!(source.stage, Stage::Blocked { .. }) {
            self.agenda.push(Reverse((now, Actor::Source(channel))));
        }
    }
}
