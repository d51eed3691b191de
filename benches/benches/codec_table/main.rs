//! Compares codecs on the same pages in one run: how fast each compresses and how far, and how fast each decoder of
//! DEFLATE restores what each encoder made.
//!
//! `cargo bench -p multifd-benches --bench codec_table -- 9 --svg FILE` repeats 9 times, and draws the encoders.
//! Times are those of the thread on its CPU, figures the medians over the repetitions.
#![allow(clippy::print_stdout, reason = "the tables are what this program is for")]

mod chart;
mod engines;
mod measure;

use std::path::PathBuf;
use std::{env, fs};

use multifd_benches::{Guest, PAGE_BYTES, load, mark_if_busy_above};

use crate::engines::{Decoder, Encoder, Engines};
use crate::measure::{Measured, measure};

/// The load, over one minute, above which figures do not count: here, engines of nearly the same speed are compared.
const QUIET: f64 = 0.3;

/// Packets of memory to measure with.
const PACKETS: usize = 64;

fn main() {
    let args = Args::parse();
    mark_if_busy_above(QUIET);
    let load = load().map_or("not known".to_owned(), |load| format!("{load:.2}"));
    println!("{}; load before: {load}", processor());
    let guest = Guest::load();
    let packets = guest.sample(PACKETS);
    let pages: Vec<_> =
        packets.iter().flat_map(|packet| packet.private.chunks_exact(PAGE_BYTES)).collect();
    println!(
        "{}: {} non-zero pages; {} repetitions",
        guest.origin(),
        pages.len(),
        args.repetitions
    );
    let mut engines = Engines::open();
    for line in &engines.absent {
        println!("{line}");
    }
    let measured = measure(&mut engines, &pages, args.repetitions);
    print_encoders(&engines.encoders, &measured);
    print_decoders(&engines.encoders, &engines.decoders, &measured);
    if let Some(file) = args.svg {
        let svg = chart::draw(&engines.encoders, &measured).expect("the chart can be drawn");
        fs::write(&file, svg).unwrap_or_else(|error| {
            panic!("{} cannot be written: {error}", file.display());
        });
    }
}

struct Args {
    repetitions: usize,
    svg: Option<PathBuf>,
}

impl Args {
    fn parse() -> Self {
        let mut parsed = Self { repetitions: 9, svg: None };
        let mut args = env::args_os().skip(1);
        while let Some(arg) = args.next() {
            if arg == "--svg" {
                parsed.svg = Some(args.next().expect("--svg wants a file").into());
            } else if arg != "--bench" {
                let number = arg.to_str().and_then(|arg| arg.parse().ok());
                let number = number.filter(|&number| number > 0);
                parsed.repetitions = number.unwrap_or_else(|| {
                    let arg = arg.to_string_lossy();
                    panic!("{arg} is neither a number of repetitions nor --svg");
                });
            }
        }
        parsed
    }
}

/// What Linux says of the first processor.
fn processor() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let mut fields = cpus.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(key, _)| key.trim() == name);
        found.map_or("not known", |(_, value)| value.trim())
    };
    let [name, family, model] = ["model name", "cpu family", "model"].map(field);
    format!("processor: {name}, family {family}, model {model}")
}

fn print_encoders(encoders: &[Encoder], measured: &[Measured]) {
    println!("\n{:<22} {:>6} {:>10} {:>6} {:>6}", "compress", "MB/s", "spread", "ratio", "raw");
    for (encoder, measured) in encoders.iter().zip(measured) {
        let (speed, chunks) = (measured.encode, &measured.chunks);
        println!("{:<22} {speed} {:>6.3} {:>6}", encoder.name, chunks.ratio(), chunks.raw());
    }
    println!("(raw: pages that did not get shorter, in the ratio with all their bytes)");
}

fn print_decoders(encoders: &[Encoder], decoders: &[Decoder], measured: &[Measured]) {
    print!("\n{:<22}", "decompress, MB/s, of");
    for decoder in decoders {
        print!(" {:>18}", decoder.name);
    }
    println!(" {:>15}", "ours/best other");
    for (encoder, measured) in encoders.iter().zip(measured) {
        if measured.decode.is_empty() {
            continue;
        }
        print!("{:<22}", encoder.name);
        for speed in &measured.decode {
            print!("  {speed}");
        }
        let best = |ours| {
            let decoders = decoders.iter().zip(&measured.decode);
            let speeds = decoders.filter(|(decoder, _)| decoder.ours == ours);
            speeds.map(|(_, speed)| speed.median).fold(0.0, f64::max)
        };
        println!(" {:>15.2}", best(true) / best(false));
    }
}
