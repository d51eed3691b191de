//! The figures of two machines and the link between them.

use serde::Serialize;

/// Everything that the simulation knows about the machines. Both have the same.
/// `docs/planning.md` says where each default comes from.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Parameters {
    pub(super) link: LinkFigures,
    pub(super) cpu: CpuFigures,
    pub(super) devices: DeviceFigures,
    /// Before the first page: connections, the set-up of the channels.
    pub(super) setup_ns: u64,
    /// Behind the last page: the device state, and the guest's start.
    pub(super) switchover_ns: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct LinkFigures {
    /// On the line.
    pub(super) bytes_per_second: f64,
    /// The share of the line that is payload of TCP.
    pub(super) efficiency: f64,
    /// The most bytes that are on their way on one channel, in the buffers of both sides.
    pub(super) socket_buffer: u64,
}

/// What one core does. Speeds in bytes a second.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CpuFigures {
    /// The scan for zeros with the private copy.
    pub(super) scan: f64,
    /// Placing decompressed pages in guest memory.
    pub(super) copy: f64,
    pub(super) send: f64,
    pub(super) receive: f64,
    /// Of one packet on either side, beyond its pages and bytes.
    pub(super) packet_ns: u64,
    /// Of one page in the thread that looks for dirty pages and hands them out.
    pub(super) feed_ns: u64,
}

/// The accelerators of one side.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DeviceFigures {
    pub(super) count: u8,
    /// Engines of one device that work at the same time.
    pub(super) engines: u8,
    /// Bytes of pages that one engine takes in a second.
    pub(super) compress: f64,
    /// Bytes of pages that one engine gives in a second.
    pub(super) decompress: f64,
    /// From the end of a page's work until the CPU can see it, the way there included.
    pub(super) latency_ns: u64,
    /// Pages that can wait in the queue of one device.
    pub(super) queue_depth: u16,
    /// CPU time for submitting a page, and for a try that is refused.
    pub(super) submit_ns: u64,
    /// CPU time for taking a finished page.
    pub(super) collect_ns: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            link: LinkFigures {
                bytes_per_second: 12.5e9,
                efficiency: 1448.0 / 1538.0,
                socket_buffer: 4 << 20,
            },
            cpu: CpuFigures {
                scan: 20e9,
                copy: 20e9,
                send: 5.94e9,
                receive: 5.94e9,
                packet_ns: 1000,
                feed_ns: 75,
            },
            devices: DeviceFigures {
                count: 4,
                engines: 2,
                compress: 1.74e9,
                decompress: 1.9e9,
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

/// Speeds of a codec on one core, in bytes of pages a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct CodecSpeed {
    pub(super) compress: f64,
    pub(super) decompress: f64,
}

/// A published test, with everything that a plan needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preset {
    pub(super) bytes: u64,
    pub(super) zero_share: f64,
    pub(super) setup_ns: u64,
    codecs: &'static [(&'static str, f64, CodecSpeed)],
}

/// Intel's test of QEMU with 64 GB of memory, 4 IAA a side and 100 Gbit/s.
pub(super) const XEON_4TH_GEN_64G: Preset = Preset {
    bytes: 64 << 30,
    zero_share: 0.0925,
    setup_ns: 440_000_000,
    codecs: &[
        ("none", 1.0, CodecSpeed { compress: 1e12, decompress: 1e12 }),
        ("qpl-hardware", 1.97, QPL_SOFTWARE),
        ("qpl-software", 1.755, QPL_SOFTWARE),
        ("zstd", 2.925, CodecSpeed { compress: 420e6, decompress: 1600e6 }),
    ],
};

const QPL_SOFTWARE: CodecSpeed = CodecSpeed { compress: 457e6, decompress: 780e6 };

impl Preset {
    /// The names of its codecs.
    pub(super) fn codecs(&self) -> impl Iterator<Item = &'static str> {
        self.codecs.iter().map(|(name, ..)| *name)
    }

    /// The ratio of a codec and its speeds.
    pub(super) fn codec(&self, name: &str) -> Option<(f64, CodecSpeed)> {
        let found = self.codecs.iter().find(|(other, ..)| *other == name);
        found.map(|&(_, ratio, speed)| (ratio, speed))
    }
}
