//! Migrations that fail or are cancelled: both sides end and say why, and no guest is lost.

use std::path::Path;

use libtest_mimic::Trial;
use multifd_interop::program::{Ended, Multifd, Signal};
use multifd_interop::qemu::{Qemu, Settings, Version};
use serde_json::json;

use crate::common::{
    Tested, UUID, as_shown, check, check_equal, check_says, image, image_ram, receive,
    receive_running, send, source, trial, waiting,
};

type Test = fn(Version) -> Tested;

const FROM_QEMU: [(&str, Test); 9] = [
    ("a_receiver_of_another_codec_refuses_and_the_guest_runs_on", another_codec_at_recv),
    ("a_receiver_of_more_channels_refuses_and_the_guest_runs_on", more_channels_at_recv),
    ("a_receiver_of_fewer_channels_refuses_and_the_guest_runs_on", fewer_channels_at_recv),
    ("a_receiver_of_another_vm_refuses_and_the_guest_runs_on", another_uuid_at_recv),
    ("a_receiver_that_cannot_hold_the_ram_refuses_and_the_guest_runs_on", too_little_ram_at_recv),
    ("a_receiver_whose_disk_is_full_refuses_and_the_guest_runs_on", full_disk_at_recv),
    ("a_receiver_that_vanishes_leaves_the_guest_running", recv_vanishes),
    (
        "a_migration_cancelled_in_the_middle_leaves_no_image_and_can_be_made_again",
        cancelled_at_qemu,
    ),
    ("a_source_that_vanishes_leaves_no_image", source_vanishes),
];

const TO_QEMU: [(&str, Test); 8] = [
    ("a_qemu_of_another_codec_refuses_and_the_image_can_be_sent_again", another_codec_at_qemu),
    ("a_qemu_of_another_vm_refuses", another_uuid_at_qemu),
    ("a_qemu_of_less_ram_refuses", other_ram_at_qemu),
    ("a_qemu_of_another_machine_type_refuses", other_machine_at_qemu),
    ("a_qemu_of_fewer_channels_refuses", fewer_channels_at_qemu),
    (
        "a_qemu_of_more_channels_waits_for_them_and_the_sender_can_be_cancelled",
        more_channels_at_qemu,
    ),
    ("a_qemu_that_vanishes_ends_the_sender_with_an_error", qemu_vanishes),
    ("a_sender_that_is_cancelled_ends_the_qemu_with_an_error", send_cancelled),
];

pub(crate) fn trials() -> Vec<Trial> {
    let groups = [("from_qemu", &FROM_QEMU[..]), ("to_qemu", &TO_QEMU[..])];
    let mut trials = Vec::new();
    for version in Version::ALL {
        for (group, tests) in groups {
            for &(name, test) in tests {
                let name = format!("failure::{group}_{version}::{name}");
                trials.push(trial(name, vec![version], move || test(version)));
            }
        }
    }
    trials
}

// ---------------------------------------------------------------- from QEMU

fn another_codec_at_recv(version: Version) -> Tested {
    let zstd = Settings { compression: "zstd", ..Settings::default() };
    refused_by_recv(version, &zstd, &Settings::default(), &[], &["compression", "zstd", "none"])
}

fn more_channels_at_recv(version: Version) -> Tested {
    let four = Settings { channels: 4, ..Settings::default() };
    let words = ["2 of 4 channels connected", "same number of channels"];
    refused_by_recv(version, &Settings::default(), &four, &["--channel-timeout", "1"], &words)
}

fn fewer_channels_at_recv(version: Version) -> Tested {
    let four = Settings { channels: 4, ..Settings::default() };
    refused_by_recv(version, &four, &Settings::default(), &[], &["channel"])
}

fn another_uuid_at_recv(version: Version) -> Tested {
    let other = "99999999-0506-0708-090a-0b0c0d0e0f10";
    let same = Settings::default();
    refused_by_recv(version, &same, &same, &["--uuid", other], &["UUID", other])
}

fn too_little_ram_at_recv(version: Version) -> Tested {
    let same = Settings::default();
    refused_by_recv(version, &same, &same, &["--ram-limit", "8M"], &["RAM", "--ram-limit"])
}

/// `recv` with these settings and options refuses a live migration with an error of these words.
fn refused_by_recv(
    version: Version,
    source_has: &Settings,
    recv_has: &Settings,
    options: &[&str],
    words: &[&str],
) -> Tested {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("vm");
    let mut source = source(version, version.machine())?;
    source.set_up(source_has)?;
    let (recv, uri) = receive(&image, recv_has, options)?;
    source.migrate(&uri)?;
    failed_saying(&recv.wait()?, words)?;
    check_left_nothing(folder.path())?;
    runs_on(&mut source)
}

fn full_disk_at_recv(version: Version) -> Tested {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("vm");
    let mut source = source(version, version.machine())?;
    source.set_up(&Settings::default())?;
    let listen = ["recv", "--listen", "tcp:127.0.0.1:0", "--to"].map(AsRef::as_ref);
    let mut recv = Multifd::start_on_full_disk(listen.into_iter().chain([image.as_os_str()]))?;
    let uri = recv.listening()?;
    source.migrate(&uri)?;
    failed_saying(&recv.wait()?, &["File too large"])?;
    check_left_nothing(folder.path())?;
    runs_on(&mut source)
}

fn recv_vanishes(version: Version) -> Tested {
    let folder = tempfile::tempdir()?;
    let mut source = source(version, version.machine())?;
    source.set_up(&Settings::default())?;
    let (recv, uri) = receive(&folder.path().join("vm"), &Settings::default(), &[])?;
    begin(&mut source, &uri)?;
    drop(recv);
    runs_on(&mut source)
}

fn cancelled_at_qemu(version: Version) -> Tested {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("vm");
    let settings = Settings { compression: "zstd", ..Settings::default() };
    let mut source = source(version, version.machine())?;
    source.set_up(&settings)?;
    let (recv, uri) = receive(&image, &settings, &[])?;
    begin(&mut source, &uri)?;
    source.execute("migrate_cancel", &json!({}))?;
    let migration = source.wait_for_migration()?;
    check(migration.status == "cancelled", || format!("{migration:?}"))?;
    failed_saying(&recv.wait()?, &[])?;
    check_left_nothing(folder.path())?;
    check(source.status()? == "running", || "the guest does not run".to_owned())?;
    source.goes_on()?;
    receive_running(&mut source, version, &settings, &image)
}

fn source_vanishes(version: Version) -> Tested {
    let folder = tempfile::tempdir()?;
    let mut source = source(version, version.machine())?;
    source.set_up(&Settings::default())?;
    let (recv, uri) = receive(&folder.path().join("vm"), &Settings::default(), &[])?;
    begin(&mut source, &uri)?;
    source.kill();
    failed_saying(&recv.wait()?, &[])?;
    check_left_nothing(folder.path())
}

/// Begins a migration that cannot end by itself, and waits until it is in the middle.
pub(crate) fn begin(source: &mut Qemu, uri: &str) -> Tested {
    source.set_parameters(&json!({ "downtime-limit": 1, "max-bandwidth": 4 << 20 }))?;
    source.migrate(uri)?;
    Ok(source.wait_for_rounds(2)?)
}

/// The migration has failed and the guest has not: it runs, and goes on.
pub(crate) fn runs_on(source: &mut Qemu) -> Tested {
    let migration = source.wait_for_migration()?;
    check(migration.status == "failed", || format!("{migration:?}"))?;
    check(source.status()? == "running", || "the guest does not run".to_owned())?;
    Ok(source.goes_on()?)
}

pub(crate) fn check_left_nothing(folder: &Path) -> Tested {
    let left: Vec<_> = std::fs::read_dir(folder)?.collect();
    check(left.is_empty(), || format!("left behind: {left:?}"))
}

// ------------------------------------------------------------------ to QEMU

fn another_codec_at_qemu(version: Version) -> Tested {
    let zstd = Settings { compression: "zstd", ..sent(version) };
    refused_by_qemu(version, &sent(version), version.machine(), &zstd)?;
    // Nothing of it shows in the image.
    let image = image(version, false)?;
    let folder = tempfile::tempdir()?;
    let (mut destination, uri) = as_shown(version, &image.path(), &zstd, &folder)?;
    send(&image.path(), &uri, &zstd, &[])?.succeed()?;
    destination.complete_migration()?;
    check_equal(&image_ram(&image.path())?, &destination.ram()?)
}

fn another_uuid_at_qemu(version: Version) -> Tested {
    let image = image(version, false)?;
    let (mut destination, uri) = waiting(version, version.machine(), &sent(version))?;
    let options = ["--uuid", "99999999-0506-0708-090a-0b0c0d0e0f10"];
    let send = send(&image.path(), &uri, &sent(version), &options)?;
    failed_saying(&send.wait()?, &["destination"])?;
    if version == Version::V7_2 {
        // It refuses and stays as it is, also where the source is a QEMU.
        let status = destination.status()?;
        check(status == "inmigrate", || format!("QEMU is {status}"))?;
    } else {
        check_fails(&mut destination)?;
    }
    check_says(&destination.stderr(), &["received uuid '99999999-", "expected uuid '01020304-"])
}

fn other_ram_at_qemu(version: Version) -> Tested {
    let image = image(version, false)?;
    let memory = ["-m", "32M", "-machine", version.machine(), "-uuid", UUID, "-incoming", "defer"];
    let mut destination = Qemu::start(&version.program()?, 32, &memory.map(str::to_owned))?;
    destination.set_up(&Settings::default())?;
    let uri = destination.listen()?;
    both_fail(&mut destination, send(&image.path(), &uri, &sent(version), &[])?)?;
    check_says(&destination.stderr(), &["pc.ram"])
}

fn other_machine_at_qemu(version: Version) -> Tested {
    refused_by_qemu(version, &sent(version), "q35", &sent(version))
}

fn fewer_channels_at_qemu(version: Version) -> Tested {
    let four = Settings { channels: 4, ..sent(version) };
    refused_by_qemu(version, &sent(version), version.machine(), &four)
}

fn more_channels_at_qemu(version: Version) -> Tested {
    let image = image(version, false)?;
    let four = Settings { channels: 4, ..sent(version) };
    let (mut destination, uri) = waiting(version, version.machine(), &four)?;
    let mut send = send(&image.path(), &uri, &sent(version), &["-v"])?;
    send.says(CONNECTED)?;
    cancel(send)?;
    // It does not even look at the channels that it has, or too late.
    let status = match destination.status() {
        Err(error) if error.to_string().contains("Failed to peek at channel") => return Ok(()),
        status => status?,
    };
    check(status == "inmigrate", || format!("QEMU is {status}"))
}

/// A QEMU with these settings ends a migration that is sent with others.
fn refused_by_qemu(
    version: Version,
    qemu_has: &Settings,
    machine: &str,
    send_has: &Settings,
) -> Tested {
    let image = image(version, false)?;
    let (mut destination, uri) = waiting(version, machine, qemu_has)?;
    both_fail(&mut destination, send(&image.path(), &uri, send_has, &[])?)
}

fn qemu_vanishes(version: Version) -> Tested {
    let (mut destination, send) = in_the_middle(version)?;
    destination.kill();
    failed_saying(&send.wait()?, &["destination"])
}

fn send_cancelled(version: Version) -> Tested {
    let (mut destination, send) = in_the_middle(version)?;
    cancel(send)?;
    destination.thaw()?;
    check_fails(&mut destination)
}

/// What `send -v` says when all channels are there.
const CONNECTED: &str = "connected";

/// A QEMU that does not read, and what is sending to it: more than the sockets hold.
fn in_the_middle(version: Version) -> Tested<(Qemu, Multifd)> {
    let image = image(version, false)?;
    let (destination, uri) = waiting(version, version.machine(), &sent(version))?;
    destination.freeze()?;
    let mut send = send(&image.path(), &uri, &sent(version), &["-v"])?;
    send.says(CONNECTED)?;
    Ok((destination, send))
}

fn cancel(send: Multifd) -> Tested {
    send.signal(Signal::TERM)?;
    failed_saying(&send.wait()?, &["cancelled"])
}

/// What `send` is told for this version.
fn sent(version: Version) -> Settings {
    let zero_pages = if version.has_zero_pages_in_packets() { "multifd" } else { "legacy" };
    Settings { zero_pages: Some(zero_pages), ..Settings::default() }
}

/// The sender and the destination both end with an error, and each says something.
fn both_fail(destination: &mut Qemu, send: Multifd) -> Tested {
    failed_saying(&send.wait()?, &["destination"])?;
    check_fails(destination)
}

fn check_fails(destination: &mut Qemu) -> Tested {
    let status = destination.wait()?;
    let said = destination.stderr();
    check(!status.success() && !said.is_empty(), || format!("QEMU: {status}: {said}"))
}

/// It failed with one line, apart from its log, that has these words.
pub(crate) fn failed_saying(ended: &Ended, words: &[&str]) -> Tested {
    check(!ended.success, || format!("it succeeded: {}", ended.stdout))?;
    let lines: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("multifd: ")).collect();
    check(lines.len() == 1, || format!("it said: {}", ended.stderr))?;
    check_says(lines[0], words)
}
