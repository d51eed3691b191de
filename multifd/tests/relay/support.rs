//! Relays in this process.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;

use multifd::relay::{Relay, RelayBuilder, Relayed};
use multifd::{CancelToken, Unfinished, Uri};

use crate::common::{any_port, registry};

/// A relay in a thread of its own.
pub(crate) struct Running {
    pub(crate) uri: Uri,
    pub(crate) token: CancelToken,
    pub(crate) thread: JoinHandle<Result<Relayed, Unfinished>>,
}

impl Running {
    pub(crate) fn join(self) -> Result<Relayed, Unfinished> {
        self.thread.join().unwrap()
    }
}

/// A relay to `to`.
pub(crate) fn relay(to: &Uri, setup: impl FnOnce(RelayBuilder<'_>) -> RelayBuilder<'_>) -> Running {
    let relay = setup(Relay::builder(&registry())).listen(&any_port(), to).unwrap();
    let (uri, token) = (relay.uri().clone(), relay.cancel_token());
    Running { uri, token, thread: std::thread::spawn(move || relay.run()) }
}

pub(crate) fn connect(uri: &Uri) -> TcpStream {
    try_connect(uri).unwrap()
}

fn try_connect(uri: &Uri) -> io::Result<TcpStream> {
    let Uri::Tcp { host, port } = uri else { panic!("{uri}") };
    TcpStream::connect((&host[..], *port))
}

/// A listener and its address, for a test that plays the destination.
pub(crate) fn listener() -> (TcpListener, Uri) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, uri)
}

/// Plays a source: sends the streams as they are, each from a thread of its own, the main channel
/// first, and closes them, a main channel with a return path when it has been confirmed. The threads end with the connections. A relay that has failed by then
/// has none of the later ones.
pub(crate) fn replay(uri: &Uri, main: &[u8], channels: &[Vec<u8>]) -> Vec<JoinHandle<TcpStream>> {
    play(uri, std::iter::once(main.to_vec()).chain(channels.iter().cloned()))
}

/// As [`replay`], of the channels alone.
pub(crate) fn play_channels(uri: &Uri, channels: &[Vec<u8>]) -> Vec<JoinHandle<TcpStream>> {
    play(uri, channels.iter().cloned())
}

fn play(uri: &Uri, streams: impl Iterator<Item = Vec<u8>>) -> Vec<JoinHandle<TcpStream>> {
    let send = |bytes: Vec<u8>| {
        let mut connection = try_connect(uri).ok()?;
        Some(std::thread::spawn(move || {
            _ = connection.write_all(&bytes);
            if opens_return_path(&bytes) {
                wait_for_confirmation(&mut connection);
            }
            _ = connection.shutdown(Shutdown::Write);
            connection
        }))
    };
    streams.filter_map(send).collect()
}

/// Whether a stream is a main channel whose source waits for the confirmation.
pub(crate) fn opens_return_path(stream: &[u8]) -> bool {
    stream.starts_with(b"QEVM")
        && stream.windows(5).take(200).any(|bytes| bytes == b"\x08\0\x01\0\0")
}

/// Waits for the confirmation, or for the other side to give up.
fn wait_for_confirmation(connection: &mut TcpStream) {
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(&[0, 1, 0, 4, 0, 0, 0, 0])
        && connection.read(&mut byte).is_ok_and(|count| count == 1)
    {
        said.push(byte[0]);
    }
}

/// Accepts as many connections, and reads each to its end: in the order in which they came.
pub(crate) fn read_all(listener: &TcpListener, connections: usize) -> Vec<Vec<u8>> {
    let streams: Vec<_> = (0..connections)
        .map(|_| {
            let (mut connection, _) = listener.accept().unwrap();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                connection.read_to_end(&mut bytes).unwrap();
                bytes
            })
        })
        .collect();
    streams.into_iter().map(|stream| stream.join().unwrap()).collect()
}
