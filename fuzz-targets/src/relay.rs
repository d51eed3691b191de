//! A whole relay: what it says has gone through is whole behind it, too, and holds the same.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use multifd::core::MultiFdMethods;
use multifd::driver::MainChannelError;
use multifd::relay::Relay;
use multifd::{Arrived, Connection, Destination, Error, Outgoing};
use multifd_core::channel::{Opened, Opening};
use multifd_core::stream::{Limits, MainDecoder, ReturnMessage, StreamErrorKind};

use crate::{codec, content, parts, provide, registry};

/// Channels on the side of the destination.
const CHANNELS: usize = 2;

/// How long a relay may take, which waits for its source for as long as that takes otherwise.
const LIMIT: Duration = Duration::from_secs(20);

/// How long channels may wait for a main channel, where theirs is refused for what it says first. No verdict hangs
/// on it: what takes longer is no success.
const CHANNEL_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs the target on one input.
pub fn relay(input: &[u8]) {
    let (choice, parts) = parts(input);
    let Some((&main, channels)) = parts.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return;
    };
    // Who connects is another matter, and what does not come is waited for.
    if !(is_main(main) && are_channels(channels)) {
        return;
    }
    let (from, to) = (codec(choice & 0xf), codec(choice >> 4));
    let pairs: Vec<_> = (0..=CHANNELS).map(|_| pair()).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let mut ours = ours.into_iter().map(connection);
    let out = Outgoing::over(ours.next().expect("the main channel"), ours);
    let relay = Relay::builder(registry())
        .from_compression(Arc::clone(from))
        .to_compression(Arc::clone(to))
        .from_channels(channels.len() as u8)
        .channel_timeout(CHANNEL_TIMEOUT)
        .time_limit(Some(LIMIT))
        .without_listener(out)
        .expect("it can be set up");
    let mut senders = Vec::new();
    for &bytes in &parts {
        let (theirs, ours) = pair();
        relay.entrance().add(connection(ours)).expect("it has just begun");
        let bytes = bytes.to_vec();
        senders.push(spawn(move || send(&theirs, &bytes)));
    }
    let mut theirs = theirs.into_iter();
    let destination = theirs.next().map(|main| spawn(move || take(main)));
    let takers: Vec<_> = theirs.map(|channel| spawn(move || take_all(channel))).collect();
    // Where each has been refused, the next source is waited for, and there is none.
    let cancel = relay.cancel_token();
    let senders = spawn(move || {
        senders.into_iter().for_each(joined);
        cancel.cancel();
    });
    let relayed = relay.run();
    let passed_on = destination.map(joined).expect("the main channel");
    let passed_channels: Vec<_> = takers.into_iter().map(joined).collect();
    joined(senders);
    if relayed.is_err() {
        return;
    }
    let passed_channels: Vec<_> = passed_channels.iter().map(Vec::as_slice).collect();
    let behind = decode(to, &passed_on, &passed_channels);
    match (decode(from, main, channels), behind) {
        (Ok(before), Ok(behind)) => {
            assert!(before.vm.device_state == behind.vm.device_state);
            assert!(content(&before.ram) == content(&behind.ram));
        }
        (Err(before), Err(behind)) if is_passed_on(&before) && is_passed_on(&behind) => {
            assert_eq!(before.to_string(), behind.to_string());
        }
        (before, behind) => panic!("before: {before:?}, behind: {behind:?}"),
    }
}

/// What the destination checks and a relay passes on: what the RAM holds, and what the VMDESCRIPTION says of that.
fn is_passed_on(error: &Error) -> bool {
    match error {
        Error::Digest { .. } | Error::NoDigests | Error::Caller(_) => true,
        Error::Main(MainChannelError::Stream(error)) => error.kind == StreamErrorKind::Digests,
        _ => false,
    }
}

/// Whether it is a main channel of the version that there is. Another is refused as a stranger is, and its channels
/// wait for a better one.
fn is_main(bytes: &[u8]) -> bool {
    matches!(opened(bytes), Some(Opened::Main)) && bytes.get(4..8) == Some(&[0, 0, 0, 3])
}

/// Whether there is a channel of each number, of one VM.
fn are_channels(all: &[&[u8]]) -> bool {
    let initial = |bytes: &&[u8]| match opened(bytes) {
        Some(Opened::Channel(initial)) => Some(initial),
        _ => None,
    };
    let Some(initials) = all.iter().map(initial).collect::<Option<Vec<_>>>() else {
        return false;
    };
    let numbers: BTreeSet<_> = initials.iter().map(|initial| initial.channel).collect();
    initials.iter().all(|initial| initial.uuid == initials[0].uuid)
        && numbers.into_iter().map(usize::from).eq(0..all.len())
}

fn opened(mut bytes: &[u8]) -> Option<Opened> {
    let mut opening = Opening::new();
    loop {
        let room = opening.want();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        match opening.filled(count) {
            Ok(None) => {}
            Ok(opened) => return opened,
            Err(_) => return None,
        }
    }
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("a pair of sockets")
}

fn connection(socket: UnixStream) -> Connection {
    Connection::from_socket(socket).expect("a socket")
}

/// Sends all bytes, as far as they are read, and reads what is answered.
fn send(mut socket: &UnixStream, bytes: &[u8]) {
    _ = socket.write_all(bytes).and_then(|()| socket.shutdown(Shutdown::Write));
    _ = io::copy(&mut socket, &mut io::sink());
}

fn take_all(mut socket: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    _ = socket.read_to_end(&mut bytes);
    bytes
}

/// A destination's main channel: it says that it has everything when everything has come.
fn take(mut socket: UnixStream) -> Vec<u8> {
    let mut decoder = MainDecoder::new(Limits::default()).passing_postcopy().passing_device_state();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let mut has_said = false;
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
        let mut rest = &buffer[..count];
        while let Ok(Some(_)) = decoder.next(&mut rest) {}
        if decoder.is_over() && !std::mem::replace(&mut has_said, true) {
            _ = socket.write_all(&ReturnMessage::Shut(0).to_bytes());
            _ = socket.shutdown(Shutdown::Write);
        }
    }
    bytes
}

fn decode(
    codec: &Arc<dyn MultiFdMethods>,
    main: &[u8],
    channels: &[&[u8]],
) -> Result<Arrived, Error> {
    let channels = channels.iter().map(|bytes| Cursor::new(bytes.to_vec())).collect();
    let builder = Destination::builder(registry()).compression(Arc::clone(codec));
    builder.decode(main, channels, provide)
}
