//! Migrations by `multifd` in which one thing breaks: a process is killed, a call to the system fails, a
//! disk is full, a network loses packets. `scripts/faults` runs it.
//!
//! Whatever breaks, the [judge](mod@bench) wants: an image is the old one or the new one, whole, and exit
//! statuses say which; nobody panics or hangs; who fails says why; the next migration works.

mod bench;
mod disk;
mod network;
mod signals;
mod syscalls;
mod table;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Parser;

use bench::{Bench, Side};
use table::Table;

/// Breaks one thing at a time in migrations from image to image.
#[derive(Debug, Parser)]
struct Args {
    /// A sample that takes less than a minute
    #[arg(long)]
    quick: bool,
    /// Of the moments and samples
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the cases whose names begin so
    #[arg(long, default_value = "")]
    case: String,
    /// How many migrations are under way at a time
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// The program
    #[arg(long, default_value = "target/debug/multifd")]
    multifd: PathBuf,
}

/// One thing that breaks once.
pub(crate) struct Case {
    /// By which it can be run again.
    name: String,
    /// What breaks, as the table says it, and where.
    fault: String,
    side: Side,
    run: Box<Run>,
}

type Run = dyn Fn(&Bench) -> Result<(), String> + Send + Sync;

impl Case {
    pub(crate) fn new(
        name: String,
        fault: impl Into<String>,
        side: Side,
        run: impl Fn(&Bench) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { name, fault: fault.into(), side, run: Box::new(run) }
    }
}

/// Lists the cases of a kind, or a sample of them.
type Group = fn(&Bench, bool) -> Cases;

/// What a group of cases is, or why it cannot be tried here.
pub(crate) type Cases = Result<Vec<Case>, String>;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("faults: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let bench = Bench::new(&args.multifd.canonicalize()?, args.seed)?;
    let groups: [(&str, Group); 6] = [
        ("signal", signals::cases),
        ("call", syscalls::cases),
        ("short", syscalls::short_cases),
        ("disk", disk::cases),
        ("image", disk::image_cases),
        ("network", network::cases),
    ];
    let (mut cases, mut left_out) = (Vec::new(), Vec::new());
    for (name, group) in groups {
        // Listing some takes a while.
        if !args.case.is_empty() && !args.case.starts_with(name) {
            continue;
        }
        match group(&bench, args.quick) {
            Ok(more) => cases.extend(more),
            Err(why) => left_out.push(format!("LEFT OUT: {name}: {why}")),
        }
    }
    cases.retain(|case| case.name.starts_with(&args.case));
    let table = all(args, &bench, &cases);
    let mut out = io::stdout().lock();
    writeln!(out, "{table}")?;
    for line in left_out {
        writeln!(out, "{line}")?;
    }
    Ok(table.all_survived())
}

fn all(args: &Args, bench: &Bench, cases: &[Case]) -> Table {
    let (next, table) = (AtomicUsize::new(0), Mutex::new(Table::default()));
    thread::scope(|scope| {
        for _ in 0..args.at_once {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let survived = (case.run)(bench);
                    if let Err(why) = &survived {
                        let Args { seed, .. } = args;
                        say(&format!("FAILED: --seed {seed} --case {}: {why}", case.name));
                    }
                    if let Ok(mut table) = table.lock() {
                        table.add(&case.fault, case.side, survived.is_ok());
                    }
                }
            });
        }
    });
    table.into_inner().unwrap_or_default()
}

pub(crate) fn say(line: &str) {
    _ = writeln!(io::stderr(), "{line}");
}

/// The `index`th number of a seed's: splitmix64.
pub(crate) fn random(seed: u64, index: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ index;
    for _ in 0..2 {
        mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    mixed
}
