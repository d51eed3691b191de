//! A channel of the destination.

use std::collections::VecDeque;

use super::Round;
use super::jobs::Jobs;
use crate::workload::Shape;

#[derive(Debug, Default)]
pub(super) struct Destination {
    stage: Stage,
    jobs: Jobs,
    /// Packets on the way, each with the time of its arrival.
    coming: VecDeque<(u64, Shape)>,
}

/// What the channel does, up to its next event.
#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// It waits, and no packet is on the way.
    #[default]
    Waiting,
    /// The next packet arrives.
    Arriving,
    /// A packet has been read.
    Read(Shape),
    /// Its pages are submitted to devices one by one.
    Submitting(Shape),
    /// All of its pages are in place.
    Placed(Shape),
}

impl Destination {
    /// Announces a packet. Returns whether the channel must be woken on its arrival.
    pub(super) fn expect(&mut self, arrival: u64, packet: Shape) -> bool {
        self.coming.push_back((arrival, packet));
        let waited = matches!(self.stage, Stage::Waiting);
        if waited {
            self.stage = Stage::Arriving;
        }
        waited
    }
}

impl<P: Iterator<Item = Shape>> Round<'_, P> {
    /// What the channel does at `now`. Returns the time of its next event; `None` if no packet is on
    /// the way.
    pub(super) fn destination(&mut self, channel: u8, now: u64) -> Option<u64> {
        let index = usize::from(channel);
        let (stage, next) = match self.destinations[index].stage {
            Stage::Waiting => (Stage::Waiting, None),
            Stage::Arriving => self.read(index, now),
            Stage::Read(packet) => {
                self.make_room(channel, now, packet);
                self.unpack(index, packet, now)
            }
            Stage::Submitting(packet) => self.submit_at_destination(index, packet, now),
            Stage::Placed(packet) => {
                self.tally.destination.pages += packet.pages();
                (self.placed)(packet.pages());
                self.read(index, now)
            }
        };
        self.destinations[index].stage = stage;
        next
    }

    fn read(&mut self, index: usize, now: u64) -> (Stage, Option<u64>) {
        let coming = &mut self.destinations[index].coming;
        match coming.front() {
            None => (Stage::Waiting, None),
            Some(&(arrival, _)) if arrival > now => (Stage::Arriving, Some(arrival)),
            Some(&(_, packet)) => {
                coming.pop_front();
                let spent = self.costs.receive(packet);
                self.tally.destination.busy_ns += spent;
                (Stage::Read(packet), Some(now + spent))
            }
        }
    }

    fn unpack(&mut self, index: usize, packet: Shape, now: u64) -> (Stage, Option<u64>) {
        if self.costs.jobs.is_some() {
            self.destinations[index].jobs.begin(packet.normal);
            return (Stage::Submitting(packet), Some(now));
        }
        self.tally.destination.software_pages += packet.normal;
        self.place(packet, now)
    }

    fn submit_at_destination(
        &mut self,
        index: usize,
        packet: Shape,
        now: u64,
    ) -> (Stage, Option<u64>) {
        let Some([_, costs]) = self.costs.jobs else { return self.place(packet, now) };
        let (jobs, side) = (&mut self.destinations[index].jobs, &mut self.tally.destination);
        match jobs.submit(now, &mut self.destination_devices, costs, side) {
            Some(next) => (Stage::Submitting(packet), Some(next)),
            None => {
                let collected = jobs.collect(now, costs, side);
                self.place(packet, collected)
            }
        }
    }

    fn place(&mut self, packet: Shape, now: u64) -> (Stage, Option<u64>) {
        let spent = self.costs.place(packet);
        self.tally.destination.busy_ns += spent;
        (Stage::Placed(packet), Some(now + spent))
    }
}
