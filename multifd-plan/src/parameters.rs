//! The figures of two machines and the link between them.

use std::num::NonZeroU8;

use serde::Serialize;

/// Bytes in a second.
///
/// Its limits, with those of [`MAX_BYTES`](crate::MAX_BYTES), keep all simulated times within 64
/// bits of nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Speed(f64);

impl Speed {
    /// 1 MB/s.
    pub const MIN: Self = Self(1e6);
    /// 1 PB/s.
    pub const MAX: Self = Self(1e15);

    /// The speed of that many bytes in a second; `None` outside of [`MIN`](Self::MIN) to
    /// [`MAX`](Self::MAX).
    pub const fn new(bytes_per_second: f64) -> Option<Self> {
        if bytes_per_second >= Self::MIN.0 && bytes_per_second <= Self::MAX.0 {
            Some(Self(bytes_per_second))
        } else {
            None
        }
    }

    /// The speed nearest to that many bytes in a second.
    pub(crate) const fn nearest(bytes_per_second: f64) -> Self {
        Self(bytes_per_second.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Bytes in a second.
    pub const fn bytes_per_second(self) -> f64 {
        self.0
    }

    /// The nanoseconds that `bytes` bytes take.
    pub(crate) fn ns(self, bytes: usize) -> f64 {
        bytes as f64 * 1e9 / self.0
    }
}

/// Everything that the simulation knows about the machines. Both sides are the same.
///
/// `docs/planning.md` says where each default comes from. Times are in nanoseconds. Those of a page
/// or a packet are meant to be below a millisecond, the others below an hour; far longer ones
/// overflow.
#[non_exhaustive]
#[derive(Clone, Debug, Serialize)]
pub struct Parameters {
    /// The link between both machines.
    pub link: LinkFigures,
    /// One core of either machine.
    pub cpu: CpuFigures,
    /// The accelerators of either machine.
    pub devices: DeviceFigures,
    /// Time before the first page: connections, the set-up of the channels.
    pub setup_ns: u64,
    /// Time after the last page: the device state, and the guest's start.
    pub switchover_ns: u64,
}

/// The link.
#[non_exhaustive]
#[derive(Clone, Debug, Serialize)]
pub struct LinkFigures {
    /// The speed on the line.
    pub bytes_per_second: Speed,
    /// The share of the line that is payload of TCP: above 0, at most 1.
    pub efficiency: f64,
    /// The most bytes of one channel that are on their way, in the buffers of both sides.
    pub socket_buffer: u64,
}

/// What one core does.
#[non_exhaustive]
#[derive(Clone, Debug, Serialize)]
pub struct CpuFigures {
    /// The scan for zeros together with the private copy, in bytes of pages.
    pub scan: Speed,
    /// Placing decompressed pages in guest memory.
    pub copy: Speed,
    /// Writing to a socket.
    pub send: Speed,
    /// Reading from a socket.
    pub receive: Speed,
    /// CPU time of one packet on either side, besides its pages and bytes.
    pub packet_ns: u64,
    /// CPU time of one page in the thread that finds dirty pages and hands them out.
    pub feed_ns: u64,
}

/// The accelerators of one side.
#[non_exhaustive]
#[derive(Clone, Debug, Serialize)]
pub struct DeviceFigures {
    /// Devices; with 0 of them, the CPU compresses every page.
    pub count: u8,
    /// Engines of one device that work at the same time.
    pub engines: NonZeroU8,
    /// Bytes of pages that one engine compresses.
    pub compress: Speed,
    /// Bytes of pages that one engine restores.
    pub decompress: Speed,
    /// Time to the device and back, besides the engine's work.
    pub latency_ns: u64,
    /// Pages that can wait in the queue of one device.
    pub queue_depth: u16,
    /// CPU time to submit a page, whether or not the queue has room.
    pub submit_ns: u64,
    /// CPU time to collect a finished page.
    pub collect_ns: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        const TWO: NonZeroU8 = NonZeroU8::MIN.saturating_add(1);
        Self {
            link: LinkFigures {
                bytes_per_second: Speed(12.5e9),
                efficiency: 1448.0 / 1538.0,
                socket_buffer: 4 << 20,
            },
            cpu: CpuFigures {
                scan: Speed(20e9),
                copy: Speed(20e9),
                send: Speed(5.94e9),
                receive: Speed(5.94e9),
                packet_ns: 1000,
                feed_ns: 75,
            },
            devices: DeviceFigures {
                count: 4,
                engines: TWO,
                compress: Speed(1.74e9),
                decompress: Speed(1.9e9),
                latency_ns: 1000,
                queue_depth: 128,
                submit_ns: 60,
                collect_ns: 60,
            },
            setup_ns: 0,
            switchover_ns: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_outside_its_limits_or_that_is_not_a_number_is_refused() {
        for speed in [0.0, -1.0, 999_999.0, 1.1e15, f64::INFINITY, f64::NAN] {
            assert_eq!(Speed::new(speed), None, "{speed}");
        }
        for speed in [1e6, 12.5e9, 1e15] {
            assert_eq!(Speed::new(speed).map(Speed::bytes_per_second), Some(speed));
        }
    }
}
