//! Guest memory that is sent without a copy.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::os::unix::net::UnixStream;

use common::{
    all_compressions, any_port, chain, complete, fill, guest, is_alone, provide, ram, receive,
    registry, send,
};
use multifd::core::Compression;
use multifd::{Connection, Destination, Error, PageSet, Source};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn what_arrives_is_what_was_sent_also_when_it_is_sent_again() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup.channels(3));
    let mut source = send(&source_ram, &uri, |setup| setup.channels(3).zero_copy(true)).unwrap();
    for kind in 1..20 {
        source.round(&PageSet::all(&source_ram)).unwrap();
        (0..200).for_each(|page| fill(&source_ram, "pc.ram", page, kind));
    }
    let stats = complete(source, PageSet::all(&source_ram), &source_ram, destination);
    let (writes, packets) = (stats.zero_copy.writes, stats.total().packets);
    assert!(writes >= 20 * 4 && writes <= packets * 10, "{writes} writes for {packets} packets");
    assert!(stats.zero_copy.copied <= writes, "{:?}", stats.zero_copy);
}

#[test]
fn more_than_may_be_locked_waits_or_is_copied() {
    if !is_alone("more_than_may_be_locked_waits_or_is_copied") {
        return;
    }
    // Below a packet's pages. It is no limit for root, who may lock all.
    let before = getrlimit(Resource::Memlock);
    let few = before.maximum.map_or(256 << 10, |most| most.min(256 << 10));
    let few = Rlimit { current: Some(few), ..before };
    setrlimit(Resource::Memlock, few).unwrap();
    let source_ram = ram(&[("pc.ram", 16 << 20)]);
    (0..4096).for_each(|page| fill(&source_ram, "pc.ram", page, 1));
    let (uri, destination) = receive(|setup| setup);
    let source = send(&source_ram, &uri, |setup| setup.zero_copy(true)).unwrap();
    let stats = complete(source, PageSet::all(&source_ram), &source_ram, destination);
    assert!(stats.zero_copy.writes >= 32, "{:?}", stats.zero_copy);
}

#[test]
fn a_codec_is_refused_since_it_makes_a_copy() {
    let (source_ram, nowhere) = (guest(), "tcp:127.0.0.1:1".parse().unwrap());
    for compression in all_compressions() {
        if compression == Compression::None {
            continue;
        }
        let error =
            send(&source_ram, &nowhere, |setup| setup.compression(compression).zero_copy(true))
                .unwrap_err();
        assert!(matches!(error, Error::ZeroCopy(_)), "{compression:?}: {error:?}");
        assert!(chain(&error).contains("makes a copy"), "{}", chain(&error));
    }
}

#[test]
fn connections_that_are_not_tcp_are_refused() {
    let source_ram = guest();
    let (main, _main_peer) = UnixStream::pair().unwrap();
    let (channel, _channel_peer) = UnixStream::pair().unwrap();
    let [main, channel] = [main, channel].map(|end| Connection::from_socket(end).unwrap());
    let registry = registry();
    let setup = Source::builder(&registry, source_ram).zero_copy(true);
    let error = setup.connect_over(main, [channel]).unwrap_err();
    assert!(chain(&error).contains("only TCP has it"), "{}", chain(&error));
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_connected() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("unix:{}", folder.path().join("nobody").display()).parse().unwrap();
    let error = send(&guest(), &nobody, |setup| setup.zero_copy(true)).unwrap_err();
    assert!(chain(&error).contains("only TCP has it"), "{}", chain(&error));
}

#[test]
fn a_destination_that_gives_up_in_the_middle_ends_it() {
    let source_ram = ram(&[("pc.ram", 32 << 20)]);
    (0..8192).for_each(|page| fill(&source_ram, "pc.ram", page, 1));
    let destination = Destination::builder(&registry()).listen(&any_port()).unwrap();
    let (uri, token) = (destination.uri().clone(), destination.cancel_token());
    let taking = std::thread::spawn(move || {
        destination.receive(|incoming| {
            token.cancel();
            provide(incoming)
        })
    });
    let source = send(&source_ram, &uri, |setup| setup.zero_copy(true));
    let ended = source.map(|source| source.finish(&PageSet::all(&source_ram), None));
    assert!(!matches!(ended, Ok(Ok(_))), "{ended:?}");
    taking.join().unwrap().unwrap_err();
}
