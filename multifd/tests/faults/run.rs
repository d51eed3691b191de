//! Runs cases, counts what has held, and says how to repeat what has not.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use multifd::core::Compression;

use crate::case::{Case, Fault, codec_name};
use crate::common::{is_alone, threads};
use crate::line::{Act, AllSeen};
use crate::migration::{self, HANGS, Limits};
use crate::oracle;
use crate::places::{At, Direction, Place, Wire};
use crate::way::{CODECS, Way};

/// Migrations at once. They are each other's load.
const WORKERS: usize = 24;

/// Cases after which threads and descriptors are counted.
const BATCH: usize = 64;

/// How many times as long the limits are in a second try.
const LONGER: u32 = 10;

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// A small sample, for the gate.
    Sample,
    Full,
}

fn scale() -> Scale {
    match std::env::var("MULTIFD_FAULTS") {
        Ok(asked) if asked.starts_with("full") => Scale::Full,
        _ => Scale::Sample,
    }
}

/// Whether `way` is asked for: `full:tls` is all of that one.
fn is_asked_for(way: Way) -> bool {
    let asked = std::env::var("MULTIFD_FAULTS").unwrap_or_default();
    asked.strip_prefix("full:").is_none_or(|only| only == way.to_string())
}

/// What a kind's cases are drawn from.
#[derive(Debug)]
pub(crate) struct Draw<'a> {
    pub(crate) way: Way,
    pub(crate) codec: Compression,
    /// How long a migration is on each connection.
    pub(crate) seen: &'a AllSeen,
    pub(crate) scale: Scale,
    /// How long such a migration takes.
    pub(crate) takes: Duration,
    state: u64,
}

impl Draw<'_> {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }

    /// So many where everything is run, and so many in a sample.
    pub(crate) fn many(&self, full: usize, sample: usize) -> usize {
        if self.scale == Scale::Full { full } else { sample }
    }
}

/// The test `name`: all ways and codecs, with the faults that `faults` draws for each.
pub(crate) fn test(name: &str, faults: impl Fn(&mut Draw<'_>) -> Vec<Fault>) {
    // What is left behind can be counted only where nothing else runs.
    if std::env::var_os("MULTIFD_FAULT").is_some() || !is_alone(name) {
        return;
    }
    silence_own_panics();
    let mut cases = Vec::new();
    for (number, way) in Way::ALL.into_iter().enumerate().filter(|(_, way)| is_asked_for(*way)) {
        for (other, codec) in CODECS.into_iter().enumerate() {
            // Of a sample, each way has one codec; another for each kind.
            if scale() == Scale::Sample && (number + name.len()) % CODECS.len() != other {
                continue;
            }
            let (seen, takes) = clean(way, codec);
            let state = (number << 8 | other) as u64;
            let mut draw = Draw { way, codec, seen: &seen, scale: scale(), takes, state };
            cases.extend(faults(&mut draw).into_iter().map(|fault| Case { fault, way, codec }));
        }
    }
    let mut table = Table::default();
    table.run(&cases, WORKERS);
    table.conclude();
}

/// Repeats the case that is named, one after the other, or runs each of several once. Says what each side
/// says.
pub(crate) fn repeat(name: &str) {
    if !is_alone(name) {
        return;
    }
    silence_own_panics();
    let text = std::env::var("MULTIFD_FAULT");
    let text = text.unwrap_or_else(|_| "none@before-relay/zstd".to_owned());
    let parse = |text: &str| text.parse().unwrap_or_else(|()| panic!("'{text}' is not a fault"));
    let cases: Vec<Case> = text.split_whitespace().map(parse).collect();
    cases.iter().for_each(|case| drop(clean(case.way, case.codec)));
    let mut table = Table::default();
    match cases[..] {
        [case] => table.run(&[case; 20], 1),
        _ => table.run(&cases, 4),
    }
    table.conclude();
}

/// Panics that the tests themselves bring about are not reported.
fn silence_own_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text =
            text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
        if !text.starts_with("a test's") && text != "the bytes are inside the block" {
            report(info);
        }
    }));
}

/// A migration without a fault: what it is made of, and how long it takes.
fn clean(way: Way, codec: Compression) -> (AllSeen, Duration) {
    let case = Case { fault: Fault::None, way, codec };
    let began = Instant::now();
    let outcome = migration::run(case).unwrap();
    let takes = began.elapsed();
    oracle::check(case, &outcome)
        .unwrap_or_else(|why| panic!("{case}: {why}\n    {}", oracle::described(&outcome)));
    (outcome.seen, takes)
}

/// Tried, failed and survived, for each kind, way and codec: the migration has failed for the fault, and
/// what has to hold has held.
#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<(&'static str, String, String), [usize; 3]>,
    failures: Vec<String>,
}

impl Table {
    fn run(&mut self, cases: &[Case], workers: usize) {
        let began = Instant::now();
        for (number, batch) in cases.chunks(BATCH).enumerate() {
            if scale() == Scale::Full && number % 16 == 0 {
                let (done, all, failed) = (number * BATCH, cases.len(), self.failures.len());
                say(&format!("{done} of {all}, {failed} failed, {:?}", began.elapsed()));
            }
            let before = left();
            let mut verdicts = run_batch(batch, workers);
            if let Err(left) = nothing_left(before) {
                // Which of them it was is seen where each is run alone.
                for (case, verdict) in batch.iter().zip(&mut verdicts) {
                    let before = self::left();
                    run_case(*case).ok();
                    if let Err(left) = nothing_left(before) {
                        *verdict = Err(format!("{case}: {left}"));
                    }
                }
                self.failures.push(format!(
                    "after {} cases from {}: {left}",
                    batch.len(),
                    batch[0]
                ));
            }
            for (case, verdict) in batch.iter().zip(verdicts) {
                let key = (case.fault.kind(), case.way.to_string(), codec_name(case.codec));
                let [tried, failed, survived] = self.rows.entry(key).or_default();
                *tried += 1;
                match verdict {
                    Ok(Ended::Success) => *survived += 1,
                    Ok(Ended::Failure) => {
                        *failed += 1;
                        *survived += 1;
                    }
                    Err(failure) => {
                        say(&failure);
                        self.failures.push(failure);
                    }
                }
            }
        }
    }

    /// Says what has come of it, and fails if something has not been survived.
    fn conclude(self) {
        if scale() == Scale::Full || !self.failures.is_empty() {
            for ((kind, way, codec), [tried, failed, survived]) in &self.rows {
                say(&format!("| {kind} | {way} | {codec} | {tried} | {failed} | {survived} |"));
            }
        }
        assert!(!self.rows.is_empty(), "nothing was tried");
        assert!(self.failures.is_empty(), "{} of them: see above", self.failures.len());
    }
}

/// Says a line where it is not captured: it is what a full run is for.
fn say(line: &str) {
    let mut out = std::io::stderr().lock();
    writeln!(out, "{line}").unwrap();
}

/// Runs the cases of a batch, several at once.
fn run_batch(batch: &[Case], workers: usize) -> Vec<Result<Ended, String>> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(vec![Ok(Ended::Success); batch.len()]);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = batch.get(at) else { return };
                    let verdict = run_case(*case);
                    verdicts.lock().unwrap()[at] = verdict;
                }
            });
        }
    });
    verdicts.into_inner().unwrap()
}

/// How a migration that was survived has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Success,
    Failure,
}

/// Runs a case, and then a migration without a fault.
fn run_case(case: Case) -> Result<Ended, String> {
    let repeat = format!(
        "repeat with MULTIFD_FAULT={case} cargo test -p multifd --all-features --test faults repeat"
    );
    let failed = |why: String| format!("{case}: {why}\n    {repeat}");
    let outcome = migration::run(case).map_err(failed)?;
    if std::env::var_os("MULTIFD_FAULT").is_some() {
        say(&format!("{case}:\n    {}", oracle::described(&outcome)));
    }
    oracle::is_safe(case, &outcome)
        .map_err(|why| failed(format!("{why}\n    {}", oracle::described(&outcome))))?;
    if oracle::is_named(case, &outcome).is_err() {
        // On a busy machine what is whole may have been too slow for its limit, and been named.
        let limits = Limits::of(case.fault).times(LONGER);
        let outcome = migration::run_with(case, limits).map_err(failed)?;
        oracle::check(case, &outcome)
            .map_err(|why| failed(format!("{why}\n    {}", oracle::described(&outcome))))?;
    }
    let ended = if oracle::is_done(&outcome) { Ended::Success } else { Ended::Failure };
    drop(outcome);
    let next = Case { fault: Fault::None, ..case };
    let outcome = migration::run(next).map_err(failed)?;
    oracle::check(next, &outcome).map_err(|why| {
        failed(format!("the next migration: {why}\n    {}", oracle::described(&outcome)))
    })?;
    Ok(ended)
}

/// Threads and descriptors of this process.
fn left() -> (usize, usize) {
    (threads(), std::fs::read_dir("/proc/self/fd").unwrap().count())
}

/// Waits until there are no more than before.
fn nothing_left(before: (usize, usize)) -> Result<(), String> {
    nothing_left_within(HANGS / 4, before)
}

fn nothing_left_within(limit: Duration, before: (usize, usize)) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    loop {
        let now = left();
        if now.0 <= before.0 && now.1 <= before.1 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("(threads, descriptors) were {before:?} and are {now:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A run whose bytes are changed and that nothing else notices, and what is asked of it where it should
/// have been noticed.
#[test]
fn what_is_taken_for_whole_and_is_not_is_noticed() {
    let act = Act::Flip(1);
    // In the pages of the first packet, if that comes on this channel.
    let at = At::Byte(64 + 1344 + 1344 + 5000);
    for number in [0, 1].into_iter().cycle().take(100) {
        let place = Place { wire: Wire::Channel(number), direction: Direction::Forward, at };
        let fault = Fault::Unchecked(place, act);
        let case = Case { fault, way: Way::Unix, codec: Compression::None };
        let outcome = migration::run(case).unwrap();
        oracle::check(case, &outcome).unwrap();
        let case = Case { fault: Fault::Line(place, act), ..case };
        match oracle::check(case, &outcome) {
            Err(why) => return assert!(why.contains("taken for whole: "), "{why}"),
            Ok(()) => assert!(!outcome.acted, "a byte has changed"),
        }
    }
    panic!("no packet has come");
}

#[test]
fn what_is_left_behind_is_noticed() {
    if !is_alone("run::what_is_left_behind_is_noticed") {
        return;
    }
    let before = left();
    let file = std::fs::File::open("/dev/null").unwrap();
    nothing_left_within(Duration::ZERO, before).unwrap_err();
    drop(file);
    nothing_left(before).unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || ended.recv());
    nothing_left_within(Duration::ZERO, before).unwrap_err();
    drop(end);
    thread.join().unwrap().unwrap_err();
    nothing_left(before).unwrap();
}
