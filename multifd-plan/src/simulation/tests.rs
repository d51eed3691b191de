//! What must hold for any figures.

use std::num::NonZeroU8;

use super::{Tally, round};
use crate::codec::{Codec, CodecSpeed, Work};
use crate::parameters::{Parameters, Speed};
use crate::workload::{PAGE, Shape, Workload};

const PAGES: u64 = 100_001;
const SPEED: CodecSpeed = CodecSpeed::new(Speed::nearest(400e6), Speed::nearest(800e6));
const WORKS: [Work; 3] = [Work::Nothing, Work::Cpu(SPEED), Work::Devices(SPEED)];

fn codec(work: Work) -> Codec {
    let ratio = if matches!(work, Work::Nothing) { 1.0 } else { 2.0 };
    Codec::new("codec", work, Workload::even(PAGES, 0.1, ratio))
}

fn run(parameters: &Parameters, work: Work, channels: u8) -> Tally {
    let codec = codec(work);
    round(parameters, &codec, &codec.workload, channels, &mut |_| {})
}

fn seconds(tally: &Tally) -> f64 {
    tally.elapsed_ns as f64 / 1e9
}

/// Engines so slow that nothing else counts.
fn slow_engines() -> Parameters {
    let mut parameters = Parameters::default();
    parameters.devices.count = 1;
    parameters.devices.engines = NonZeroU8::MIN;
    parameters.devices.compress = Speed::nearest(100e6);
    parameters.devices.queue_depth = u16::MAX;
    parameters
}

#[test]
fn every_page_arrives_once_by_any_path() {
    for work in WORKS {
        for channels in [1, 3, 255] {
            for queue_depth in [1, 128] {
                let mut parameters = Parameters::default();
                parameters.devices.queue_depth = queue_depth;
                let codec = codec(work);
                let mut placed = 0;
                let mut count = |more| placed += more;
                let tally = round(&parameters, &codec, &codec.workload, channels, &mut count);
                assert_eq!([placed, tally.source.pages, tally.destination.pages], [PAGES; 3]);
                assert_eq!(tally.normal_pages + tally.zero_pages, PAGES);
                for side in [tally.source, tally.destination] {
                    assert_eq!(side.hardware_pages + side.software_pages, tally.normal_pages);
                }
                let wire: u64 = codec.workload.packets().map(Shape::wire_bytes).sum();
                assert_eq!(tally.wire_bytes, wire);
            }
        }
    }
}

#[test]
fn a_run_is_always_the_same() {
    for work in WORKS {
        let runs = [(); 2].map(|()| run(&Parameters::default(), work, 5));
        assert_eq!(runs[0], runs[1]);
    }
}

#[test]
fn no_resource_is_used_for_longer_than_there_is_time() {
    for work in WORKS {
        for channels in [1, 2, 16] {
            let parameters = Parameters::default();
            let tally = run(&parameters, work, channels);
            let engines =
                u64::from(parameters.devices.count) * u64::from(parameters.devices.engines.get());
            let elapsed = tally.elapsed_ns;
            assert!(tally.link_ns <= elapsed && tally.feed_ns <= elapsed);
            for side in [tally.source, tally.destination] {
                assert!(side.busy_ns + side.polling_ns <= elapsed * u64::from(channels));
                assert!(side.engine_ns <= elapsed * engines);
            }
        }
    }
}

#[test]
fn a_slow_link_sets_the_time() {
    let mut parameters = Parameters::default();
    parameters.link.bytes_per_second = Speed::nearest(10e6);
    parameters.link.efficiency = 1.0;
    for work in WORKS {
        let tally = run(&parameters, work, 4);
        let least = tally.wire_bytes as f64 / 10e6;
        assert!(seconds(&tally) >= least, "{work:?}");
        assert!(seconds(&tally) < least * 1.01, "{work:?}");
        assert!(tally.blocked_ns > 0, "the sockets fill up");
    }
}

#[test]
fn twice_the_engines_take_half_the_time_where_these_hold_it_up() {
    let work = Work::Devices(SPEED);
    let one = slow_engines();
    let mut two = slow_engines();
    two.devices.engines = two.devices.engines.saturating_add(1);
    let mut two_devices = slow_engines();
    two_devices.devices.count = 2;
    let alone = seconds(&run(&one, work, 4));
    let least = run(&one, work, 4).normal_pages as f64 * PAGE as f64 / 100e6;
    assert!((alone / least - 1.0).abs() < 0.01, "{alone}, {least}");
    for parameters in [two, two_devices] {
        let ratio = alone / seconds(&run(&parameters, work, 4));
        assert!((1.95..=2.01).contains(&ratio), "{ratio}");
    }
}

#[test]
fn twice_the_channels_take_half_the_time_where_their_cpu_holds_it_up() {
    let times =
        [2, 4].map(|channels| seconds(&run(&Parameters::default(), Work::Cpu(SPEED), channels)));
    let ratio = times[0] / times[1];
    assert!((1.9..=2.01).contains(&ratio), "{ratio}");
}

#[test]
fn a_queue_for_one_page_leaves_pages_to_software_and_a_deep_one_none() {
    let work = Work::Devices(SPEED);
    let mut parameters = Parameters::default();
    parameters.devices.count = 1;
    parameters.devices.queue_depth = 1;
    let shallow = run(&parameters, work, 8);
    assert!(shallow.source.refused > 0 && shallow.source.software_pages > 0);
    // Three more tries for each page that falls to software.
    assert!(shallow.source.refused >= 4 * shallow.source.software_pages);
    parameters.devices.queue_depth = 8 * 128;
    let deep = run(&parameters, work, 8);
    assert_eq!((deep.source.refused, deep.source.software_pages), (0, 0));
}

#[test]
fn a_packet_larger_than_the_socket_buffer_still_goes() {
    let mut parameters = Parameters::default();
    parameters.link.socket_buffer = 0;
    let tally = run(&parameters, Work::Nothing, 2);
    assert_eq!(tally.destination.pages, PAGES);
    assert!(seconds(&tally) > seconds(&run(&Parameters::default(), Work::Nothing, 2)));
}

#[test]
fn a_slow_destination_holds_the_source_up() {
    let slow = CodecSpeed::new(Speed::nearest(2e9), Speed::nearest(100e6));
    let tally = run(&Parameters::default(), Work::Cpu(slow), 2);
    let least = tally.normal_pages as f64 * PAGE as f64 / 100e6 / 2.0;
    assert!(seconds(&tally) > least && seconds(&tally) < least * 1.2);
    assert!(tally.blocked_ns > 0);
}
