//! Sources that are honest, and not as expected; and two at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use multifd::core::wire::Uuid;
use multifd::relay::Relay;
use multifd::{Destination, DestinationBuilder, Error, PageSet, Source, Unfinished, Uri};

use crate::common::{
    announcement_with_return_path, any_port, assert_equal, cause, chain, guest, provide, receive,
    send,
};
use crate::play::{Streams, address, wait_until};
use crate::registry;

/// The error of a destination that gets `streams`, whatever becomes of them.
fn received(
    streams: &Streams,
    setup: impl FnOnce(DestinationBuilder<'_>) -> DestinationBuilder<'_>,
) -> Error {
    let (uri, received) = receive(|builder| setup(builder).channel_timeout(Duration::from_secs(2)));
    let at = address(&uri);
    let main = streams.play_main(at);
    // A source connects all before it sends on any. It may be over by now.
    let connect = |_| TcpStream::connect(at).ok();
    let connected: Vec<_> = streams.channels.iter().map_while(connect).collect();
    let send = |(mut channel, bytes): (TcpStream, &Vec<u8>)| {
        let bytes = bytes.clone();
        std::thread::spawn(move || {
            // It is refused in the middle.
            _ = channel.write_all(&bytes);
            channel
        })
    };
    let sending: Vec<_> = connected.into_iter().zip(&streams.channels).map(send).collect();
    let error = received.join().unwrap().map(|_| ()).unwrap_err();
    sending.into_iter().for_each(|sending| drop(sending.join().unwrap()));
    drop(main);
    error
}

#[test]
fn a_channel_too_many_never_passes_for_a_whole_vm_even_if_its_source_does_not_notice() {
    let streams = Streams::of(3, |setup| setup);
    for _ in 0..20 {
        let error = received(&streams, |setup| setup);
        assert!(matches!(error, Error::LostPackets { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("only 2 channels are agreed") && text.contains("127.0.0.1:"),
            "{text}"
        );
    }
}

#[test]
fn whichever_channel_is_lost_shows() {
    for lost in 0..3 {
        let mut streams = Streams::of(3, |setup| setup);
        streams.channels.remove(lost);
        // The numbers of those that are left have a gap.
        for (number, channel) in (0..).zip(&mut streams.channels) {
            channel[24] = number;
        }
        let error = received(&streams, |setup| setup);
        assert!(matches!(error, Error::LostPackets { .. }), "{lost}: {error}");
    }
}

#[test]
fn another_uuid_is_said_with_both() {
    let streams = Streams::of(2, |setup| setup.uuid(Uuid([2; 16])));
    let error = received(&streams, |setup| setup.uuid(Some(Uuid([1; 16]))));
    let Error::MissingChannels { connected: 0, channels: 2, refused, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((refused.connections, refused.channels), (2, 2));
    let text = error.to_string();
    assert!(text.contains("2 connections were refused"), "{text}");
    assert!(text.contains(&Uuid([1; 16]).to_string()) && text.contains(&Uuid([2; 16]).to_string()));
}

#[test]
fn too_few_channels_are_said() {
    let streams = Streams::of(1, |setup| setup);
    let error = received(&streams, |setup| setup);
    assert!(matches!(error, Error::MissingChannels { connected: 1, channels: 2, .. }), "{error}");
}

#[test]
fn a_source_that_notices_that_a_channel_is_refused_is_said_to_have_had_one_too_many() {
    // Whether it notices before it waits for an answer depends on the threads: the wait has a limit then.
    let (limit, progress) = (Duration::from_secs(2), Some(Duration::from_secs(10)));
    for over_relay in [false, true] {
        let (to, received) =
            receive(|setup| setup.channel_timeout(limit).progress_timeout(progress));
        let relay = Relay::builder(registry()).channel_timeout(limit).progress_timeout(progress);
        let relay = over_relay.then(|| relay.listen(&any_port(), &to).unwrap());
        let uri: Uri = relay.as_ref().map_or(&to, Relay::uri).clone();
        let relayed = relay.map(|relay| std::thread::spawn(move || relay.run()));
        let ram = guest();
        let sent = send(&ram, &uri, |setup| setup.channels(3)).map_err(Unfinished::from);
        // The refused channel's SYNC of a round leaves a gap in the numbers. Without a round it may have none
        // but the first and the last number: it lacks no page then, and nothing is wrong.
        let sent = sent.and_then(|mut source| {
            source.round(&PageSet::all(&ram))?;
            source.finish(&PageSet::all(&ram), None)
        });
        sent.unwrap_err();
        let at_destination = received.join().unwrap().map(|_| ()).unwrap_err();
        let said = match relayed {
            Some(relayed) => chain(&cause(relayed.join().unwrap().unwrap_err())),
            None => chain(&at_destination),
        };
        assert!(said.contains("only 2 channels are agreed"), "{said}");
    }
}

#[test]
fn a_second_source_hears_that_it_is_one_and_the_first_goes_on() {
    for return_path in [true, false] {
        let destination = Destination::builder(registry()).listen(&any_port()).unwrap();
        let (uri, progress) = (destination.uri().clone(), destination.progress());
        let received = std::thread::spawn(move || destination.receive(provide));
        let ram = guest();
        let mut source = send(&ram, &uri, |setup| setup.return_path(return_path)).unwrap();
        source.round(&PageSet::all(&ram)).unwrap();
        let all = |stats: &multifd::Stats| stats.channels.iter().all(|one| one.wire_bytes > 1344);
        wait_until(&progress, "all channels are there", all);
        for number in 1..=3 {
            let second = Source::builder(registry(), Arc::clone(&ram)).return_path(return_path);
            let failed = second.connect(&uri).map_err(Unfinished::from);
            let failed = failed.and_then(|mut source| {
                source.round(&PageSet::all(&ram))?;
                source.finish(&PageSet::all(&ram), None)
            });
            if return_path {
                let error = cause(failed.unwrap_err());
                assert!(matches!(error, Error::DestinationFailed(1)), "{error}");
            }
            // Its main channel, and its channels as far as it came to connect them.
            wait_until(&progress, "it is counted", |stats| stats.refused_connections >= number);
        }
        source.round(&PageSet::all(&ram)).unwrap();
        let last = PageSet::all(&ram);
        let sent = std::thread::spawn(move || source.finish(&last, None));
        let arrived = received.join().unwrap().unwrap();
        assert_equal(&ram, &arrived.ram);
        assert!(arrived.refused().connections >= 3);
        arrived.confirm().unwrap();
        sent.join().unwrap().unwrap();
    }
}

#[test]
fn a_source_that_stops_and_keeps_its_main_channel_open_is_told_within_the_time_limit() {
    // A QEMU of which one channel is refused: it ends the others, and waits for an answer. Or it had all
    // its channels, and ended them.
    for channels in [3, 2, 1] {
        let streams = Streams::of(3, |setup| setup);
        let (uri, received) = receive(|builder| {
            builder.channel_timeout(Duration::from_secs(2)).progress_timeout(None)
        });
        let at = address(&uri);
        let mut main = TcpStream::connect(at).unwrap();
        main.write_all(&announcement_with_return_path(&streams.ram)).unwrap();
        // Its last channels alone, the third of which is one too many.
        for bytes in &streams.channels[3 - channels..] {
            let mut channel = TcpStream::connect(at).unwrap();
            _ = channel.write_all(&bytes[..64 + 1344]);
        }
        let error = chain(&received.join().unwrap().map(|_| ()).unwrap_err());
        assert!(error.contains("only 2 channels are agreed"), "{channels}: {error}");
        let mut said = Vec::new();
        main.read_to_end(&mut said).unwrap();
        assert!(said.ends_with(&[0, 1, 0, 4, 0, 0, 0, 1]), "{said:?}");
    }
}
