//! A service as it is watched from outside: a board with made-up migrations, and its pages.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

use clap::Parser;
use multifd::Stats;
use multifd::core::MethodCounters;
use multifd::core::channel::ChannelStats;
use serde_json::Value;

use super::board::Running;
use super::events::Events;
use super::migration::{About, Counters, Ended, How};
use super::options::Watching;
use super::*;

/// Counters that a test sets.
#[derive(Clone, Default)]
pub(super) struct Set(Arc<Mutex<Stats>>);

impl Set {
    /// What was counted so far, on two channels and the main channel, in this round.
    pub(super) fn to(&self, round: u64, normal: u64, zero: u64) {
        let counters = MethodCounters::new(&["hardware pages", "raw pages"]);
        counters.add(0, normal);
        let mut stats = Stats::default();
        let mut channel = ChannelStats::default();
        (channel.normal_pages, channel.zero_pages) = (normal / 2, zero / 2);
        (channel.payload_bytes, channel.wire_bytes) = (normal * 512, normal * 600);
        stats.channels = vec![channel, channel];
        stats.method = counters.snapshot();
        (stats.page_bytes, stats.main_bytes) = (4096, 1000);
        (stats.syncs, stats.syncs_are_rounds) = (round, true);
        *self.0.lock().unwrap() = stats;
    }

    fn counters(&self) -> Counters {
        let own = self.clone();
        Counters::of(move || own.0.lock().unwrap().clone())
    }
}

pub(super) fn board(events: Events) -> Board {
    let refused = || vec![("address".to_owned(), 3), ("a \"reason\"".to_owned(), 1)];
    let board = Board::new("relay", events, refused);
    board.set_limit(2);
    board
}

pub(super) fn quiet() -> Events {
    Events::new(false, None).unwrap()
}

/// A migration of a VM, whose counters are `set` on both sides.
pub(super) fn begin(board: &Board, set: &Set) -> Running {
    board.begin(About {
        uuid: "6a7c9e0f-0000-4000-8000-000000000001".to_owned(),
        peer: "tcp:192.0.2.7:50000".to_owned(),
        certificate: Some("host-a.example".to_owned()),
        from: set.counters(),
        to: Some(set.counters()),
        from_codec: "none".to_owned(),
        to_codec: Some("qpl".to_owned()),
        cpu: Arc::new(|| Duration::from_millis(1500)),
    })
}

pub(super) fn ended(how: How) -> Ended {
    let why = (!matches!(how, How::Done { .. })).then(|| "the peer\u{1b} has gone".to_owned());
    Ended { how, why, stored: None }
}

fn status(board: &Board) -> Value {
    let page = pages(board.clone())("/status").unwrap();
    assert_eq!((page.status, page.content_type), ("200 OK", "application/json"));
    assert!(!page.body.contains('\u{1b}'), "{}", page.body);
    serde_json::from_str(&page.body).unwrap()
}

#[test]
fn the_status_has_running_and_ended_migrations_with_their_sides_and_rounds() {
    let board = board(quiet());
    let set = Set::default();
    let running = begin(&board, &set);
    set.to(1, 0, 0);
    status(&board);
    set.to(2, 100, 20);
    let now = status(&board);
    assert_eq!((&now["service"], &now["limit"]), (&"relay".into(), &2.into()));
    assert_eq!(now["refused_connections"]["address"], 3);
    let one = &now["running"][0];
    assert_eq!((&one["id"], &one["certificate"]), (&1.into(), &"host-a.example".into()));
    assert_eq!((&one["round"], &one["rounds"][0]["first"]), (&2.into(), &1.into()));
    assert_eq!(one["rounds"][0]["normal_pages"], 100);
    assert_eq!((&one["to"]["codec"], &one["to"]["ratio"]), (&"qpl".into(), &4.0.into()));
    assert_eq!(one["from"]["channels"][0]["channel"], "main");
    assert_eq!(one["from"]["channels"][2]["normal_pages"], 50);
    assert_eq!(one["from"]["codec_stats"]["hardware pages"], 100);
    set.to(3, 110, 20);
    running.end(ended(How::Unclear));
    let then = status(&board);
    assert_eq!(then["running"], Value::Array(Vec::new()));
    let one = &then["ended"][0];
    assert_eq!(
        (&one["result"], &one["why"]),
        (&"unclear".into(), &"the peer\u{1b} has gone".into())
    );
    assert_eq!((&one["rounds"][0]["left_pages"], &one["cpu_seconds"]), (&10.into(), &1.5.into()));
    assert_eq!(then["results"]["unclear"], 1);
}

#[test]
fn a_service_is_healthy_while_it_takes_migrations_even_if_they_have_to_wait_and_not_while_it_stops()
{
    let board = board(quiet());
    let health = || pages(board.clone())("/health").unwrap();
    assert_eq!((health().status, &*health().body), ("200 OK", "ok\n"));
    let set = Set::default();
    let _both = [begin(&board, &set), begin(&board, &set)];
    assert_eq!(health().status, "200 OK");
    assert!(health().body.contains("as many as may"), "{}", health().body);
    board.set_stopping();
    assert!(board.view().stopping && health().status.starts_with("503"));
    assert!(health().body.starts_with("stopping"), "{}", health().body);
}

#[test]
fn there_is_a_list_of_the_pages_and_no_other_page() {
    let page = pages(board(quiet()));
    let list = page("/").unwrap().body;
    assert!(list.lines().all(|path| page(path).is_some()) && list.lines().count() == 3);
    assert!(page("/metrics/").is_none() && page("").is_none());
}

#[derive(clap::Parser)]
struct Command {
    #[arg(long)]
    serve: bool,
    #[command(flatten)]
    watching: Watching,
}

#[test]
fn what_the_command_line_asks_for_is_answered_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit");
    let socket = folder.path().join("sock");
    let metrics = format!("unix:{}", socket.display());
    let args = ["multifd", "--serve", "--metrics", &*metrics, "--audit", audit.to_str().unwrap()];
    let watching = Command::parse_from(args).watching;
    let board = board(watching.events().unwrap());
    let server = watching.server(&board).unwrap().unwrap();
    begin(&board, &Set::default()).end(ended(How::Done { confirmed: true }));
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\nmultifd_migrations_total{result=\"done\"} 1\n"), "{answer}");
    assert_eq!(std::fs::read_to_string(&audit).unwrap().lines().count(), 2);
    drop(server);
    assert!(!socket.exists());
}
