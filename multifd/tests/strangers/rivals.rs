//! Two that speak under one number: who has its place depends on where they come from and in which order,
//! and never on whose thread is first.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use multifd::core::wire::{InitialPacket, Uuid};
use multifd::relay::Relay;
use multifd::{Arrived, Destination, Error, PageSet, Uri};
use socket2::{Domain, Socket, Type};

use crate::common::{
    again_with_delays, announcement_with_return_path, any_port, assert_equal, complete, guest,
    provide, receive, send,
};
use crate::play::{Streams, address, wait_until};
use crate::registry;

/// Another machine, as far as addresses say.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Who connects.
#[derive(Clone, Copy, Debug)]
enum Who {
    Main,
    /// A channel of the source, which sends all that it has.
    Channel(usize),
    /// A channel under the number 0 with packets of another migration.
    Rival(Ipv4Addr),
    /// It says that it is a channel, and no more.
    Claims(u8),
}

static RIVAL: LazyLock<Vec<u8>> =
    LazyLock::new(|| Streams::of(3, |setup| setup).channels.remove(0));

fn connect(uri: &Uri, from: Ipv4Addr) -> TcpStream {
    let (host, port) = address(uri);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&SocketAddr::new(host.parse().unwrap(), port).into()).unwrap();
    socket.into()
}

/// A migration whose connections come in this order. Whatever they begin with has come before the main
/// channel goes on.
fn migrate(streams: &Streams, who: &[Who]) -> Result<Arrived, Error> {
    let (uri, received) = receive(|builder| builder.channel_timeout(Duration::from_secs(60)));
    let mut mains = Vec::new();
    let mut others = Vec::new();
    for &who in who {
        let from = if let Who::Rival(from) = who { from } else { HERE };
        let mut connection = connect(&uri, from);
        let bytes = match who {
            Who::Main => {
                connection.write_all(&streams.main[..9]).unwrap();
                mains.push(connection);
                continue;
            }
            Who::Channel(number) => streams.channels[number].clone(),
            Who::Rival(_) => RIVAL.clone(),
            Who::Claims(number) => {
                let uuid = InitialPacket::parse(streams.channels[0][..64].try_into().unwrap());
                InitialPacket::new(uuid.unwrap().uuid, number).to_bytes().to_vec()
            }
        };
        let (first, rest) = bytes.split_at(bytes.len().min(64 + 1344));
        connection.write_all(first).unwrap();
        others.push((connection, rest.to_vec()));
    }
    mains[0].write_all(&streams.main[9..]).unwrap();
    mains[0].shutdown(Shutdown::Write).unwrap();
    let send = |(mut connection, rest): (TcpStream, Vec<u8>)| {
        std::thread::spawn(move || {
            // It may have been refused.
            _ = connection.write_all(&rest);
            // Who has no more to say stays.
            rest.is_empty().then_some(connection)
        })
    };
    let sending: Vec<_> = others.into_iter().map(send).collect();
    let arrived = received.join().unwrap();
    sending.into_iter().for_each(|sending| drop(sending.join().unwrap()));
    arrived
}

fn is_whole(streams: &Streams, who: &[Who]) {
    let arrived = migrate(streams, who).unwrap_or_else(|error| panic!("{who:?}: {error}"));
    assert_equal(&streams.ram, &arrived.ram);
    let from_elsewhere = who.iter().any(|who| matches!(who, Who::Rival(ELSEWHERE)));
    assert!(!from_elsewhere || arrived.refused().channels == 0, "none is the source's");
}

#[test]
fn a_rival_that_comes_behind_a_channel_does_not_take_its_place() {
    let streams = Streams::of(2, |setup| setup);
    for _ in 0..20 {
        is_whole(&streams, &[Who::Main, Who::Channel(0), Who::Rival(HERE), Who::Channel(1)]);
    }
}

#[test]
fn a_rival_from_elsewhere_does_not_take_a_channels_place_whenever_it_comes() {
    let streams = Streams::of(2, |setup| setup);
    for _ in 0..10 {
        for place in 0..=3 {
            let mut who = vec![Who::Main, Who::Channel(0), Who::Channel(1)];
            who.insert(place, Who::Rival(ELSEWHERE));
            is_whole(&streams, &who);
        }
    }
}

#[test]
fn a_relay_does_not_announce_what_a_stranger_from_elsewhere_says_before_the_source_does() {
    let ram = guest();
    // Another VM; one whose source says nothing of its RAM.
    for uuid in [Uuid([2; 16]), Uuid::default()].into_iter().cycle().take(20) {
        let (to, received) = receive(|setup| setup);
        let relay = Relay::builder(registry()).listen(&any_port(), &to).unwrap();
        let uri = relay.uri().clone();
        let mut stranger = connect(&uri, ELSEWHERE);
        stranger.write_all(&InitialPacket::new(uuid, 0).to_bytes()).unwrap();
        stranger.write_all(&[0]).unwrap();
        let relayed = std::thread::spawn(move || relay.run());
        let source = send(&ram, &uri, |setup| setup).unwrap();
        complete(source, PageSet::all(&ram), &ram, received);
        relayed.join().unwrap().unwrap();
    }
}

#[test]
fn a_rival_from_the_main_channels_host_that_comes_before_the_channel_ends_the_migration_always() {
    let streams = Streams::of(2, |setup| setup);
    let who = [Who::Main, Who::Rival(HERE), Who::Channel(0), Who::Channel(1)];
    let verdict = |_| match migrate(&streams, &who).map(drop).unwrap_err() {
        // Who was refused has another port each time.
        Error::LostPackets { packets, first, .. } => format!("{packets} from {first}"),
        error => error.to_string(),
    };
    let verdicts: BTreeSet<_> = (0..20).map(verdict).collect();
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
}

#[test]
fn a_refusal_shortens_the_time_of_a_silent_source_only_where_it_may_be_the_sources() {
    const TIME: Duration = Duration::from_secs(1);
    let streams = Streams::of(2, |setup| setup);
    // All but the sync at its end.
    let mut announcement = announcement_with_return_path(&streams.ram);
    announcement.truncate(announcement.len() - 24);
    for from in [ELSEWHERE, HERE] {
        let destination =
            Destination::builder(registry()).channel_timeout(TIME).progress_timeout(None);
        let destination = destination.listen(&any_port()).unwrap();
        let (uri, progress) = (destination.uri().clone(), destination.progress());
        let received = std::thread::spawn(move || destination.receive(provide));
        let mut main = connect(&uri, HERE);
        main.write_all(&announcement).unwrap();
        wait_until(&progress, "the main channel is there", |stats| stats.main_bytes > 0);
        let mut stranger = connect(&uri, from);
        stranger.write_all(&InitialPacket::new(Uuid::default(), 2).to_bytes()).unwrap();
        wait_until(&progress, "it is refused", |stats| stats.refused_connections == 1);
        if from == ELSEWHERE {
            std::thread::sleep(3 * TIME);
            assert!(!received.is_finished());
            drop(main);
        }
        let error = received.join().unwrap().map(drop).unwrap_err();
        assert_eq!(matches!(error, Error::AfterRefusal { .. }), from == HERE, "{error}");
    }
}

#[test]
fn claims_that_say_no_more_do_not_hold_up_channels_that_came_before_their_main_channel() {
    let streams = Streams::of(2, |setup| setup);
    for who in [
        [Who::Channel(0), Who::Channel(1), Who::Main, Who::Claims(0), Who::Claims(1)],
        [Who::Claims(1), Who::Channel(1), Who::Main, Who::Claims(0), Who::Channel(0)],
    ] {
        is_whole(&streams, &who);
    }
}

#[test]
fn all_of_it_holds_where_threads_are_delayed_between_each_other() {
    again_with_delays("rivals");
}
