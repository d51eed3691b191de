//! Options that cannot be honoured are refused before anything is set up or connected.

use std::time::Instant;

use multifd_core::{Availability, ChannelConfig, MultiFdMethods, PageSize};
use multifd_qpl::{Numa, Options, Path, Qpl};
use pollster::block_on;

use crate::support::log::Log;
use crate::support::packet::{receiver, sender};
use crate::support::simulated::simulated;

/// Asserts that the codec is refused with these words, by its probe and by both set-ups.
#[track_caller]
fn refused(path: Path, numa: Numa, words: &str) {
    let codec = Qpl::new(Options::new(path).with_numa(numa));
    let Availability::Unavailable(reason) = codec.probe() else { panic!("{path}, {numa}") };
    assert!(reason.contains(words), "{path}, {numa}: {reason}");
    let config = ChannelConfig::new(0, PageSize::Kib4, 0);
    assert!(block_on(codec.send_setup(&config)).is_err(), "{path}, {numa}");
    assert!(block_on(codec.recv_setup(&config)).is_err(), "{path}, {numa}");
}

/// Asserts that the codec is available, on a path whose description begins so.
#[track_caller]
fn taken(path: Path, numa: Numa, begins: &str) {
    let codec = Qpl::new(Options::new(path).with_numa(numa));
    let Availability::Available(by) = codec.probe() else { panic!("{path}, {numa}") };
    assert!(by.starts_with(begins), "{path}, {numa}: {by}");
}

simulated! {
    a_numa_policy_that_libqpl_does_not_know_is_refused_by_the_probe(QPL_SIM_VERSION = "1.5.0") {
        for path in [Path::Auto, Path::Hardware] {
            for numa in [Numa::Any, Numa::Node] {
                refused(path, numa, &format!("libqpl 1.5.0 does not know the NUMA policy {numa}"));
            }
            taken(path, Numa::Socket, "hardware: libqpl 1.5.0");
            taken(path, Numa::Of(0), "hardware: libqpl 1.5.0");
        }
        taken(Path::Software, Numa::Any, "software");
        taken(Path::Portable, Numa::Any, "portable");
    }

    a_numa_policy_that_no_path_needs_is_not_refused(QPL_SIM_VERSION = "1.5.0", DEVICES = "0") {
        taken(Path::Auto, Numa::Any, "software: libqpl 1.5.0");
    }

    a_numa_node_without_a_device_is_refused_by_the_probe(NUMA_NODES = "1") {
        for path in [Path::Auto, Path::Hardware] {
            refused(path, Numa::Of(0), "no IAA of NUMA node 0 can be used");
            for numa in [Numa::Of(1), Numa::Socket, Numa::Node, Numa::Any] {
                taken(path, numa, "hardware");
            }
        }
    }

    a_numa_nodes_devices_are_looked_for_once_and_may_hang(NO_COMPLETION = "1") {
        let (started, log) = (Instant::now(), Log::default());
        let codec = Qpl::new(Options::new(Path::Hardware).with_numa(Numa::Of(0)));
        log.while_doing(|| {
            assert!(matches!(codec.probe(), Availability::Available(_)));
            for _ in 0..3 {
                drop((sender(&codec), receiver(&codec)));
            }
        });
        assert_eq!(log.times("an IAA has not ended"), 1, "the job of the probe");
        assert!(started.elapsed() < Options::default().timeout / 2);
    }
}
