//! A destination is told to wait for a SYNC only when each channel has sent it. A QEMU that waits for
//! one whose channel has closed meanwhile hangs for ever.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use multifd::core::PageSize;
use multifd::core::wire::RamPacket;
use multifd::relay::Relay;
use multifd::stream::{Limits, MainDecoder, MainEvent};
use multifd::{Connection, Destination, Outgoing, PageSet, Source};

use crate::common::{guest, provide};
use crate::registry;

const CHANNELS: usize = 3;

/// What was written, by whom, in order; 0 is the main channel.
type Log = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

/// The side that writes, and notes it: the main channel's bytes before, those of the others behind, so
/// that what is in order here is in order for whoever reads.
struct Noting {
    stream: UnixStream,
    wire: usize,
    log: Log,
}

impl Write for Noting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let note = |bytes: &[u8]| self.log.lock().unwrap().push((self.wire, bytes.to_vec()));
        if self.wire == 0 {
            note(bytes);
            self.stream.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let count = self.stream.write(bytes)?;
        note(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The two ends of the main channel and the others, of which one notes what it writes.
fn pairs(log: &Log) -> (Vec<Connection>, Vec<Connection>) {
    let pair = |wire| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let [reader, writer, to_shut_down] = [(); 3].map(|()| ours.try_clone().unwrap());
        let writer = Noting { stream: writer, wire, log: Arc::clone(log) };
        let shut_down = move |how: Shutdown| to_shut_down.shutdown(how);
        let noting = Connection::from_stream(reader, writer, shut_down);
        (noting, Connection::from_socket(theirs).unwrap())
    };
    (0..=CHANNELS).map(pair).unzip()
}

/// Asserts that no sync of the main channel was written before the channels' SYNCs.
fn assert_in_order(log: &Log) {
    let mut decoder = MainDecoder::new(Limits::default()).passing_device_state();
    let (mut syncs, mut streams) = (0, vec![Vec::new(); CHANNELS + 1]);
    for (wire, bytes) in &*log.lock().unwrap() {
        if *wire > 0 {
            streams[*wire].extend_from_slice(bytes);
            continue;
        }
        let mut rest = &bytes[..];
        while let Some(event) = decoder.next(&mut rest).unwrap() {
            syncs += usize::from(matches!(event, MainEvent::Sync));
        }
        let sent = streams[1..].iter().map(|stream| count_syncs(stream)).min().unwrap();
        assert!(syncs <= sent, "{syncs} on the main channel, {sent} on each channel");
    }
    assert!(syncs >= 3, "{syncs}");
}

/// The SYNCs that a channel has sent whole.
fn count_syncs(stream: &[u8]) -> usize {
    let (mut rest, mut syncs) = (stream.get(64..).unwrap_or_default(), 0);
    while let Some((header, payload)) = rest.split_at_checked(1344) {
        let packet = RamPacket::parse(header, PageSize::Kib4).unwrap();
        let Some(after) = payload.get(packet.payload_bytes..) else { break };
        syncs += usize::from(packet.is_sync());
        rest = after;
    }
    syncs
}

/// A destination over these connections, the main channel first.
fn destination(ends: Vec<Connection>) -> std::thread::JoinHandle<()> {
    let destination = Destination::builder(registry()).channels(CHANNELS as u8);
    let destination = destination.without_listener().unwrap();
    let entrance = destination.entrance();
    ends.into_iter().for_each(|connection| entrance.add(connection).unwrap());
    std::thread::spawn(move || _ = destination.receive(provide).unwrap().confirm().unwrap())
}

/// Sends a guest in two rounds.
fn send(mut ends: Vec<Connection>) {
    let ram = guest();
    let main = ends.remove(0);
    let mut source =
        Source::builder(registry(), Arc::clone(&ram)).connect_over(main, ends).unwrap();
    source.round(&PageSet::all(&ram)).unwrap();
    source.finish(&PageSet::all(&ram), None).unwrap();
}

#[test]
fn a_source_tells_of_a_sync_only_behind_the_syncs_of_every_channel() {
    let log = Log::default();
    let (from, to) = pairs(&log);
    let arrived = destination(to);
    send(from);
    arrived.join().unwrap();
    assert_in_order(&log);
}

#[test]
fn a_relay_tells_of_a_sync_only_behind_the_syncs_of_every_channel() {
    let log = Log::default();
    let (mut from_relay, to) = pairs(&log);
    let (from, to_relay) = pairs(&Log::default());
    let arrived = destination(to);
    let main = from_relay.remove(0);
    let relay = Relay::builder(registry())
        .from_channels(CHANNELS as u8)
        .without_listener(Outgoing::over(main, from_relay))
        .unwrap();
    let entrance = relay.entrance();
    to_relay.into_iter().for_each(|connection| entrance.add(connection).unwrap());
    let relayed = std::thread::spawn(move || _ = relay.run().unwrap());
    send(from);
    arrived.join().unwrap();
    relayed.join().unwrap();
    assert_in_order(&log);
}
