//! What a receiving side takes while it is attacked: a process of its own each time.

#![allow(clippy::print_stdout, reason = "the measured process reports on its stdout")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use multifd::core::Compression;
use multifd::core::wire::{BlockName, InitialPacket, RamPacketBuilder, Uuid};
use multifd::core::{PageSize, ram::Ram};
use multifd::relay::Relay;
use multifd::{Destination, Uri};

use crate::common::{announcement, announcement_with_return_path, any_port, cause, provide, ram};
use crate::crowd::descriptors;
use crate::play::{Streams, address};
use crate::registry;

/// Little, so that it does not hide what is taken beside it.
const RAM_KIB: u64 = 1 << 10;

/// State that devices may have, by options.
const STATE_KIB: u64 = 8 << 10;

/// Set in the process that is measured: the attack.
const ATTACKED: &str = "MULTIFD_TEST_ATTACKED";

/// What a peer may do to have this side take memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    /// Thousands connect, and say nothing or half of an initial packet.
    Crowd,
    /// Packet numbers that are all apart, each of which is to be kept.
    Numbers,
    /// Every channel has a zstd window of the largest size that is allowed, and fills it.
    Windows,
    /// Every channel claims a zstd window above that.
    LargeWindows,
    /// Device state without an end.
    DeviceState,
    /// Blocks with names without an end.
    Blocks,
    /// A flood of PINGs, whose answers are not read.
    Pings,
}

impl Attack {
    const ALL: [Self; 7] = [
        Self::Crowd,
        Self::Numbers,
        Self::Windows,
        Self::LargeWindows,
        Self::DeviceState,
        Self::Blocks,
        Self::Pings,
    ];

    fn channels(self) -> u8 {
        if matches!(self, Self::Windows | Self::LargeWindows) { 16 } else { 2 }
    }

    fn compression(self) -> Compression {
        match self {
            Self::Windows | Self::LargeWindows => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The RAM, 32 MiB, and 4 MiB a channel; or what a channel's window may be, which an option says. What the
    /// options let devices have counts as the RAM does.
    fn allowed_kib(self) -> u64 {
        let a_channel = if self == Self::Windows { 9 << 10 } else { 4 << 10 };
        RAM_KIB + STATE_KIB + (32 << 10) + u64::from(self.channels()) * a_channel
    }

    /// How long the attacked side waits for a peer that says nothing any more.
    fn patience(self) -> Duration {
        Duration::from_secs(if self == Self::Crowd { 60 } else { 3 })
    }

    fn destination(self) -> Destination {
        Destination::builder(registry())
            .compression(self.compression())
            .channels(self.channels())
            .channel_timeout(self.patience())
            .progress_timeout(Some(self.patience()))
            .device_state_limit(STATE_KIB as usize * 1024)
            .early_state_limit(STATE_KIB as usize * 1024)
            .listen(&any_port())
            .unwrap()
    }

    fn play(self, at: (&str, u16)) {
        match self {
            Self::Crowd => crowd(at),
            Self::Numbers => numbers(at),
            Self::Windows => windows(at, 23),
            Self::LargeWindows => windows(at, 27),
            Self::DeviceState => device_state(at),
            Self::Blocks => blocks(at),
            Self::Pings => pings(at),
        }
    }
}

#[test]
fn whatever_a_peer_does_a_destination_keeps_within_its_memory() {
    const NAME: &str = "memory::whatever_a_peer_does_a_destination_keeps_within_its_memory";
    attacked(NAME, Attack::allowed_kib, |attack| {
        let destination = attack.destination();
        println!("listening on {}", destination.uri());
        match destination.receive(provide) {
            Ok(arrived) => {
                arrived.confirm().map_or_else(|error| error.to_string(), |_| "whole".into())
            }
            Err(error) => error.to_string(),
        }
    });
}

#[test]
fn whatever_a_peer_does_a_relay_keeps_within_its_memory() {
    const NAME: &str = "memory::whatever_a_peer_does_a_relay_keeps_within_its_memory";
    // It has as many channels to its destination, and packets between them.
    let allowed = |attack: Attack| 2 * attack.allowed_kib();
    attacked(NAME, allowed, |attack| {
        // Behind it there is another process, which counts for itself.
        let mut behind = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("memory::whatever_a_peer_does_a_destination_keeps_within_its_memory")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Said::of(&mut behind);
        let to: Uri = said.value_of("listening on ").parse().unwrap();
        let relay = Relay::builder(registry())
            .from_compression(attack.compression())
            .from_channels(attack.channels())
            .to_channels(attack.channels())
            .channel_timeout(attack.patience())
            .progress_timeout(Some(attack.patience()))
            .listen(&any_port(), &to)
            .unwrap();
        println!("listening on {}", relay.uri());
        let ended = relay.run().map_or_else(|error| cause(error).to_string(), |_| "whole".into());
        _ = behind.kill();
        _ = behind.wait();
        ended
    });
}

/// Has a process of its own receive each attack, and looks at what it took.
fn attacked(name: &str, allowed: fn(Attack) -> u64, receive: impl Fn(Attack) -> String) {
    if let Ok(number) = std::env::var(ATTACKED) {
        descriptors();
        let ended = receive(Attack::ALL[number.parse::<usize>().unwrap()]);
        println!("ended: {ended}");
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        return println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
    }
    for (number, attack) in Attack::ALL.into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", name])
            .env(ATTACKED, number.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Said::of(&mut child);
        let uri: Uri = said.value_of("listening on ").parse().unwrap();
        attack.play(address(&uri));
        let ended = said.value_of("ended: ");
        let peak: u64 = said.value_of("VmHWM:").trim().trim_end_matches(" kB").parse().unwrap();
        assert!(child.wait().unwrap().success(), "{attack:?}");
        let allowed = allowed(attack);
        println!("{attack:?}: {peak} KiB of {allowed}; {ended}");
        assert!(peak <= allowed, "{attack:?}: {peak} KiB; allowed are {allowed}; {ended}");
        assert_eq!(ended == "whole", attack == Attack::Crowd, "{attack:?}: {ended}");
    }
}

/// What the measured process says.
struct Said(std::io::Lines<BufReader<ChildStdout>>);

impl Said {
    fn of(child: &mut Child) -> Self {
        Self(BufReader::new(child.stdout.take().unwrap()).lines())
    }

    fn value_of(&mut self, key: &str) -> String {
        let mut lines = self.0.by_ref().map(Result::unwrap);
        let value = lines.find_map(|line| line.split_once(key).map(|(_, value)| value.to_owned()));
        value.unwrap_or_else(|| panic!("it does not say {key:?}"))
    }
}

fn attacked_ram() -> std::sync::Arc<Ram> {
    ram(&[("pc.ram", RAM_KIB as usize * 1024)])
}

/// Connects a main channel that is at its first sync, and channels behind their initial packets and SYNCs.
fn begin(at: (&str, u16), channels: u8) -> (TcpStream, Vec<TcpStream>) {
    let mut main = TcpStream::connect(at).unwrap();
    main.write_all(&announcement(&attacked_ram())).unwrap();
    let begin = |channel: u8| {
        let mut stream = TcpStream::connect(at).unwrap();
        let initial = InitialPacket::new(Uuid([7; 16]), channel).to_bytes();
        let mut packet = RamPacketBuilder::new(PageSize::Kib4);
        stream.write_all(&initial).unwrap();
        stream.write_all(packet.sync(channel.into())).unwrap();
        stream
    };
    let channels = (0..channels).map(begin).collect();
    (main, channels)
}

fn crowd(at: (&str, u16)) {
    let crowd = 3000.min(descriptors().saturating_sub(400)) as usize;
    let connect = |number: usize| {
        let mut stream = TcpStream::connect(at).unwrap();
        // Those that have given way are gone.
        _ = stream.write_all(&[0x11; 40][..number % 2 * 40]);
        stream
    };
    let strangers: Vec<_> = (0..crowd).map(connect).collect();
    let streams = Streams::of(2, |setup| setup);
    let main = streams.play_main(at);
    let sent = streams.end_channels(streams.begin_channels(at));
    sent.into_iter().for_each(|sent| sent.join().unwrap().unwrap());
    drop((main, strangers));
}

fn numbers(at: (&str, u16)) {
    let (main, mut channels) = begin(at, 2);
    let block = BlockName::new("pc.ram").unwrap();
    let mut packet = RamPacketBuilder::new(PageSize::Kib4);
    // Twice as many as are kept. That too many came is said at the next sync.
    for number in 1..1_u64 << 18 {
        let bytes = packet.pages(Compression::None, number * 2, &block, [&[], &[0]], 0);
        if channels[0].write_all(bytes).is_err() {
            return;
        }
    }
    drop((main, channels));
}

/// Packets whose payload goes on with a zstd frame that repeats one byte, in blocks of 128 KiB.
fn windows(at: (&str, u16), window_log: u8) {
    let (main, channels) = begin(at, 16);
    let fill = move |(number, mut channel): (u64, TcpStream)| {
        let block = BlockName::new("pc.ram").unwrap();
        let mut builder = RamPacketBuilder::new(PageSize::Kib4);
        let header = [0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3];
        // 128 KiB of one byte, not the last block.
        let repeated = ((128_u32 << 10) << 3 | 1 << 1).to_le_bytes();
        let four_blocks = [&repeated[..3], b"x"].concat().repeat(4);
        for packet in 0..24_u64 {
            let payload = [if packet == 0 { &header[..] } else { &[] }, &four_blocks].concat();
            let offsets: Vec<_> = (0..128).map(|page| (packet % 2 * 128 + page) * 4096).collect();
            let number = 100 + packet * 16 + number;
            let normal = [&offsets[..], &[]];
            let header =
                builder.pages(Compression::Zstd, number, &block, normal, payload.len()).to_vec();
            if channel.write_all(&[header, payload].concat()).is_err() {
                return;
            }
        }
        // Until it is refused, or has been taken.
        _ = channel.shutdown(Shutdown::Write);
        _ = channel.read(&mut [0]);
    };
    let fill = |channel| std::thread::spawn(move || fill(channel));
    let filling: Vec<JoinHandle<()>> = (0..).zip(channels).map(fill).collect();
    filling.into_iter().for_each(|filling| filling.join().unwrap());
    drop(main);
}

/// Writes more and more of the same to a main channel until it is refused.
fn flood(mut main: TcpStream, piece: impl Fn(u32) -> Vec<u8>) {
    main.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut sent = 0;
    for number in 0.. {
        let piece = piece(number);
        sent += piece.len();
        if sent > 512 << 20 || main.write_all(&piece).is_err() {
            return;
        }
    }
}

fn device_state(at: (&str, u16)) {
    let streams = Streams::of(2, |setup| setup);
    let mut main = TcpStream::connect(at).unwrap();
    // All but the end of file and what devices have behind the pages.
    let end = streams.main.iter().rposition(|&byte| byte != 0).unwrap_or_default();
    main.write_all(&streams.main[..end]).unwrap();
    let channels = streams.begin_channels(at);
    let sent = streams.end_channels(channels);
    sent.into_iter().for_each(|sent| _ = sent.join().unwrap());
    flood(main, |_| vec![b'}'; 1 << 16]);
}

fn blocks(at: (&str, u16)) {
    let mut main = TcpStream::connect(at).unwrap();
    main.write_all(
        b"QEVM\0\0\0\x03\x01\0\0\0\x01\x03ram\0\0\0\0\0\0\0\x04\xff\xff\xff\xff\xff\xff\xf0\x04",
    )
    .unwrap();
    flood(main, |number| {
        let name = format!("{number:0255}");
        [&[255][..], name.as_bytes(), &4096_u64.to_be_bytes()].concat()
    });
}

fn pings(at: (&str, u16)) {
    let mut main = TcpStream::connect(at).unwrap();
    main.write_all(&announcement_with_return_path(&attacked_ram())).unwrap();
    // Command 2: a PING with 4 bytes.
    let ping =
        |number: u32| [&[0x08, 0, 2, 0, 4][..], &number.to_be_bytes()].concat().repeat(1 << 10);
    flood(main, ping);
}
