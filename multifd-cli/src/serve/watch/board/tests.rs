use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::Value;

use super::super::migration::Counters;
use super::super::tests::{Set, begin, board, ended, quiet};
use super::*;

const DONE: How = How::Done { confirmed: true };

/// The events of an audit file.
fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_audit_says_who_moved_which_vm_and_how_it_went() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    let board = board(Events::new(false, Some(&path)).unwrap());
    let set = Set::default();
    let running = begin(&board, &set);
    assert_eq!(lines(&path).len(), 1);
    set.to(2, 100, 20);
    running.end(ended(How::Failed));
    let [began, ended] = lines(&path).try_into().unwrap();
    assert_eq!((&began["event"], &ended["event"]), (&"began".into(), &"ended".into()));
    for line in [&began, &ended] {
        assert_eq!((&line["id"], &line["peer"]), (&1.into(), &"tcp:192.0.2.7:50000".into()));
        assert_eq!(line["certificate"], "host-a.example");
        assert_eq!(line["uuid"], "6a7c9e0f-0000-4000-8000-000000000001");
    }
    assert_eq!(
        (&ended["result"], &ended["why"]),
        (&"failed".into(), &"the peer\u{1b} has gone".into())
    );
    assert_eq!(
        (&ended["from"]["normal_pages"], &ended["to"]["wire_bytes"]),
        (&100.into(), &121_000.into())
    );
    assert!(ended["seconds"].is_f64() && ended["began"].as_str() <= ended["ended"].as_str());
}

#[test]
fn an_audit_that_cannot_be_written_is_counted_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in/audit");
    std::fs::create_dir(folder.path().join("in")).unwrap();
    let board = board(Events::new(false, Some(&path)).unwrap());
    std::fs::remove_dir_all(folder.path().join("in")).unwrap();
    begin(&board, &Set::default()).end(ended(DONE));
    let view = board.view();
    assert_eq!((view.results[0], view.lost[0]), (1, ("audit", 2)));
}

#[test]
fn a_migration_that_nobody_ends_has_failed() {
    let board = board(quiet());
    let own = board.clone();
    let thread = std::thread::spawn(move || {
        let _running = begin(&own, &Set::default());
        panic!("as it should");
    });
    thread.join().unwrap_err();
    drop(begin(&board, &Set::default()));
    let view = board.view();
    let why = |index: usize| view.ended[index].end.as_ref().unwrap().why.clone().unwrap();
    assert_eq!((view.running.len(), view.results), (0, [0, 2, 0, 0]));
    assert!(why(1).contains("panicked") && why(0).contains("did not say why"));
}

#[test]
fn the_last_ended_migrations_are_kept_and_all_are_counted() {
    let board = board(quiet());
    let set = Set::default();
    set.to(1, 10, 0);
    for _ in 0..100 {
        begin(&board, &set).end(ended(DONE));
    }
    let view = board.view();
    assert_eq!((view.results[0], view.totals.from.normal_pages), (100, 1000));
    assert_eq!((view.ended.len(), view.ended[0].who.id), (KEPT, 100));
}

#[test]
fn the_sums_never_fall_while_migrations_begin_run_and_end() {
    let board = board(quiet());
    let own = board.clone();
    let watcher = std::thread::spawn(move || {
        let mut before = 0;
        while !own.view().stopping {
            let now = own.view().totals.from.normal_pages;
            assert!(now >= before, "{now} after {before}");
            before = now;
        }
    });
    for _ in 0..200 {
        let set = Set::default();
        let running = begin(&board, &set);
        for pages in 1..10 {
            set.to(1, pages * 10, 0);
        }
        running.end(ended(DONE));
    }
    board.set_stopping();
    watcher.join().unwrap();
    assert_eq!(board.view().totals.from.normal_pages, 200 * 90);
}

#[test]
fn running_migrations_are_looked_at_without_being_asked_for() {
    let board = board(quiet());
    let looks = Arc::new(AtomicU64::new(0));
    let own = Arc::clone(&looks);
    let running = board.begin(About {
        uuid: String::new(),
        peer: "x".repeat(1 << 20),
        certificate: None,
        from: Counters::of(move || {
            own.fetch_add(1, Relaxed);
            multifd::Stats::default()
        }),
        to: None,
        from_codec: String::new(),
        to_codec: None,
        cpu: Arc::new(|| Duration::ZERO),
    });
    // Nothing else looks meanwhile.
    std::thread::sleep(OFTEN * 4);
    assert!(looks.load(Relaxed) >= 2);
    running.end(ended(How::Cancelled));
    let view = board.view();
    assert_eq!(view.results, [0, 0, 0, 1]);
    // A peer's text takes no more memory than others.
    assert!(view.ended[0].who.peer.len() < 2000);
}

#[test]
fn the_thread_that_looks_goes_with_its_board() {
    let board = board(quiet());
    let weak = Arc::downgrade(&board.0);
    let running = begin(&board, &Set::default());
    running.end(ended(DONE));
    drop(board);
    let began = Instant::now();
    while weak.strong_count() > 0 && began.elapsed() < SELDOM {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(weak.strong_count(), 0);
}
