//! Pre-copy as a policy, over real migrations of guests that a test writes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::Read;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use common::{assert_equal, fill, guest, receive, send};
use multifd::core::PageSize;
use multifd::core::ram::Ram;
use multifd::precopy::{AtTimeout, Guest, GuestError, NotMoved, Policy, Precopy, Snapshot};
use multifd::stream::FullSection;
use multifd::{Arrived, Error, PageSet, Source};

/// A guest that dirties so many pages in each round, of a list that is at an end sometime or not.
struct Scripted<F> {
    ram: Arc<Ram>,
    /// Pages that are dirtied before each look but the first.
    script: F,
    looks: u32,
    paused: bool,
    throttled: Vec<u8>,
    seen: Vec<Snapshot>,
    fails: Option<&'static str>,
}

impl<F: FnMut(u32) -> u64> Scripted<F> {
    fn new(ram: &Arc<Ram>, script: F) -> Self {
        let (throttled, seen) = (Vec::new(), Vec::new());
        Self { ram: ram.clone(), script, looks: 0, paused: false, throttled, seen, fails: None }
    }

    fn may(&self, call: &str) -> Result<(), GuestError> {
        if self.fails == Some(call) { Err(format!("no {call}").into()) } else { Ok(()) }
    }
}

impl<F: FnMut(u32) -> u64> Guest for Scripted<F> {
    fn dirtied(&mut self, pages: &mut PageSet) -> Result<(), GuestError> {
        self.may(if self.paused { "last look" } else { "look" })?;
        if self.looks > 0 {
            for page in 0..(self.script)(self.looks) {
                fill(&self.ram, "pc.ram", page, (self.looks + page as u32) as u8);
                pages.insert(0, page * 4096)?;
            }
        }
        self.looks += 1;
        Ok(())
    }

    fn pause(&mut self) -> Result<(), GuestError> {
        self.may("pause")?;
        self.paused = true;
        Ok(())
    }

    fn device_state(&mut self) -> Result<Option<Vec<u8>>, GuestError> {
        self.may("state")?;
        assert!(self.paused);
        let state = FullSection { name: "vcpu", version: 1, body: b"registers" };
        Ok(Some(state.to_device_state(PageSize::Kib4)?))
    }

    fn throttle(&mut self, percent: u8) -> Result<(), GuestError> {
        self.throttled.push(percent);
        self.may("throttle")
    }

    fn progress(&mut self, snapshot: &Snapshot) {
        self.seen.push(*snapshot);
    }
}

type Received = JoinHandle<Result<Arc<Ram>, Error>>;

fn destination(ram: &Arc<Ram>) -> (Source, Received) {
    let (uri, destination) = receive(|setup| setup);
    let source = send(ram, &uri, |setup| setup).unwrap();
    let received = std::thread::spawn(move || {
        let arrived: Arrived = destination.join().unwrap()?;
        assert_eq!(
            FullSection::of_device_state(&arrived.vm.device_state).unwrap().body,
            b"registers"
        );
        let ram = Arc::clone(&arrived.ram);
        arrived.confirm()?;
        Ok(ram)
    });
    (source, received)
}

/// Never reached by what a test dirties: a page takes longer.
const NEVER: Duration = Duration::ZERO;

#[test]
fn a_guest_that_calms_down_moves_with_what_it_wrote_last() {
    let ram = guest();
    let (source, received) = destination(&ram);
    // The sixth look is that of the paused guest.
    let mut guest = Scripted::new(&ram, |look| [0, 200, 100, 50, 0, 7][look as usize]);
    let precopy = Precopy::new(Policy::new().downtime(NEVER));
    precopy.run(source, &mut guest).unwrap();
    assert_equal(&ram, &received.join().unwrap().unwrap());
    let left: Vec<_> = guest.seen.iter().map(|snapshot| snapshot.bytes_left / 4096).collect();
    assert_eq!(left, [200, 100, 50, 0]);
    let rounds: Vec<_> = guest.seen.iter().map(|snapshot| snapshot.rounds).collect();
    assert_eq!(rounds, [1, 2, 3, 4]);
    assert!(guest.seen.iter().all(|snapshot| snapshot.bandwidth > 0.0));
    assert!(guest.seen[0].dirty_rate > 0.0 && guest.seen[0].estimate > Duration::ZERO);
    assert!(guest.seen.windows(2).all(|pair| pair[0].elapsed <= pair[1].elapsed));
    assert_eq!(precopy.snapshot(), guest.seen[3]);
    assert!(guest.paused && guest.throttled.is_empty());
}

#[test]
fn what_fits_the_downtime_is_the_last_round() {
    let ram = guest();
    let (source, received) = destination(&ram);
    let mut guest = Scripted::new(&ram, |_| 10);
    let policy = Policy::new().downtime(Duration::from_secs(3600));
    Precopy::new(policy).run(source, &mut guest).unwrap();
    assert_eq!((guest.seen.len(), guest.seen[0].rounds), (1, 1));
    assert_equal(&ram, &received.join().unwrap().unwrap());
}

#[test]
fn a_guest_that_never_fits_is_slowed_down_then_given_up_and_let_go_again() {
    let ram = guest();
    let (source, received) = destination(&ram);
    let mut guest = Scripted::new(&ram, |_| 250);
    let policy = Policy::new()
        .downtime(NEVER)
        .throttle(20, 30, 90)
        .timeout(Duration::from_secs(1), AtTimeout::Cancel);
    let error = Precopy::new(policy).run(source, &mut guest).unwrap_err();
    let NotMoved::Running(Error::NotConverging { rounds, .. }) = error else { panic!("{error:?}") };
    assert!(rounds >= 1);
    assert!(!guest.paused);
    // However many rounds there was time for.
    assert!(
        [20, 50, 80, 90].starts_with(&guest.throttled[..guest.throttled.len().saturating_sub(1)])
    );
    assert!(guest.throttled.is_empty() || guest.throttled.ends_with(&[0]), "{:?}", guest.throttled);
    received.join().unwrap().unwrap_err();
}

#[test]
fn a_guest_that_never_fits_is_moved_at_the_timeout_if_so_asked() {
    let ram = guest();
    let (source, received) = destination(&ram);
    let mut guest = Scripted::new(&ram, |_| 250);
    let policy = Policy::new().downtime(NEVER).timeout(Duration::ZERO, AtTimeout::SwitchOver);
    Precopy::new(policy).run(source, &mut guest).unwrap();
    assert_equal(&ram, &received.join().unwrap().unwrap());
    assert_eq!(guest.seen.len(), 1);
}

#[test]
fn a_round_that_hangs_is_ended_by_the_timeout() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    // More than the sockets hold, to a destination that never reads.
    let ram = common::ram(&[("pc.ram", 64 << 20)]);
    (0..16384).for_each(|page| ram.blocks()[0].write(page * 4096, &[7; 16]));
    let source = send(&ram, &uri, |setup| setup).unwrap();
    let mut guest = Scripted::new(&ram, |_| 0);
    let policy = Policy::new().timeout(Duration::from_millis(200), AtTimeout::Cancel);
    let error = Precopy::new(policy).run(source, &mut guest).unwrap_err();
    let expected = matches!(error, NotMoved::Running(Error::NotConverging { rounds: 0, .. }));
    assert!(expected, "{error:?}");
}

#[test]
fn a_failure_says_whether_the_guest_is_to_be_resumed() {
    for (fails, paused) in [("look", false), ("pause", false), ("last look", true), ("state", true)]
    {
        let ram = guest();
        let (source, received) = destination(&ram);
        let mut guest = Scripted::new(&ram, |_| 0);
        guest.fails = Some(fails);
        let error = Precopy::new(Policy::new()).run(source, &mut guest).unwrap_err();
        match &error {
            NotMoved::Running(Error::Guest(_)) => assert!(!paused, "{fails}"),
            NotMoved::Paused(Error::Guest(_)) => assert!(paused, "{fails}"),
            other => panic!("{fails}: {other:?}"),
        }
        assert_eq!(guest.paused, paused);
        let text = common::chain(error.error());
        assert!(text.ends_with(&format!("no {fails}")), "{text}");
        received.join().unwrap().unwrap_err();
    }
}

#[test]
fn a_destination_that_refuses_or_goes_at_the_end_leaves_the_guest_paused_or_unclear() {
    let ram = guest();
    let (uri, destination) = receive(|setup| setup);
    let source = send(&ram, &uri, |setup| setup).unwrap();
    // It says that it has failed.
    let refusing = std::thread::spawn(move || drop(destination.join().unwrap().unwrap()));
    let error = Precopy::new(Policy::new()).run(source, &mut Scripted::new(&ram, |_| 0));
    let error = error.unwrap_err();
    assert!(matches!(error, NotMoved::Paused(Error::DestinationFailed(_))), "{error:?}");
    refusing.join().unwrap();

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    let source = send(&ram, &uri, |setup| setup).unwrap();
    let reading = std::thread::spawn(move || {
        let [mut main, channels @ ..] = [(); 3].map(|()| listener.accept().unwrap().0);
        let channels = channels.map(|mut channel| {
            std::thread::spawn(move || _ = channel.read_to_end(&mut Vec::new()))
        });
        // The last bytes of the main channel.
        let mut last = [0; 2];
        while last != *b"]}" {
            last.rotate_left(1);
            main.read_exact(&mut last[1..]).unwrap();
        }
        drop(main);
        channels.into_iter().for_each(|channel| channel.join().unwrap());
    });
    let error = Precopy::new(Policy::new()).run(source, &mut Scripted::new(&ram, |_| 0));
    let error = error.unwrap_err();
    assert!(matches!(error, NotMoved::Unclear(_)), "{error:?}");
    assert!(error.to_string().contains("look there"), "{error}");
    reading.join().unwrap();
}

#[test]
fn neither_a_failure_nor_an_end_waits_for_the_timeout() {
    let policy = Policy::new().timeout(Duration::from_secs(24 * 3600), AtTimeout::Cancel);
    let began = std::time::Instant::now();
    let ram = guest();
    let (source, received) = destination(&ram);
    Precopy::new(policy.clone()).run(source, &mut Scripted::new(&ram, |_| 0)).unwrap();
    received.join().unwrap().unwrap();

    let (uri, destination) = receive(|setup| setup);
    let source = send(&ram, &uri, |setup| setup).unwrap();
    let token = source.cancel_token();
    let mut guest = Scripted::new(&ram, move |_| {
        token.cancel();
        10
    });
    let error = Precopy::new(policy.downtime(NEVER)).run(source, &mut guest).unwrap_err();
    assert!(matches!(error, NotMoved::Running(Error::Cancelled)), "{error:?}");
    destination.join().unwrap().unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(600));
}

#[test]
fn a_second_run_does_not_begin_with_the_rounds_of_the_first() {
    let ram = guest();
    let precopy = Precopy::new(Policy::new());
    let (source, received) = destination(&ram);
    precopy.run(source, &mut Scripted::new(&ram, |_| 0)).unwrap();
    received.join().unwrap().unwrap();
    assert_ne!(precopy.snapshot(), Snapshot::default());
    // It fails before its first round.
    let (source, received) = destination(&ram);
    let mut guest = Scripted::new(&ram, |_| 0);
    guest.fails = Some("look");
    precopy.run(source, &mut guest).unwrap_err();
    assert_eq!(precopy.snapshot(), Snapshot::default());
    received.join().unwrap().unwrap_err();
}
