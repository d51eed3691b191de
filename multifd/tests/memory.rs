//! What a destination takes beyond the RAM itself.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "the measured process reports on its stdout")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{all_compressions, any_port, fill, provide, ram, send};
use multifd::core::Compression;
use multifd::{Destination, PageSet};

const CHANNELS: u8 = 16;
const RAM_KIB: u64 = 64 << 10;

/// What is allowed: the RAM, 32 MiB, and 4 MiB a channel.
const LIMIT_KIB: u64 = RAM_KIB + (32 << 10) + CHANNELS as u64 * (4 << 10);

/// Set in the process that is measured: the codec that it receives.
const CODEC: &str = "MULTIFD_TEST_CODEC";

#[test]
fn a_destination_takes_4_mib_a_channel_and_32_mib_beyond_the_ram() {
    if let Ok(codec) = std::env::var(CODEC) {
        return receive_and_report(codec.parse().unwrap());
    }
    let source_ram = ram(&[("pc.ram", RAM_KIB as usize * 1024)]);
    for page in 0..RAM_KIB / 4 {
        // Noise and text: no page is zero, and payloads are large and small.
        fill(&source_ram, "pc.ram", page, (page % 7 + 16) as u8);
    }
    for compression in all_compressions() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("a_destination_takes_4_mib_a_channel_and_32_mib_beyond_the_ram")
            .env(CODEC, compression.to_string())
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
        let mut source =
            send(&source_ram, &uri, |setup| setup.compression(compression).channels(CHANNELS))
                .unwrap();
        source.round(&PageSet::all(&source_ram)).unwrap();
        source.finish(&PageSet::all(&source_ram), None).unwrap();
        let peak: u64 = value_of("VmHWM:").trim().trim_end_matches(" kB").parse().unwrap();
        assert!(child.wait().unwrap().success());
        assert!(peak > RAM_KIB, "{compression}: {peak} KiB is less than the RAM");
        assert!(peak <= LIMIT_KIB, "{compression}: {peak} KiB; allowed are {LIMIT_KIB}");
    }
}

fn receive_and_report(compression: Compression) {
    let registry = common::registry();
    let setup = Destination::builder(&registry).compression(compression).channels(CHANNELS);
    let destination = setup.listen(&any_port()).unwrap();
    println!("listening on {}", destination.uri());
    destination.receive(provide).unwrap().confirm().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}
