//! Every kind of stranger at every moment.

use std::sync::LazyLock;
use std::thread::JoinHandle;

use multifd::relay::Relay;
use multifd::{Arrived, Destination, Error, Progress, Uri};

use crate::common::{any_port, assert_equal, provide};
use crate::kinds::Kind;
use crate::play::{Streams, address, wait_for_channels, wait_until};
use crate::registry;

/// When a stranger comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Before the source does.
    Before,
    /// When the source's main channel is there, and none of its channels.
    While,
    /// When all are there, in the middle of the pages.
    After,
}

/// A migration's receiving side, to which strangers come.
struct Receiving {
    uri: Uri,
    progress: Progress,
    received: JoinHandle<Result<Arrived, Error>>,
    relayed: Option<JoinHandle<multifd::relay::Relayed>>,
}

impl Receiving {
    fn destination() -> Self {
        let destination = Destination::builder(registry()).listen(&any_port()).unwrap();
        let (uri, progress) = (destination.uri().clone(), destination.progress());
        let received = std::thread::spawn(move || destination.receive(provide));
        Self { uri, progress, received, relayed: None }
    }

    fn relay() -> Self {
        let behind = Self::destination();
        let relay = Relay::builder(registry()).listen(&any_port(), &behind.uri).unwrap();
        let (uri, progress) = (relay.uri().clone(), relay.progress().from);
        let relayed = Some(std::thread::spawn(move || relay.run().unwrap()));
        Self { uri, progress, received: behind.received, relayed }
    }
}

static STREAMS: LazyLock<Streams> = LazyLock::new(|| Streams::of(2, |setup| setup));

/// A migration, to which a stranger comes. It goes through.
fn migrate(receiving: Receiving, kind: Kind, moment: Moment) {
    let (streams, Receiving { uri, progress, .. }) = (&*STREAMS, &receiving);
    let at = address(uri);
    let stranger = |all_are_there| {
        let stranger = kind.come(at);
        if kind.is_refused_at_once(all_are_there) {
            let what = format!("{kind:?} {moment:?} is refused");
            wait_until(progress, &what, |stats| stats.refused_connections == 1);
        }
        stranger
    };
    let before = (moment == Moment::Before).then(|| stranger(false));
    let main = streams.play_main(at);
    wait_until(progress, "the main channel is there", |stats| stats.main_bytes > 0);
    let between = (moment == Moment::While).then(|| stranger(false));
    let channels = streams.begin_channels(at);
    wait_for_channels(progress, &format!("{kind:?} {moment:?}"));
    let after = (moment == Moment::After).then(|| stranger(true));
    let sent = streams.end_channels(channels);
    let arrived = receiving.received.join().unwrap();
    let arrived = arrived.unwrap_or_else(|error| panic!("{kind:?} {moment:?}: {error}"));
    assert_equal(&streams.ram, &arrived.ram);
    arrived.confirm().unwrap();
    sent.into_iter().for_each(|sent| sent.join().unwrap().unwrap());
    if let Some(relayed) = receiving.relayed {
        relayed.join().unwrap();
    }
    drop((main, before, between, after));
}

fn all_at(moment: Moment, receiving: fn() -> Receiving) {
    for kind in Kind::ALL {
        // The first main channel that is one has the place.
        if moment != Moment::Before || !kind.is_main() {
            migrate(receiving(), kind, moment);
        }
    }
}

#[test]
fn whoever_comes_to_a_destination_before_its_source_the_migration_goes_through() {
    all_at(Moment::Before, Receiving::destination);
}

#[test]
fn whoever_comes_to_a_destination_before_the_channels_the_migration_goes_through() {
    all_at(Moment::While, Receiving::destination);
}

#[test]
fn whoever_comes_to_a_destination_among_the_pages_the_migration_goes_through() {
    all_at(Moment::After, Receiving::destination);
}

#[test]
fn whoever_comes_to_a_relay_before_its_source_the_migration_goes_through() {
    all_at(Moment::Before, Receiving::relay);
}

#[test]
fn whoever_comes_to_a_relay_before_the_channels_the_migration_goes_through() {
    all_at(Moment::While, Receiving::relay);
}

#[test]
fn whoever_comes_to_a_relay_among_the_pages_the_migration_goes_through() {
    all_at(Moment::After, Receiving::relay);
}
