//! What a relay takes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use multifd::PageSet;
use multifd::core::Compression;
use multifd::relay::Relay;

use crate::common::{all_compressions, any_port, fill, ram, receive, registry, send};

const FROM_CHANNELS: u8 = 4;
const TO_CHANNELS: u8 = 4;
const RAM_KIB: u64 = 256 << 10;

/// What is allowed: 16 MiB for the program, and 8 MiB a channel.
const LIMIT_KIB: u64 = (16 << 10) + (FROM_CHANNELS + TO_CHANNELS) as u64 * (8 << 10);

/// Set in the process that is measured: codec and destination.
const RELAYED: &str = "MULTIFD_TEST_RELAYED";

#[test]
fn a_relay_takes_8_mib_a_channel_whatever_the_size_of_the_vm() {
    if let Ok(relayed) = std::env::var(RELAYED) {
        return relay_and_report(&relayed);
    }
    let source_ram = ram(&[("pc.ram", RAM_KIB as usize * 1024)]);
    for page in 0..RAM_KIB / 4 {
        fill(&source_ram, "pc.ram", page, (page % 7 + 16) as u8);
    }
    for compression in all_compressions() {
        let (uri, destination) =
            receive(|setup| setup.compression(compression).channels(TO_CHANNELS));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("memory::a_relay_takes_8_mib_a_channel_whatever_the_size_of_the_vm")
            .env(RELAYED, format!("{compression} {uri}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut value_of = |key: &str| {
            let mut values = lines.by_ref().map_while(|line| {
                Some(line.unwrap().split_once(key).map(|(_, value)| value.to_owned()))
            });
            values.find_map(|value| value).unwrap()
        };
        let uri = value_of("listening on ").parse().unwrap();
        let source =
            send(&source_ram, &uri, |setup| setup.compression(compression).channels(FROM_CHANNELS))
                .unwrap();
        let all = PageSet::all(&source_ram);
        let sent = std::thread::spawn(move || source.finish(&all, None));
        // It takes its time: what it has not taken yet must wait at the source.
        destination.join().unwrap().unwrap().confirm().unwrap();
        sent.join().unwrap().unwrap();
        let peak: u64 = value_of("VmHWM:").trim().trim_end_matches(" kB").parse().unwrap();
        assert!(child.wait().unwrap().success());
        assert!(peak <= LIMIT_KIB, "{compression}: {peak} KiB; allowed are {LIMIT_KIB}");
    }
}

fn relay_and_report(relayed: &str) {
    let (compression, to) = relayed.split_once(' ').unwrap();
    let compression: Compression = compression.parse().unwrap();
    let relay = Relay::builder(&registry())
        .from_compression(compression)
        .to_compression(compression)
        .from_channels(FROM_CHANNELS)
        .to_channels(TO_CHANNELS)
        .listen(&any_port(), &to.parse().unwrap())
        .unwrap();
    println!("listening on {}", relay.uri());
    relay.run().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}
