//! `virsh migrate --parallel` from one libvirt to another, through relays.

use std::path::Path;

use libtest_mimic::{Completion, Failed, Trial};
use multifd_interop::firmware::NOISE;
use multifd_interop::guest::unchanging;
use multifd_interop::libvirt::{DOMAIN, Host, Hosts, Virsh, free_port};
use multifd_interop::program::Multifd;
use multifd_interop::qemu::Settings;
use serde_json::Value;

use crate::common::{ROUNDS, Tested, check, check_equal, image_ram, receive};
use crate::relays::relays_at;

/// Codec and channels from the source on; a relay stands between each two.
type Legs = &'static [(&'static str, u8)];

type Test = fn() -> Tested;

const ONE: Legs = &[("none", 4), ("none", 4)];
const TWO: Legs = &[("none", 4), ("zstd", 2), ("none", 4)];

/// Below this, a processor sees the firmware and not the RAM behind it.
const ABOVE_ROM: usize = NOISE.start as usize;

#[rustfmt::skip]
const TESTS: [(&str, Test); 9] = [
    ("one_relay::a_running_domain_goes_on_there", || arrives(ONE, &[])),
    ("one_relay::a_running_domain_goes_on_there_from_peer_to_peer", || arrives(ONE, &["--p2p"])),
    ("two_relays_with_zstd_between::a_running_domain_goes_on_there", || arrives(TWO, &[])),
    ("one_relay::that_is_killed_leaves_the_domain_running_at_its_source", || despite_qemu(relay_is_killed)),
    ("one_relay::an_aborted_job_leaves_the_domain_running_at_its_source", || despite_qemu(job_is_aborted)),
    ("one_relay::what_it_records_becomes_an_image", recording_is_decoded),
    ("recv::as_the_destination_strands_the_domain_until_it_is_destroyed_there", recv_strands),
    ("save::is_read_and_a_newer_libvirt_restores_what_is_made_of_it", saves),
    ("recv::from_the_monitor_leaves_the_domain_paused_to_be_resumed_or_destroyed", monitor_sends),
];

pub(crate) fn trials() -> Vec<Trial> {
    TESTS.into_iter().map(|(name, test)| trial(format!("libvirt::{name}"), test)).collect()
}

fn trial(name: String, test: Test) -> Trial {
    Trial::ignorable_test(name, move || match Hosts::available() {
        Err(missing) if missing.required => Err(Failed::from(missing)),
        Err(missing) => Ok(Completion::ignored_with(format!("skipped: {missing}"))),
        Ok(()) => test().map(|()| Completion::Completed).map_err(Failed::from),
    })
}

fn arrives(legs: Legs, more: &[&str]) -> Tested {
    let hosts = running()?;
    let ram = hosts.ram(Host::Alpha)?;
    let (port, relays) = relays(legs, &[])?;
    succeeds(migrate(&hosts, port, more)?)?;
    for relay in relays {
        let report: Value = serde_json::from_str(&relay.succeed()?)?;
        check(report["confirmed"] == true, || format!("the relay says {report}"))?;
    }
    check_states(&hosts, ["absent", "running"])?;
    hosts.goes_on(Host::Beta)?;
    check_equal(&unchanging(ram), &unchanging(hosts.ram(Host::Beta)?))
}

fn relay_is_killed() -> Tested {
    let hosts = running()?;
    let (port, relays) = relays(ONE, &[])?;
    let virsh = migrate_for_ever(&hosts, port)?;
    drop(relays);
    fails(virsh)?;
    check_states(&hosts, ["running", "absent"])?;
    Ok(hosts.goes_on(Host::Alpha)?)
}

fn job_is_aborted() -> Tested {
    let hosts = running()?;
    let (port, relays) = relays(ONE, &[])?;
    let virsh = migrate_for_ever(&hosts, port)?;
    hosts.virsh(Host::Alpha, &["domjobabort", DOMAIN])?;
    fails(virsh)?;
    for relay in relays {
        let ended = relay.wait()?;
        check(!ended.success, || format!("the relay succeeds: {}", ended.stdout))?;
    }
    check_states(&hosts, ["running", "absent"])?;
    Ok(hosts.goes_on(Host::Alpha)?)
}

fn recording_is_decoded() -> Tested {
    let hosts = running()?;
    let ram = hosts.ram(Host::Alpha)?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (port, relays) = relays(ONE, &["--record", &path("recording")])?;
    succeeds(migrate(&hosts, port, &[])?)?;
    for relay in relays {
        relay.succeed()?;
    }
    Multifd::run(["decode", &path("recording/to"), "--to", &path("vm")])?;
    check_image(ram, &folder.path().join("vm"))
}

/// What the guide warns of: the destination's libvirt waits for a QEMU that nobody connects to.
fn recv_strands() -> Tested {
    let hosts = running()?;
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let listen = format!("tcp:127.0.0.1:{port}");
    let image = folder.path().join("vm").display().to_string();
    let recv = Multifd::start(["recv", "--listen", &listen, "--to", &image, "--channels", "4"])?;
    let mut virsh = migrate(&hosts, port, &[])?;
    recv.succeed()?;
    check_states(&hosts, ["paused", "paused"])?;
    check(virsh.runs()?, || "virsh has ended".to_owned())?;
    hosts.virsh(Host::Beta, &["destroy", DOMAIN])?;
    fails(virsh)?;
    check_states(&hosts, ["running", "absent"])?;
    Ok(hosts.goes_on(Host::Alpha)?)
}

fn monitor_sends() -> Tested {
    let hosts = running()?;
    let ram = hosts.ram(Host::Alpha)?;
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("vm");
    let (recv, uri) = receive(&image, &Settings::default(), &[])?;
    for capability in ["multifd", "return-path"] {
        hosts.monitor(Host::Alpha, &format!("migrate_set_capability {capability} on"))?;
    }
    hosts.monitor(Host::Alpha, &format!("migrate -d {uri}"))?;
    recv.succeed()?;
    check_image(ram, &image)?;
    check(hosts.state(Host::Alpha)? == "paused", || "the domain is not paused".to_owned())?;
    hosts.virsh(Host::Alpha, &["resume", DOMAIN])?;
    hosts.goes_on(Host::Alpha)?;
    hosts.virsh(Host::Alpha, &["destroy", DOMAIN])?;
    check_states(&hosts, ["absent", "absent"])
}

/// libvirt 11.2 is the first that has sparse saves.
fn saves() -> Tested {
    let hosts = running()?;
    let at = |name: &str| hosts.file(name).display().to_string();
    hosts.virsh(Host::Alpha, &["suspend", DOMAIN])?;
    let (ram, counter) = (hosts.ram(Host::Alpha)?, hosts.counter(Host::Alpha)?);
    let version = hosts.virsh(Host::Alpha, &["--version"])?;
    let mut numbers = version.trim().split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let has_sparse = (numbers.next(), numbers.next()) >= (Some(11), Some(2));
    hosts.virsh(Host::Alpha, &["save", "--running", DOMAIN, &at("saved")])?;
    let (saved, image) = (format!("libvirt:{}", at("saved")), hosts.file("vm"));
    Multifd::run(["convert", "--from", &saved, "--to", &at("vm")])?;
    check_image(ram.clone(), &image)?;
    if !has_sparse {
        return check_states(&hosts, ["absent", "absent"]);
    }
    Multifd::run(["convert", "--from", &saved, "--to", &format!("libvirt:{}", at("sparse"))])?;
    hosts.virsh(Host::Beta, &["restore", "--paused", &at("sparse")])?;
    let after = hosts.counter(Host::Beta)?;
    check(after == counter, || format!("the guest counts {after}, and not {counter}"))?;
    check_equal(&ram[ABOVE_ROM..], &hosts.ram(Host::Beta)?[ABOVE_ROM..])?;
    hosts.virsh(Host::Beta, &["resume", DOMAIN])?;
    hosts.goes_on(Host::Beta)?;
    // libvirt's own.
    hosts.virsh(Host::Beta, &["suspend", DOMAIN])?;
    let ram = hosts.ram(Host::Beta)?;
    hosts.virsh(Host::Beta, &["save", "--image-format", "sparse", DOMAIN, &at("own")])?;
    let own = format!("libvirt:{}", at("own"));
    Multifd::run(["convert", "--force", "--from", &own, "--to", &at("vm")])?;
    check_image(ram, &image)
}

/// Runs a test again, twice at most, where QEMU has ended in an assertion of its own: 7.2 was seen to, once in about a
/// hundred migrations whose relay was killed.
fn despite_qemu(test: Test) -> Tested {
    for _ in 0..2 {
        match test() {
            Err(error) if error.to_string().contains("yank_unregister_instance: Assertion") => {
                eprintln!("once more, since {error}");
            }
            ended => return ended,
        }
    }
    test()
}

/// Both hosts, with a domain that runs.
fn running() -> Tested<Hosts> {
    let hosts = Hosts::start()?;
    hosts.goes_on(Host::Alpha)?;
    Ok(hosts)
}

/// Relays from 127.0.0.1 to the destination's QEMU at 127.0.0.2, and the port of both.
fn relays(legs: Legs, more: &[&str]) -> Tested<(u16, Vec<Multifd>)> {
    let port = free_port()?;
    let [listen, to] = ["127.0.0.1", "127.0.0.2"].map(|address| format!("tcp:{address}:{port}"));
    Ok((port, relays_at(&listen, legs, to, more)?.0))
}

/// As the guide says.
fn migrate(hosts: &Hosts, port: u16, more: &[&str]) -> Tested<Virsh> {
    let (uri, destination) = (format!("tcp://127.0.0.1:{port}"), hosts.uri(Host::Beta));
    let parallel = ["migrate", "--live", "--parallel", "--parallel-connections", "4"];
    let addresses = ["--listen-address", "127.0.0.2", "--migrateuri", &uri, DOMAIN, &destination];
    let arguments: Vec<_> = parallel.iter().chain(more).chain(&addresses).copied().collect();
    Ok(hosts.start_virsh(Host::Alpha, &arguments)?)
}

/// A migration in the middle: bandwidth and downtime are less than the guest's writing needs, so
/// that it does not end by itself.
fn migrate_for_ever(hosts: &Hosts, port: u16) -> Tested<Virsh> {
    hosts.monitor(Host::Alpha, "migrate_set_parameter downtime-limit 1")?;
    let virsh = migrate(hosts, port, &["--bandwidth", "1"])?;
    hosts.wait_for_rounds(Host::Alpha, ROUNDS)?;
    Ok(virsh)
}

fn succeeds(virsh: Virsh) -> Tested {
    let (success, said) = virsh.wait()?;
    check(success, || format!("virsh fails: {said}"))
}

fn fails(virsh: Virsh) -> Tested {
    let (success, said) = virsh.wait()?;
    check(!success, || format!("virsh succeeds: {said}"))
}

fn check_states(hosts: &Hosts, wanted: [&str; 2]) -> Tested {
    let states = [hosts.state(Host::Alpha)?, hosts.state(Host::Beta)?];
    check(states == wanted, || {
        let logs = [Host::Alpha, Host::Beta].map(|host| hosts.log(host)).join("\n\n");
        format!("the domain is {states:?}, and not {wanted:?}; of its QEMUs, libvirt says:\n{logs}")
    })
}

/// Compares what the guest does not write to.
fn check_image(ram: Vec<u8>, image: &Path) -> Tested {
    let (ram, found) = (unchanging(ram), unchanging(image_ram(image)?));
    check_equal(&ram[ABOVE_ROM..], &found[ABOVE_ROM..])
}
