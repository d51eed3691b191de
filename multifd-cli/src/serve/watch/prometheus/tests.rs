use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::process::{Command, Stdio};

use super::super::migration::How as Ending;
use super::super::tests::{Set, begin, board, ended, quiet};
use super::*;

/// The samples of a text, by their names with labels.
fn samples(text: &str) -> HashMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name, value.parse().unwrap())
    });
    samples.collect()
}

#[test]
fn counters_go_on_when_a_migration_ends_and_what_is_labelled_by_it_goes() {
    let board = board(quiet());
    let set = Set::default();
    set.to(1, 100, 20);
    let running = begin(&board, &set);
    let before = text(&board.view(), &Process::default());
    running.end(ended(Ending::Done { confirmed: true }));
    let after = text(&board.view(), &Process::default());
    let (before, after) = (samples(&before), samples(&after));
    for (name, value) in [
        ("multifd_pages_total{side=\"to\",kind=\"normal\"}", 100.0),
        ("multifd_wire_bytes_total{side=\"from\"}", 121_000.0),
        ("multifd_payload_bytes_total{side=\"from\"}", 102_400.0),
        ("multifd_codec_count_total{side=\"to\",counter=\"hardware pages\"}", 100.0),
        ("multifd_cpu_seconds_total", 1.5),
        ("multifd_refused_connections_total{reason=\"address\"}", 3.0),
    ] {
        assert_eq!((before.get(name), after.get(name)), (Some(&value), Some(&value)), "{name}");
    }
    let done = "multifd_migrations_total{result=\"done\"}";
    assert_eq!((before[done], after[done]), (0.0, 1.0));
    let running = "multifd_migrations_running";
    assert_eq!((before[running], after[running]), (1.0, 0.0));
    let of_one =
        |samples: &HashMap<&str, f64>| samples.keys().filter(|name| name.contains("uuid=")).count();
    assert!(of_one(&before) > 10);
    assert_eq!(of_one(&after), 0);
}

#[test]
fn a_running_migration_has_its_channels_its_round_and_what_was_left() {
    let board = board(quiet());
    let set = Set::default();
    let _running = begin(&board, &set);
    for (round, pages) in [(1, 0), (2, 100), (3, 130)] {
        set.to(round, pages, 0);
        board.view();
    }
    let text = text(&board.view(), &Process::default());
    let samples = samples(&text);
    let one = "id=\"1\",uuid=\"6a7c9e0f-0000-4000-8000-000000000001\"";
    for (name, value) in [
        (format!("multifd_migration_round{{{one}}}"), 3.0),
        (format!("multifd_migration_round_left_pages{{{one}}}"), 30.0),
        (format!("multifd_migration_ratio{{{one},side=\"to\"}}"), 4.0),
        (format!("multifd_migration_wire_bytes{{{one},side=\"to\",channel=\"main\"}}"), 1000.0),
        (
            format!("multifd_migration_pages{{{one},side=\"from\",channel=\"1\",kind=\"normal\"}}"),
            65.0,
        ),
    ] {
        assert_eq!(samples.get(&*name), Some(&value), "{name}\n{text}");
    }
}

#[test]
fn each_metric_is_described_once_before_its_samples_and_no_sample_comes_twice() {
    let board = board(quiet());
    let set = Set::default();
    set.to(1, 100, 20);
    let _running = [begin(&board, &set), begin(&board, &set)];
    let text = text(&board.view(), &Process::now());
    let (mut described, mut seen) = (HashSet::new(), HashSet::new());
    let mut current = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split(' ').next().unwrap();
            assert!(described.insert(current), "{current}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!((name, kind == "counter"), (current, name.ends_with("_total")));
        } else {
            let (name, _) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next(), Some(current));
            assert!(seen.insert(name), "{name}");
        }
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    let board = board(quiet());
    let set = Set::default();
    set.to(2, 100, 20);
    let _running = begin(&board, &set);
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let started = promtool.stdout(Stdio::piped()).spawn();
    let Ok(mut child) = started else {
        // Not by eprintln, which is captured: it is to be seen.
        _ = writeln!(std::io::stderr(), "skipped: promtool, which this machine does not have");
        return;
    };
    let text = text(&board.view(), &Process::now());
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}
