//! A migration that is cancelled as it begins and made again, to the `recv` that waits already.
//!
//! Whether `recv` takes the cancelled attempt for the migration depends on how far that has come. If it
//! does, it ends with an error, and the next `recv` takes the next attempt.

use libtest_mimic::Trial;
use multifd_interop::Error;
use multifd_interop::program::Multifd;
use multifd_interop::qemu::{Qemu, Settings, UNLIMITED, Version};
use serde_json::json;

use crate::common::{Tested, check, check_equal, image_ram, receive, source, trial};
use crate::failures::{check_left_nothing, failed_saying};

/// When the first attempt is cancelled.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// With the command behind the one that begins it.
    AtOnce,
    /// When QEMU says that it is active.
    Active,
    /// When `recv -v` has said this.
    Said(&'static str),
}

const MOMENTS: [(&str, Moment); 4] = [
    ("at_once", Moment::AtOnce),
    ("when_it_is_active", Moment::Active),
    ("when_a_channel_has_connected", Moment::Said("connected channel=")),
    ("when_the_main_channel_has_connected", Moment::Said(MAIN_CONNECTED)),
];

/// What `recv -v` says when it has a main channel.
const MAIN_CONNECTED: &str = "the main channel connected";

/// More than the two channels of the other tests, so that a cancellation finds some of them there.
const CHANNELS: u8 = 8;

/// Bytes a second at which the first attempt cannot end by itself.
const SLOW: u64 = 64 << 10;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in Version::ALL {
        for (when, moment) in MOMENTS {
            let name = format!("cancel::from_qemu_{version}::{when}_and_made_again");
            let test = move || cancelled_and_made_again(version, moment);
            trials.push(trial(name, vec![version], test));
        }
    }
    trials
}

fn cancelled_and_made_again(version: Version, moment: Moment) -> Tested {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("vm");
    let mut source = ready(version)?;
    // Where QEMU does not end what it has cancelled, recv has to, and earlier than a test does.
    let (mut recv, uri) = receive(&image, &settings(), &["-v", "--progress-timeout", "5s"])?;
    source.set_parameters(&json!({ "downtime-limit": 1, "max-bandwidth": SLOW }))?;
    source.migrate(&uri)?;
    wait_for(moment, &mut source, &mut recv)?;
    let mut recv = Some(recv);
    if !is_cancelled(&mut source)? {
        if let Some(recv) = recv.take_if(|recv| recv.has_said(MAIN_CONNECTED)) {
            // By its limit, not because the source goes.
            gives_up(recv)?;
        }
        source.kill();
        source = ready(version)?;
    }

    source.stop()?;
    source.set_parameters(&json!({ "downtime-limit": 10_000, "max-bandwidth": UNLIMITED }))?;
    let arrived = match recv {
        Some(recv) => made_again(&mut source, recv, &uri)?,
        None => false,
    };
    if !arrived {
        check_left_nothing(folder.path())?;
        let (recv, uri) = receive(&image, &settings(), &[])?;
        source.migrate(&uri)?;
        source.complete_migration()?;
        recv.succeed()?;
    }
    check_equal(&source.ram()?, &image_ram(&image)?)
}

fn settings() -> Settings {
    Settings { channels: CHANNELS, ..Settings::default() }
}

/// A source whose guest runs.
fn ready(version: Version) -> Tested<Qemu> {
    let mut source = source(version, version.machine())?;
    source.set_up(&settings())?;
    Ok(source)
}

fn wait_for(moment: Moment, source: &mut Qemu, recv: &mut Multifd) -> Tested {
    match moment {
        Moment::AtOnce => {}
        Moment::Active => source.wait_for_active()?,
        Moment::Said(words) => _ = recv.says(words)?,
    }
    Ok(())
}

/// Cancels the migration; the guest runs on. False where QEMU stays at it: it does so to another QEMU,
/// too.
fn is_cancelled(source: &mut Qemu) -> Tested<bool> {
    let cancelled = source.execute("migrate_cancel", &json!({}));
    let migration = match cancelled.and_then(|_| source.wait_for_migration()) {
        // It may not even answer.
        Err(Error::Timeout { .. } | Error::Io { .. }) => return Ok(false),
        over => over?,
    };
    check(migration.status == "cancelled", || format!("{migration:?}"))?;
    check(source.status()? == "running", || "the guest does not run".to_owned())?;
    source.goes_on()?;
    Ok(true)
}

/// Whether another attempt arrives. Where it does not, the guest is as it was, and `recv` has ended.
fn made_again(source: &mut Qemu, recv: Multifd, uri: &str) -> Tested<bool> {
    match source.migrate(uri) {
        // Nobody listens there any more.
        Err(Error::Refused { .. }) => {}
        begun => {
            begun?;
            let migration = source.wait_for_migration()?;
            if migration.status == "completed" {
                recv.succeed()?;
                return Ok(true);
            }
            check(migration.status == "failed", || format!("{migration:?}"))?;
        }
    }
    let status = source.status()?;
    check(status == "paused", || format!("the guest is {status}"))?;
    gives_up(recv)?;
    Ok(false)
}

/// `recv` fails with a line that says which channel it lacks.
fn gives_up(recv: Multifd) -> Tested {
    failed_saying(&recv.wait()?, &["channel"])
}
