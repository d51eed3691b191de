//! Migrations by `multifd` in which one thing breaks: a process is killed, a call to the system fails, a
//! disk is full, a network loses packets. `scripts/faults` runs it.
//!
//! Whatever breaks, the [judge](mod@bench) wants: an image is the old one or the new one, whole, and exit
//! statuses say which; nobody panics or hangs; who fails says why; the next migration works.

mod bench;
mod disk;
mod network;
mod running;
mod signals;
mod stop;
mod syscalls;
mod table;
mod waiting;

use std::error::Error;
use std::io::{self, Write};
use std::num::NonZeroUsize;
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
    /// Only what breaks there
    #[arg(long)]
    side: Option<Side>,
    /// How many migrations are under way at a time
    #[arg(long, default_value = "4")]
    at_once: NonZeroUsize,
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

/// What a group of cases is.
pub(crate) type Cases = Result<Vec<Case>, NoCases>;

/// Why there are no cases of a group.
pub(crate) enum NoCases {
    /// What they need is not there, which is no fault of the program's.
    CannotBeHad(String),
    /// Something failed that does elsewhere, such as a migration with nothing broken.
    Failed(String),
}

impl From<String> for NoCases {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

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
    stop::listen()?;
    let bench = Bench::new(&args.multifd.canonicalize()?, args.seed)?;
    let groups: [(&str, Group); 6] = [
        ("signal", signals::cases),
        ("call", syscalls::cases),
        ("short", syscalls::short_cases),
        ("disk", disk::cases),
        ("image", disk::image_cases),
        ("network", network::cases),
    ];
    let (mut cases, mut not_tried, mut failed) = (Vec::new(), Vec::new(), false);
    for (name, group) in groups {
        // Listing some takes a while.
        let is_wanted = args.case.starts_with(name) || name.starts_with(&args.case);
        if !is_wanted || stop::is_told() {
            continue;
        }
        match group(&bench, args.quick) {
            Ok(more) => cases.extend(more),
            Err(NoCases::CannotBeHad(why)) => not_tried.push(format!("LEFT OUT: {name}: {why}")),
            Err(NoCases::Failed(why)) => {
                failed = true;
                not_tried.push(format!("FAILED: {name} could not be tried: {why}"));
            }
        }
    }
    cases.retain(|case| {
        case.name.starts_with(&args.case) && args.side.is_none_or(|side| side == case.side)
    });
    let table = all(args, &bench, &cases);
    let mut out = io::stdout().lock();
    writeln!(out, "{table}")?;
    for line in not_tried {
        writeln!(out, "{line}")?;
    }
    let not_shown = bench.not_shown.load(Ordering::Relaxed);
    if not_shown > 0 {
        writeln!(out, "Waited on, with the same call failing for another source: {not_shown}")?;
    }
    if stop::is_told() {
        return Err("stopped by a signal: not all was tried".into());
    }
    if table.is_empty() {
        return Err(format!("nothing was tried of --case {:?}", args.case).into());
    }
    Ok(table.all_survived() && !failed)
}

fn all(args: &Args, bench: &Bench, cases: &[Case]) -> Table {
    let (next, table) = (AtomicUsize::new(0), Mutex::new(Table::default()));
    thread::scope(|scope| {
        for _ in 0..args.at_once.get() {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let survived = (case.run)(bench);
                    if stop::is_told() {
                        // It was broken off.
                        break;
                    }
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
