//! A source that switches to postcopy.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;

use multifd::Uri;
use multifd::core::Compression;
use multifd::stream::{Limits, MainDecoder, MainEvent, ReturnMessage, section};
use multifd_conformance::{Recording, recordings};

use crate::support::{connect, listener, play_channels, relay};

/// The main channel of a recording up to its last sync, which is in a PART in place of END; then what
/// starts postcopy, and bytes that are in no form that a relay knows.
fn main_channel(recorded: &[u8]) -> Vec<u8> {
    let mut decoder = MainDecoder::new(Limits::default());
    let (mut rest, mut id, mut last_part, mut end) = (recorded, 0, 0, 0);
    while let Some(event) = decoder.next(&mut rest).unwrap() {
        match event {
            MainEvent::RamStart { section_id, .. } => id = section_id,
            MainEvent::BodyEnd { last: false } => last_part = decoder.offset() as usize,
            MainEvent::BodyEnd { last: true } => end = decoder.offset() as usize,
            _ => {}
        }
    }
    let footer_end = end + 5;
    let mut main = recorded[..footer_end].to_vec();
    let head = [&[section::END], &id.to_be_bytes()[..]].concat();
    let at = main[last_part..].windows(5).position(|bytes| bytes == head).unwrap();
    main[last_part + at] = section::PART;
    // Behind CONFIGURATION a source opens the return path.
    let opened = [section::COMMAND, 0, 1, 0, 0];
    if !main.windows(5).any(|bytes| bytes == opened) {
        let mut decoder = MainDecoder::new(Limits::default());
        decoder.next(&mut &recorded[..]).unwrap();
        let at = decoder.offset() as usize;
        main.splice(at..at, opened);
    }
    [&main[..], &[section::COMMAND, 0, 6, 0, 41], &POSTCOPY].concat()
}

const POSTCOPY: [u8; 5000] = [0x7b; 5000];

/// Plays a recording to a relay at `uri`, up to the switch. Gives the main channel's bytes and
/// connection, and the channels.
fn switch(uri: &Uri, recording: &Recording) -> (Vec<u8>, TcpStream, Vec<JoinHandle<TcpStream>>) {
    let main = main_channel(recording.main);
    let channels: Vec<_> = recording.channels.iter().map(|bytes| bytes.to_vec()).collect();
    let mut source_main = connect(uri);
    source_main.write_all(&main).unwrap();
    (main, source_main, play_channels(uri, &channels))
}

#[test]
fn after_the_switch_both_directions_pass_as_they_are_and_the_confirmation_counts() {
    for recording in recordings() {
        let (listener, uri) = listener();
        let running = relay(&uri, |setup| {
            let channels = recording.channels.len() as u8;
            let setup = setup.from_compression(recording.compression).from_channels(channels);
            setup.to_compression(Compression::Zlib).to_channels(3)
        });
        let (main, mut source_main, source) = switch(&running.uri, recording);

        let (mut destination, _) = listener.accept().unwrap();
        let others: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        let read = |mut other: TcpStream| {
            std::thread::spawn(move || other.read_to_end(&mut Vec::new()).unwrap())
        };
        let readers: Vec<_> = others.into_iter().map(read).collect();
        let mut arrived = vec![0; main.len()];
        destination.read_exact(&mut arrived).unwrap();
        assert!(arrived == main, "{recording:?}");
        // A request for pages, whose form is the source's matter; what it is answered with.
        let request = [&[0, 4, 0, 21][..], &[0x5a; 21]].concat();
        destination.write_all(&request).unwrap();
        let mut heard = vec![0; request.len()];
        source_main.read_exact(&mut heard).unwrap();
        assert_eq!(heard, request);
        source_main.write_all(b"a page").unwrap();
        let mut page = [0; 6];
        destination.read_exact(&mut page).unwrap();
        assert_eq!(&page, b"a page");

        let shut = ReturnMessage::Shut(0).to_bytes();
        destination.write_all(&shut).unwrap();
        heard = vec![0; shut.len()];
        source_main.read_exact(&mut heard).unwrap();
        assert_eq!(heard, shut);
        source_main.shutdown(Shutdown::Write).unwrap();
        let relayed = running.join().unwrap();
        assert!(relayed.confirmed, "{recording:?}");
        assert_eq!(relayed.from.main_bytes, main.len() as u64 + 6);
        drop((destination, source));
        readers.into_iter().for_each(|reader| assert!(reader.join().unwrap() > 0));
    }
}

#[test]
fn a_relay_that_fails_after_the_switch_leaves_it_unclear_whose_the_guest_is() {
    let recording = recordings().iter().find(|recording| recording.name == "zstd").unwrap();
    let (listener, uri) = listener();
    let running = relay(&uri, |setup| {
        setup.from_compression(recording.compression).from_channels(3).to_channels(1)
    });
    let (main, _source_main, source) = switch(&running.uri, recording);
    let (mut destination, _) = listener.accept().unwrap();
    let (mut other, _) = listener.accept().unwrap();
    let reader = std::thread::spawn(move || other.read_to_end(&mut Vec::new()));
    destination.read_exact(&mut vec![0; main.len()]).unwrap();
    drop(destination);
    let error = running.join().unwrap_err();
    assert!(matches!(error, multifd::Unfinished::Unclear(_)), "{error}");
    drop(source);
    _ = reader.join();
}
