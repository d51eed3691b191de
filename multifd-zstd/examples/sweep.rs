//! Compares sets of libzstd's parameters, and each level's set with libzstd's own, on images of guest memory.
//!
//! `cargo run --release -p multifd-zstd --example sweep -- IMAGE… [--rounds N] [--channels N]
//! [STRATEGY,WINDOW,CHAIN,HASH,SEARCH,MATCH,TARGET]…`
//!
//! Of each image, every fourth packet of 128 non-zero pages goes through one stream, as one of 4 channels has it. A packet
//! is copied from the image before its time begins, as a channel does, and is decompressed at once. Times are CPU times of
//! the thread; all sets take turns within a round. The columns are MB (10^6 bytes) of pages a second, compressed and
//! decompressed, as medians over the rounds, and the ratio. A strategy is a number, 1 for fast.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]
#![allow(clippy::unwrap_used, reason = "a program for developers, who see where it fails")]

use std::path::Path;
use std::time::Duration;

use multifd_core::codec::PacketCodec;
use multifd_core::{MAX_PAYLOAD, PACKET_BYTES, PageSize};
use multifd_zstd::Zstd;
use rustix::time::{ClockId, clock_gettime};
use zstd_safe::zstd_sys::{ZSTD_EndDirective::ZSTD_e_flush, ZSTD_strategy};
use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective};

const PAGE_BYTES: usize = PageSize::Kib4.bytes();

fn main() {
    let (mut rounds, mut channels) = (9, 4);
    let (mut images, mut sets) = (Vec::new(), levels());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match &*arg {
            "--rounds" => rounds = args.next().unwrap().parse().unwrap(),
            "--channels" => channels = args.next().unwrap().parse().unwrap(),
            set if set.contains(',') => sets.push(Set::new(set)),
            image => images.push(image.to_owned()),
        }
    }
    let images: Vec<_> = images.iter().map(|image| Image::read(image, channels)).collect();
    for _ in 0..rounds {
        for (index, image) in images.iter().enumerate() {
            sets.iter_mut().for_each(|set| set.measure(index, image));
        }
    }
    print!("{:<20} {:>13} {:>16}", "", "KiB", "all");
    images.iter().for_each(|image| print!(" {:>16}", image.name));
    println!();
    sets.iter().for_each(Set::print);
}

/// Each level from -5 to 3, by libzstd's own parameters and by this crate's.
fn levels() -> Vec<Set> {
    let pairs = (-5..=3).flat_map(|level| {
        let mut own = CCtx::create();
        own.set_parameter(CParameter::CompressionLevel(level)).unwrap();
        let codec = Zstd::new();
        let config = codec.descriptor().config(0, PageSize::Kib4, Some(level)).unwrap();
        let ours = codec.encoder(&config).unwrap();
        [(format!("{level} libzstd"), own), (format!("{level} multifd"), ours)]
    });
    pairs.map(|(name, compressor)| Set::of(name, compressor)).collect()
}

struct Image {
    name: String,
    packets: Vec<Vec<u8>>,
}

impl Image {
    fn read(path: &str, channels: usize) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let pages: Vec<_> =
            bytes.chunks_exact(PAGE_BYTES).filter(|page| page.iter().any(|&b| b != 0)).collect();
        let packets = pages.chunks_exact(PageSize::Kib4.page_count()).step_by(channels);
        let packets = packets.map(<[&[u8]]>::concat);
        let name = Path::new(path).file_stem().unwrap().to_string_lossy().into_owned();
        Self { name, packets: packets.collect() }
    }
}

struct Set {
    name: String,
    compressor: CCtx<'static>,
    decompressor: DCtx<'static>,
    images: Vec<Measured>,
}

/// What a set makes of an image.
#[derive(Default)]
struct Measured {
    times: [Vec<Duration>; 2],
    bytes: usize,
    sent: usize,
}

impl Set {
    fn new(name: &str) -> Self {
        let mut numbers = name.split(',').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        let mut compressor = CCtx::create();
        for parameter in [
            CParameter::Strategy(strategy(next() as usize)),
            CParameter::WindowLog(next()),
            CParameter::ChainLog(next()),
            CParameter::HashLog(next()),
            CParameter::SearchLog(next()),
            CParameter::MinMatch(next()),
            CParameter::TargetLength(next()),
        ] {
            compressor.set_parameter(parameter).unwrap();
        }
        Self::of(name.to_owned(), compressor)
    }

    fn of(name: String, compressor: CCtx<'static>) -> Self {
        Self { name, compressor, decompressor: DCtx::create(), images: Vec::new() }
    }

    fn measure(&mut self, index: usize, image: &Image) {
        if self.images.len() == index {
            self.images.push(Measured::default());
        }
        let measured = &mut self.images[index];
        (measured.bytes, measured.sent) = (0, 0);
        let mut private = vec![0; PACKET_BYTES];
        let mut payload = vec![0; MAX_PAYLOAD];
        let mut times = [Duration::ZERO; 2];
        self.compressor.reset(ResetDirective::SessionOnly).unwrap();
        self.decompressor.reset(ResetDirective::SessionOnly).unwrap();
        for packet in &image.packets {
            private.copy_from_slice(packet);
            let mut output = OutBuffer::around(&mut payload[..]);
            times[0] += cpu_time(|| {
                let mut input = InBuffer::around(&private);
                let left = self.compressor.compress_stream2(&mut output, &mut input, ZSTD_e_flush);
                assert_eq!(left, Ok(0));
            });
            measured.bytes += packet.len();
            measured.sent += output.pos();
            let mut input = InBuffer::around(output.as_slice());
            times[1] += cpu_time(|| {
                let mut output = OutBuffer::around(&mut private[..]);
                self.decompressor.decompress_stream(&mut output, &mut input).unwrap();
            });
            assert!(private == *packet, "{}", self.name);
        }
        measured.times.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
    }

    /// Prints memory and figures; those of all images are geometric means.
    fn print(&self) {
        let [compressor, decompressor] = [self.compressor.sizeof(), self.decompressor.sizeof()];
        print!("{:<20} {:>6} {:>6}", self.name, compressor >> 10, decompressor >> 10);
        let figures: Vec<_> = self.images.iter().map(Measured::figures).collect();
        let mean = [0, 1, 2].map(|figure| {
            let logarithms: f64 = figures.iter().map(|figures| figures[figure].ln()).sum();
            (logarithms / figures.len() as f64).exp()
        });
        for [compress, decompress, ratio] in [mean].iter().chain(&figures) {
            print!(" {compress:>4.0} {decompress:>5.0} {ratio:>5.3}");
        }
        println!();
    }
}

impl Measured {
    /// MB/s of both ways, and the ratio.
    fn figures(&self) -> [f64; 3] {
        let [compress, decompress] = [0, 1].map(|way| {
            let mut times = self.times[way].clone();
            times.sort();
            self.bytes as f64 / 1e6 / times[times.len() / 2].as_secs_f64()
        });
        [compress, decompress, self.bytes as f64 / self.sent as f64]
    }
}

fn strategy(number: usize) -> ZSTD_strategy {
    use ZSTD_strategy::*;
    [ZSTD_fast, ZSTD_dfast, ZSTD_greedy, ZSTD_lazy, ZSTD_lazy2, ZSTD_btlazy2][number - 1]
}

fn cpu_time(work: impl FnOnce()) -> Duration {
    let before = thread_time();
    work();
    thread_time() - before
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}
