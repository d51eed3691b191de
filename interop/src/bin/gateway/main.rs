//! Migrations that somebody has tampered with, to a QEMU that waits for one: straight, and through
//! `multifd relay` with TLS on its side of the source. Counts what becomes of the QEMU.
//!
//! ```sh
//! scripts/qemu 10.0 newest -- cargo run -p multifd-interop --bin gateway -- --streams 2000
//! ```
//!
//! Each stream is one that a real QEMU has sent, with one to three [edits](mutation) that follow from
//! its seed. Exits with 1 if a QEMU behind the relay died or hangs by what a relay can tell.

mod mutation;
mod recording;
mod replay;
mod table;
mod trial;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use clap::Parser;
use multifd_interop::qemu::Version;

use recording::Recording;
use replay::Credentials;
use table::Table;
use trial::{Outcome, Route, Setup, Trial};

/// Sends tampered migrations to a QEMU, straight and through a relay with TLS.
#[derive(Debug, Parser)]
struct Args {
    /// How many streams go each way to each version
    #[arg(long, default_value_t = 100)]
    streams: u64,
    /// The first stream's seed; the others follow it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The versions of QEMU
    #[arg(long, value_delimiter = ',', default_value = "10.0,newest", value_parser = version)]
    versions: Vec<Version>,
    /// The ways that the streams go
    #[arg(long, value_enum, value_delimiter = ',', default_value = "straight,relay")]
    routes: Vec<Route>,
    /// How many streams are under way at a time: most of them wait most of the time
    #[arg(long, default_value_t = 6)]
    at_once: usize,
    /// Say of each stream what became of it
    #[arg(long)]
    verbose: bool,
}

fn version(name: &str) -> Result<Version, String> {
    let found = Version::ALL.into_iter().find(|version| version.name() == name);
    found.ok_or_else(|| "one of 7.2, 10.0 and newest".to_owned())
}

/// The codecs of the streams, by their seeds; Debian builds no QEMU with another.
const CODECS: [&str; 3] = ["none", "zlib", "zstd"];

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("gateway: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let credentials = Credentials::new()?;
    let mut lives = true;
    for &version in &args.versions {
        let recordings = CODECS.map(|codec| Recording::of(version, codec));
        let [none, zlib, zstd] = recordings;
        let recordings = [none?, zlib?, zstd?];
        for &route in &args.routes {
            let setup = Setup { version, route, credentials: &credentials };
            check_whole_streams(&setup, &recordings)?;
            let table = all(args, &setup, &recordings);
            print(&format!("\nQEMU {version}, {}:\n\n{table}", route.name()))?;
            lives &= route == Route::Straight || table.lives();
        }
    }
    Ok(lives)
}

/// A stream without an edit must arrive, or nothing that is counted says anything.
fn check_whole_streams(setup: &Setup<'_>, recordings: &[Recording]) -> Result<(), Box<dyn Error>> {
    for recording in recordings {
        let ended = setup.send(recording, &recording.wires)?;
        if ended.outcome != Outcome::Took {
            let (codec, route) = (recording.codec, setup.route.name());
            return Err(format!("an untouched stream of {codec}, {route}: {ended:?}").into());
        }
    }
    Ok(())
}

fn all(args: &Args, setup: &Setup<'_>, recordings: &[Recording; 3]) -> Table {
    let table = Mutex::new(Table::default());
    let next = AtomicU64::new(args.seed);
    let last = args.seed.saturating_add(args.streams);
    thread::scope(|scope| {
        for _ in 0..args.at_once {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        return;
                    }
                    let trial = one(setup, &recordings[(seed % 3) as usize], seed);
                    if args.verbose || trial.is_noteworthy() {
                        say(&trial.to_string());
                    }
                    table.lock().unwrap_or_else(PoisonError::into_inner).add(&trial);
                }
            });
        }
    });
    table.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn one(setup: &Setup<'_>, recording: &Recording, seed: u64) -> Trial {
    let mutated = mutation::of(recording, seed);
    let ended = setup.send(recording, &mutated.wires);
    Trial::new(setup, recording.codec, seed, mutated.part, mutated.what, ended)
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

fn say(line: &str) {
    _ = writeln!(io::stderr(), "{line}");
}
