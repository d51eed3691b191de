//! How far a channel had come when.

use std::time::Duration;

/// The most points that are kept of a channel.
const MOST: usize = 512;

/// The progress of a channel, in a few hundred points, however long the migration is.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    points: Vec<TracePoint>,
    last: Option<TracePoint>,
    /// One point is kept for this many packets.
    stride: u64,
}

/// How far a channel had come after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracePoint {
    /// Bytes of the channel up to the packet's end.
    pub offset: u64,
    /// When the packet had come, since the start of the migration, if that is known.
    pub time: Option<Duration>,
    /// Packets up to this one.
    pub packets: u64,
}

impl Trace {
    /// The points in order, those of the first and the last packet included.
    pub fn points(&self) -> impl Iterator<Item = TracePoint> {
        let last = self.last.filter(|last| self.points.last() != Some(last));
        self.points.iter().copied().chain(last)
    }

    pub(super) fn push(&mut self, point: TracePoint) {
        self.stride = self.stride.max(1);
        if point.packets % self.stride == 1 % self.stride {
            self.points.push(point);
        }
        self.last = Some(point);
        if self.points.len() == MOST {
            let mut nth = 0;
            self.points.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.stride *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_trace_keeps_evenly_spaced_points_and_both_ends() {
        for packets in [1, 2, 511, 512, 513, 100_000] {
            let mut trace = Trace::default();
            for packet in 1..=packets {
                trace.push(TracePoint { offset: packet * 10, time: None, packets: packet });
            }
            let points: Vec<_> = trace.points().map(|point| point.packets).collect();
            assert!(points.len() <= MOST, "{packets}");
            assert_eq!((points[0], points[points.len() - 1]), (1, packets));
            let steps: Vec<_> = points.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let inner = &steps[..steps.len().saturating_sub(1)];
            assert!(inner.iter().all(|step| *step == inner[0]), "{packets}: {steps:?}");
        }
    }
}
