//! An honest source, played by hand.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use multifd::core::ram::Ram;
use multifd::{Connection, PageSet, Progress, Source, SourceBuilder, Stats, Uri};

use crate::common::guest;
use crate::registry;

/// What a source has sent, and of which RAM.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) ram: Arc<Ram>,
    pub(crate) main: Vec<u8>,
    pub(crate) channels: Vec<Vec<u8>>,
}

impl Streams {
    /// Those of a source without a return path, with two rounds.
    pub(crate) fn of(
        channels: u8,
        setup: impl FnOnce(SourceBuilder<'_>) -> SourceBuilder<'_>,
    ) -> Self {
        let ram = guest();
        let recorded: Vec<_> = (0..=channels).map(|_| recording()).collect();
        let mut connections = recorded.iter().map(|(connection, _)| connection.clone());
        let main = connections.next().unwrap();
        let source = setup(Source::builder(registry(), Arc::clone(&ram)).return_path(false));
        let mut source = source.connect_over(main, connections.collect::<Vec<_>>()).unwrap();
        source.round(&PageSet::all(&ram)).unwrap();
        source.finish(&PageSet::all(&ram), None).unwrap();
        let mut streams = recorded.iter().map(|(_, bytes)| bytes.lock().unwrap().clone());
        Self { main: streams.next().unwrap(), channels: streams.collect(), ram }
    }

    /// Where each channel is in its first packet behind the setup's SYNC.
    pub(crate) const FIRST: usize = 64 + 1344 + 100;

    /// Connects the main channel and sends all of it.
    pub(crate) fn play_main(&self, address: (&str, u16)) -> TcpStream {
        let mut main = TcpStream::connect(address).unwrap();
        main.write_all(&self.main).unwrap();
        main.shutdown(Shutdown::Write).unwrap();
        main
    }

    /// Connects the channels and sends the first of each.
    pub(crate) fn begin_channels(&self, address: (&str, u16)) -> Vec<TcpStream> {
        let begin = |bytes: &Vec<u8>| {
            let mut channel = TcpStream::connect(address).unwrap();
            channel.write_all(&bytes[..Self::FIRST]).unwrap();
            channel
        };
        self.channels.iter().map(begin).collect()
    }

    /// Sends the rest of the channels, and closes them.
    pub(crate) fn end_channels(&self, channels: Vec<TcpStream>) -> Vec<JoinHandle<io::Result<()>>> {
        let end = |(mut channel, bytes): (TcpStream, &Vec<u8>)| {
            let rest = bytes[Self::FIRST..].to_vec();
            std::thread::spawn(move || channel.write_all(&rest))
        };
        channels.into_iter().zip(&self.channels).map(end).collect()
    }
}

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A connection that keeps what is written to it, and what it keeps.
fn recording() -> (Connection, Bytes) {
    struct Keep(Bytes);
    impl Write for Keep {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    /// Nothing comes until it is shut down.
    struct Silent(Arc<(Mutex<bool>, Condvar)>);
    impl Read for Silent {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            let (over, changed) = &*self.0;
            drop(changed.wait_while(over.lock().unwrap(), |over| !*over).unwrap());
            Ok(0)
        }
    }
    let (bytes, silent) = (Bytes::default(), Arc::<(Mutex<bool>, Condvar)>::default());
    let over = Arc::clone(&silent);
    let shut_down = move |how| {
        if how != Shutdown::Write {
            *over.0.lock().unwrap() = true;
            over.1.notify_all();
        }
        Ok(())
    };
    (Connection::from_stream(Silent(silent), Keep(Arc::clone(&bytes)), shut_down), bytes)
}

/// Where a listener of TCP is.
pub(crate) fn address(uri: &Uri) -> (&str, u16) {
    let Uri::Tcp { host, port } = uri else { panic!("{uri}") };
    (host, *port)
}

/// Waits until the counters are as wanted.
pub(crate) fn wait_until(progress: &Progress, what: &str, is: impl Fn(&Stats) -> bool) {
    let began = Instant::now();
    while !is(&progress.snapshot()) {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: {:?}", progress.snapshot());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until every channel of the migration to which `who` comes is known to be there.
pub(crate) fn wait_for_channels(progress: &Progress, who: &str) {
    let all = |stats: &Stats| stats.channels.iter().all(|channel| channel.wire_bytes > 0);
    // At its second sync the main channel has seen all of them: whoever comes now is late.
    let what = format!("all channels are there, and {who}");
    wait_until(progress, &what, |stats| stats.syncs > 1 && all(stats));
}
