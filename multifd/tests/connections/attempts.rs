//! Attempts that a source gives up, and begins anew: on TCP as on Unix sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use multifd::core::PeerError;
use multifd::core::wire::{InitialPacket, Uuid};
use multifd::{Arrived, Destination, DestinationBuilder, Error, PageSet, Uri};
use tempfile::TempDir;

use crate::common::{announcement_with_return_path, any_port, complete, guest, provide, send};
use crate::registry;

/// More than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// An address to listen on of either kind.
fn addresses() -> [(Uri, Option<TempDir>); 2] {
    let directory = tempfile::tempdir().unwrap();
    let unix = Uri::Unix(directory.path().join("sock"));
    [(any_port(), None), (unix, Some(directory))]
}

fn connect(uri: &Uri) -> Box<dyn Stream> {
    match uri {
        Uri::Tcp { host, port } => {
            let stream = TcpStream::connect((&host[..], *port)).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            Box::new(stream)
        }
        Uri::Unix(path) => {
            let stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            Box::new(stream)
        }
        uri => panic!("{uri}"),
    }
}

fn channel(uri: &Uri, channel: u8, uuid: Uuid) -> Box<dyn Stream> {
    let mut connection = connect(uri);
    connection.write_all(&InitialPacket::new(uuid, channel).to_bytes()).unwrap();
    connection
}

fn listen(
    uri: &Uri,
    setup: impl FnOnce(DestinationBuilder<'_>) -> DestinationBuilder<'_>,
) -> (Uri, JoinHandle<Result<Arrived, Error>>) {
    let destination = setup(Destination::builder(registry())).listen(uri).unwrap();
    let uri = destination.uri().clone();
    (uri, std::thread::spawn(move || destination.receive(provide)))
}

/// The migration itself, which must go through.
fn migrate(uri: &Uri, received: JoinHandle<Result<Arrived, Error>>) {
    let ram = guest();
    let source = send(&ram, uri, |setup| setup).unwrap();
    complete(source, PageSet::all(&ram), &ram, received);
}

#[test]
fn an_attempt_that_was_given_up_before_its_main_channel_began_does_not_disturb_the_next() {
    for round in 0..50 {
        for (listening, _directory) in addresses() {
            let (uri, received) = listen(&listening, |setup| setup);
            // The main channel says nothing; the channels say who they are, of another VM at times.
            let main = connect(&uri);
            let channels = [0, 1].map(|number| channel(&uri, number, Uuid([round; 16])));
            if round % 3 == 0 {
                // Whether the destination has found out by then who they are.
                std::thread::sleep(Duration::from_millis(3));
            }
            drop((main, channels));
            migrate(&uri, received);
        }
    }
}

#[test]
fn an_attempt_that_ended_in_an_initial_packet_does_not_disturb_the_next() {
    for (listening, _directory) in addresses() {
        for bytes in [3, 4, 63] {
            let (uri, received) = listen(&listening, |setup| setup);
            let mut cut = connect(&uri);
            let initial = InitialPacket::new(Uuid::default(), 0).to_bytes();
            cut.write_all(&initial[..bytes]).unwrap();
            drop(cut);
            migrate(&uri, received);
        }
    }
}

#[test]
fn channels_without_a_main_channel_are_said_within_the_time_limit() {
    for (listening, _directory) in addresses() {
        let (uri, received) =
            listen(&listening, |setup| setup.channel_timeout(Duration::from_millis(200)));
        // The main channel is there, and silent.
        let mut main = connect(&uri);
        let _channel = channel(&uri, 0, Uuid::default());
        let error = received.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::MissingMain { channels: 1, .. }), "{error}");
        let end = main.read(&mut [0]);
        assert!(!matches!(end, Ok(1..)), "it has had its time");
    }
}

#[test]
fn channels_that_have_left_are_not_waited_for_and_the_destination_goes_on_waiting() {
    for (listening, _directory) in addresses() {
        let limit = Duration::from_secs(2);
        let (uri, received) = listen(&listening, |setup| setup.channel_timeout(limit));
        drop(channel(&uri, 0, Uuid::default()));
        // Past its limit.
        std::thread::sleep(limit + limit / 4);
        migrate(&uri, received);
    }
}

#[test]
fn a_main_channel_that_ends_while_others_are_waited_for_is_named() {
    let ram = guest();
    for (listening, _directory) in addresses() {
        // Before the channels are there, and when all are there and none is at its SYNC.
        for channels in [0, 2] {
            let (uri, received) = listen(&listening, |setup| {
                let setup = setup.channel_timeout(Duration::from_secs(2));
                setup.progress_timeout(None)
            });
            let mut main = connect(&uri);
            // Without a return path a source may end it when it has sent everything.
            main.write_all(&announcement_with_return_path(&ram)).unwrap();
            let channels = (0..channels).map(|number| channel(&uri, number, Uuid::default()));
            let _channels: Vec<_> = channels.collect();
            drop(main);
            let error = received.join().unwrap().unwrap_err();
            let named = match &error {
                Error::MissingChannels { main_ended, .. } => *main_ended && _channels.is_empty(),
                Error::MainEnded { .. } => !_channels.is_empty(),
                _ => false,
            };
            assert!(named && error.to_string().contains("main channel"), "{error}");
        }
    }
}

#[test]
fn a_source_that_is_gone_when_it_is_answered_is_said_to_have_ended_its_main_channel() {
    for _ in 0..50 {
        for (listening, _directory) in addresses() {
            let (uri, received) = listen(&listening, |setup| setup);
            let mut main = connect(&uri);
            // It opens the return path and pings.
            main.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x08\0\x01\0\0").unwrap();
            main.write_all(b"\x08\0\x02\0\x04\0\0\0\x01\x08").unwrap();
            drop(main);
            let error = received.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::Main(_)), "{error}");
        }
    }
}

#[test]
fn two_channels_of_one_number_are_always_refused() {
    for _ in 0..100 {
        let (uri, received) = listen(&any_port(), |setup| setup);
        let _channels = [1, 1].map(|number| channel(&uri, number, Uuid::default()));
        let error = received.join().unwrap().unwrap_err();
        let Error::Channel(error) = error else { panic!("{error}") };
        let duplicate = PeerError::DuplicateChannel { id: 1 };
        assert!(error.to_string().contains(&duplicate.to_string()), "{error}");
    }
}
