//! The limit of a source's and a relay's bandwidth.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::num::NonZeroU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{any_port, complete, fill, ram, receive, registry, send};
use multifd::relay::Relay;
use multifd::{CancelToken, Error, PageSet, Progress, Unfinished, Uri, ZeroPages};

/// Bytes a second.
const LIMIT: u64 = 4_000_000;

fn limit() -> Option<NonZeroU64> {
    NonZeroU64::new(LIMIT)
}

/// What must take so long at least: all but a packet and the 10 ms that may go out at once.
fn least(wire_bytes: u64) -> Duration {
    let bytes = wire_bytes - (513 << 10);
    Duration::from_secs_f64(bytes as f64 / LIMIT as f64) - Duration::from_millis(10)
}

/// Nothing here may take longer, however busy the machine is.
const MOST: Duration = Duration::from_secs(60);

#[test]
fn a_source_sends_no_faster_than_its_limit_over_all_its_channels() {
    let source_ram = ram(&[("pc.ram", 4 << 20)]);
    (0..1024).for_each(|page| fill(&source_ram, "pc.ram", page, 1));
    let (uri, destination) = receive(|setup| setup.channels(4));
    let began = Instant::now();
    let setup = send(&source_ram, &uri, |setup| setup.channels(4).max_bandwidth(limit()));
    let mut source = setup.unwrap();
    source.round(&PageSet::all(&source_ram)).unwrap();
    let stats = complete(source, PageSet::none(&source_ram), &source_ram, destination);
    let took = began.elapsed();
    assert!(took >= least(stats.wire_bytes()), "{took:?} for {} bytes", stats.wire_bytes());
    assert!(took < MOST, "{took:?}");
}

#[test]
fn the_main_channels_bytes_count() {
    // 32 MiB of zero pages: nothing but 9 bytes each in the main channel, and then the device state.
    let source_ram = ram(&[("pc.ram", 32 << 20)]);
    let (uri, destination) = receive(|setup| setup);
    let began = Instant::now();
    let slow = NonZeroU64::new(100_000);
    let source = send(&source_ram, &uri, |setup| {
        setup.zero_pages(ZeroPages::Main).max_bandwidth(slow).return_path(false)
    })
    .unwrap();
    let stats = source.finish(&PageSet::all(&source_ram), None).unwrap();
    let took = began.elapsed();
    destination.join().unwrap().unwrap().confirm().unwrap();
    let (main, packet) = (stats.main_bytes, 33 << 10);
    let least = Duration::from_secs_f64((main - packet) as f64 / 100_000.0);
    assert!(main > 8192 * 9 && took >= least - Duration::from_millis(10), "{took:?}, {main}");
}

#[test]
fn a_relay_passes_on_no_faster_than_its_limit() {
    let source_ram = ram(&[("pc.ram", 4 << 20)]);
    (0..1024).for_each(|page| fill(&source_ram, "pc.ram", page, 1));
    let (uri, destination) = receive(|setup| setup);
    let relay =
        Relay::builder(&registry()).max_bandwidth(limit()).listen(&any_port(), &uri).unwrap();
    let from = relay.uri().clone();
    let relayed = std::thread::spawn(move || relay.run());
    let began = Instant::now();
    let source = send(&source_ram, &from, |setup| setup).unwrap();
    complete(source, PageSet::all(&source_ram), &source_ram, destination);
    let relayed = relayed.join().unwrap().unwrap();
    let took = began.elapsed();
    assert!(took >= least(relayed.to.wire_bytes()), "{took:?}");
    assert!(took < MOST, "{took:?}");
}

fn slow_source(uri: Uri) -> (CancelToken, Progress, JoinHandle<Result<(), Unfinished>>) {
    let (give, given) = std::sync::mpsc::channel();
    let sent = std::thread::spawn(move || {
        let source_ram = ram(&[("pc.ram", 4 << 20)]);
        (0..1024).for_each(|page| fill(&source_ram, "pc.ram", page, 1));
        // After the first packet it waits for days.
        let slow = NonZeroU64::new(10_000);
        let mut source = send(&source_ram, &uri, |setup| setup.max_bandwidth(slow))?;
        give.send((source.cancel_token(), source.progress())).unwrap();
        source.round(&PageSet::all(&source_ram))?;
        Ok(())
    });
    let (token, progress) = given.recv().unwrap();
    (token, progress, sent)
}

/// Waits until the first packet has gone out, and then nothing more.
fn wait_for_the_limit(progress: &Progress) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut before = 0;
    loop {
        let bytes = progress.snapshot().wire_bytes();
        if bytes > 128 * 4096 && bytes == before {
            return;
        }
        assert!(Instant::now() < deadline, "{bytes} bytes");
        before = bytes;
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_source_that_waits_for_its_limit_is_cancelled_at_once() {
    let (uri, destination) = receive(|setup| setup);
    let (token, progress, sent) = slow_source(uri);
    wait_for_the_limit(&progress);
    let began = Instant::now();
    token.cancel();
    let sent = sent.join().unwrap();
    assert!(matches!(sent, Err(Unfinished::Failed(Error::Cancelled))), "{sent:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    destination.join().unwrap().unwrap_err();
}

/// By hand, on a machine that has nothing else to do: `cargo test --release --test bandwidth --
/// --ignored --nocapture`.
#[test]
#[ignore = "measures, and depends on the machine"]
#[allow(clippy::print_stdout, reason = "it reports")]
fn a_limit_is_kept_within_3_percent() {
    let source_ram = ram(&[("pc.ram", 256 << 20)]);
    (0..65536).for_each(|page| fill(&source_ram, "pc.ram", page, 1));
    let send_at = |limit: Option<NonZeroU64>, channels, rounds| {
        let (uri, destination) = receive(|setup| setup.channels(channels));
        let setup = send(&source_ram, &uri, |setup| setup.channels(channels).max_bandwidth(limit));
        let mut source = setup.unwrap();
        let began = Instant::now();
        for _ in 0..rounds {
            source.round(&PageSet::all(&source_ram)).unwrap();
        }
        let took = began.elapsed().as_secs_f64();
        let bytes = source.progress().snapshot().wire_bytes();
        drop(source);
        destination.join().unwrap().unwrap_err();
        bytes as f64 / took
    };
    for (gbits, rounds) in [(0.1, 1), (1.0, 2), (10.0, 8)] {
        for channels in [1, 4] {
            let limit = gbits * 1e9 / 8.0;
            let possible = send_at(None, channels, 4);
            let reached = send_at(NonZeroU64::new(limit as u64), channels, rounds);
            println!(
                "{gbits} Gbit/s on {channels} channels: {:.2} %, of {:.0} % that are possible",
                reached / limit * 100.0,
                possible / limit * 100.0
            );
            assert!(possible < limit * 1.5 || (0.97..=1.03).contains(&(reached / limit)));
        }
    }
}
