//! A migration that is cancelled as it begins and made again, to the `recv` that waits already.
//!
//! Whether `recv` takes the cancelled attempt for the migration depends on how far that has come. If it
//! does, it ends with an error, and the next `recv` takes the next attempt.

use libtest_mimic::Trial;
use multifd_interop::Error;
use multifd_interop::program::Multifd;
use multifd_interop::qemu::{Migration, Qemu, Settings, UNLIMITED, Version};
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

/// What has come of another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Arrived,
    /// The guest is still the source's.
    Failed,
    /// This QEMU can make none any more: it stays at the cancellation, refuses, or crashes. It does so
    /// where the destination is a QEMU, too.
    Impossible,
}

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
    let mut attempt =
        if is_cancelled(&mut source)? { again(&mut source, &uri)? } else { Attempt::Impossible };
    if attempt == Attempt::Impossible {
        if let Some(recv) = recv.take_if(|recv| recv.has_said(MAIN_CONNECTED)) {
            // By its limit, not because the source goes.
            gives_up(recv)?;
        }
        source.kill();
        source = ready(version)?;
        if recv.is_some() {
            attempt = again(&mut source, &uri)?;
        }
    }
    match recv {
        Some(recv) if attempt == Attempt::Arrived => _ = recv.succeed()?,
        recv => {
            recv.map_or(Ok(()), gives_up)?;
            check_left_nothing(folder.path())?;
            // Another source: a QEMU may be at fault in every attempt after a cancellation.
            source = ready(version)?;
            let (recv, uri) = receive(&image, &settings(), &[])?;
            let attempt = again(&mut source, &uri)?;
            check(attempt == Attempt::Arrived, || format!("{attempt:?}"))?;
            recv.succeed()?;
        }
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

/// Cancels the migration, and says whether QEMU has; then the guest runs.
fn is_cancelled(source: &mut Qemu) -> Tested<bool> {
    let cancelled = source.execute("migrate_cancel", &json!({}));
    let over = cancelled.and_then(|_| Ok((source.wait_for_migration()?, source.status()?)));
    let Some((migration, status)) = unless_at_fault(over)? else { return Ok(false) };
    let runs = migration.status == "cancelled" && status == "running";
    check(runs, || format!("{migration:?}, the guest is {status}"))?;
    Ok(true)
}

/// Migrates the guest, paused, with nothing in the way.
fn again(source: &mut Qemu, uri: &str) -> Tested<Attempt> {
    let Some((migration, status)) = unless_at_fault(migrated(source, uri))? else {
        return Ok(Attempt::Impossible);
    };
    match (migration.status.as_str(), status.as_str()) {
        ("completed", "postmigrate") => Ok(Attempt::Arrived),
        ("failed", "paused") => Ok(Attempt::Failed),
        _ => Err(format!("{migration:?}, the guest is {status}").into()),
    }
}

fn migrated(source: &mut Qemu, uri: &str) -> Result<(Migration, String), Error> {
    source.stop()?;
    source.set_parameters(&json!({ "downtime-limit": 10_000, "max-bandwidth": UNLIMITED }))?;
    source.migrate(uri)?;
    Ok((source.wait_for_migration()?, source.status()?))
}

/// None where QEMU refuses, has crashed or does not answer.
fn unless_at_fault<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    use Error::{Ended, Io, Refused, Timeout};

    match result {
        Err(Refused { .. } | Ended { .. } | Timeout { .. } | Io { .. }) => Ok(None),
        result => result.map(Some),
    }
}

/// `recv` fails with a line that says which channel it lacks.
fn gives_up(recv: Multifd) -> Tested {
    failed_saying(&recv.wait()?, &["channel"])
}
