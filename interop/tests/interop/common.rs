//! What the tests share.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Completion, Failed, Trial};
use multifd_interop::guest::{difference, unchanging};
use multifd_interop::program::Multifd;
use multifd_interop::qemu::{Qemu, Settings, UNLIMITED, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How a test ends, or a part of it.
pub(crate) type Tested<T = ()> = Result<T, Box<dyn Error>>;

/// The guest's RAM, in MiB.
pub(crate) const MIB: u32 = 16;

pub(crate) const UUID: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

/// The least rounds of a migration while the guest runs.
pub(crate) const ROUNDS: u64 = 4;

/// A test that needs QEMUs of these versions. Where one is missing, it is skipped.
pub(crate) fn trial(
    name: String,
    versions: Vec<Version>,
    test: impl FnOnce() -> Tested + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || {
        for version in versions {
            match version.program() {
                Err(missing) if missing.required => return Err(Failed::from(missing)),
                Err(missing) => {
                    return Ok(Completion::ignored_with(format!("skipped: {missing}")));
                }
                Ok(_) => {}
            }
        }
        match test() {
            Ok(()) => Ok(Completion::Completed),
            Err(error) if lacks_userfaultfd(&error.to_string()) => Ok(Completion::ignored_with(
                "skipped: this user can have no userfaultfd (see the sysctl vm.unprivileged_userfaultfd)",
            )),
            Err(error) => Err(Failed::from(error)),
        }
    })
}

/// Whether QEMU's `error` is that it takes postcopy-ram from no user without the privilege.
fn lacks_userfaultfd(error: &str) -> bool {
    let sysctl = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    let allowed = sysctl.is_ok_and(|value| value.trim() == "1");
    !allowed
        && ["Postcopy is not supported", "Userfaultfd not available"]
            .iter()
            .any(|text| error.contains(text))
}

/// Fails with the text unless it holds.
pub(crate) fn check(holds: bool, why: impl FnOnce() -> String) -> Tested {
    if holds { Ok(()) } else { Err(why().into()) }
}

/// Fails unless `text` has all of `words`.
pub(crate) fn check_says(text: &str, words: &[&str]) -> Tested {
    let missing = words.iter().find(|word| !text.contains(**word));
    missing.map_or(Ok(()), |word| Err(format!("{word:?} is not in: {text}").into()))
}

/// A QEMU whose guest has filled its memory and runs.
pub(crate) fn source(version: Version, machine: &str) -> Tested<Qemu> {
    source_with(version, machine, &[])
}

/// As [`source`], with more devices.
pub(crate) fn source_with(version: Version, machine: &str, more: &[&str]) -> Tested<Qemu> {
    let mut source = started_with(version, machine, more)?;
    source.cont()?;
    source.goes_on()?;
    Ok(source)
}

/// A QEMU with more options, whose guest does not run yet.
pub(crate) fn started_with(version: Version, machine: &str, more: &[&str]) -> Tested<Qemu> {
    let memory = format!("{MIB}M");
    let arguments = ["-machine", machine, "-m", &memory, "-uuid", UUID];
    let arguments: Vec<_> = arguments.iter().chain(more).map(|&word| word.to_owned()).collect();
    Ok(Qemu::start(&version.program()?, MIB, &arguments)?)
}

/// A QEMU that waits for a migration, and where.
pub(crate) fn waiting(
    version: Version,
    machine: &str,
    settings: &Settings,
) -> Tested<(Qemu, String)> {
    let mut destination = to_listen(version, machine, settings)?;
    let uri = destination.listen()?;
    Ok((destination, uri))
}

/// A QEMU that is to wait for a migration.
pub(crate) fn to_listen(version: Version, machine: &str, settings: &Settings) -> Tested<Qemu> {
    let memory = format!("{MIB}M");
    let arguments = ["-machine", machine, "-m", &memory, "-uuid", UUID, "-incoming", "defer"];
    let arguments = arguments.map(str::to_owned);
    let mut destination = Qemu::start(&version.program()?, MIB, &arguments)?;
    // Who looks for zero pages is the source's.
    destination.set_up(&Settings { zero_pages: None, ..settings.clone() })?;
    Ok(destination)
}

/// Migrates a source that is set up to `uri`, with some rounds if its guest is to run meanwhile.
pub(crate) fn migrate(source: &mut Qemu, uri: &str, settings: &Settings, live: bool) -> Tested {
    if !live {
        source.stop()?;
        source.migrate(uri)?;
        return Ok(());
    }
    // So slowly that the guest is at all of its pages again before they are sent, even where it has
    // to wait for a processor: rounds follow on rounds.
    let bandwidth = if settings.compression == "none" { 8 << 20 } else { 2 << 20 };
    source.set_parameters(&json!({ "downtime-limit": 1, "max-bandwidth": bandwidth }))?;
    source.migrate(uri)?;
    source.wait_for_rounds(ROUNDS)?;
    source.set_parameters(&json!({ "downtime-limit": 10_000, "max-bandwidth": UNLIMITED }))?;
    Ok(())
}

/// `multifd recv` into `image`, and where it listens.
pub(crate) fn receive(
    image: &Path,
    settings: &Settings,
    more: &[&str],
) -> Tested<(Multifd, String)> {
    let channels = settings.channels.to_string();
    let to = image.display().to_string();
    let arguments = ["recv", "--listen", "tcp:127.0.0.1:0", "--to", &to, "--channels", &channels];
    let agreed = ["--compression", settings.compression];
    let mut recv = Multifd::start(arguments.iter().chain(&agreed).chain(more))?;
    let uri = recv.listening()?;
    Ok((recv, uri))
}

/// Migrates a guest into the folder `image`, and compares all of its RAM.
pub(crate) fn receive_whole(
    source: &mut Qemu,
    settings: &Settings,
    live: bool,
    image: &Path,
) -> Tested {
    receive_into(source, settings, live, image)?;
    check_equal(&source.ram()?, &image_ram(image)?)
}

/// As [`receive_whole`], but of a version whose source loses writes of a running guest compares
/// only what the guest does not write to.
pub(crate) fn receive_running(
    source: &mut Qemu,
    version: Version,
    settings: &Settings,
    image: &Path,
) -> Tested {
    if version.notices_all_writes() {
        return receive_whole(source, settings, true, image);
    }
    receive_into(source, settings, true, image)?;
    check_equal(&unchanging(source.ram()?), &unchanging(image_ram(image)?))
}

fn receive_into(source: &mut Qemu, settings: &Settings, live: bool, image: &Path) -> Tested {
    source.set_up(settings)?;
    let (recv, uri) = receive(image, settings, &[])?;
    migrate(source, &uri, settings, live)?;
    let migration = source.complete_migration()?;
    recv.succeed()?;
    check(!live || migration.rounds >= ROUNDS, || format!("only {} rounds", migration.rounds))
}

pub(crate) fn check_equal(expected: &[u8], found: &[u8]) -> Tested {
    difference(expected, found).map_or(Ok(()), |difference| Err(difference.into()))
}

pub(crate) fn image_ram(image: &Path) -> Tested<Vec<u8>> {
    Ok(fs::read(image.join("pc.ram"))?)
}

/// `multifd send` of an image.
pub(crate) fn send(image: &Path, uri: &str, settings: &Settings, more: &[&str]) -> Tested<Multifd> {
    let channels = settings.channels.to_string();
    let from = image.display().to_string();
    let arguments = ["send", "--from", &from, "--to", uri, "--channels", &channels];
    let agreed = ["--compression", settings.compression];
    let no_return_path = (!settings.return_path).then_some(&"--no-return-path");
    let zero_pages = settings.zero_pages.map(|who| ["--zero-page-detection", who]);
    let zero_pages = zero_pages.iter().flatten();
    let all = arguments.iter().chain(&agreed).chain(more).chain(no_return_path).chain(zero_pages);
    Ok(Multifd::start(all)?)
}

/// A QEMU started and set up as `multifd show` says, waiting for the image, and where it listens.
pub(crate) fn as_shown(
    version: Version,
    image: &Path,
    settings: &Settings,
    socket: &TempDir,
) -> Tested<(Qemu, String)> {
    as_shown_with(version, image, settings, socket, &[])
}

/// As [`as_shown`], with more devices.
pub(crate) fn as_shown_with(
    version: Version,
    image: &Path,
    settings: &Settings,
    socket: &TempDir,
    more: &[&str],
) -> Tested<(Qemu, String)> {
    let uri = format!("unix:{}", socket.path().join("socket").display());
    let channels = settings.channels.to_string();
    let image = image.display().to_string();
    let show = ["show", &image, "--json", "--listen", &uri, "--channels", &channels];
    let shown = Multifd::run(show.iter().chain(&["--compression", settings.compression]))?;
    let shown: Value = serde_json::from_str(&shown)?;
    let destination = &shown["destination"];
    let words = destination["arguments"].as_array().into_iter().flatten();
    let words = words.filter_map(Value::as_str).chain(more.iter().copied());
    let arguments: Vec<_> = words.map(str::to_owned).collect();
    let mut qemu = Qemu::start(&version.program()?, MIB, &arguments)?;
    for command in destination["qmp"].as_array().into_iter().flatten() {
        qemu.execute(command["execute"].as_str().unwrap_or_default(), &command["arguments"])?;
    }
    Ok((qemu, uri))
}

/// An image that a QEMU has made, in a folder that goes when nobody has it any more.
#[derive(Debug)]
pub(crate) struct Image {
    folder: TempDir,
}

impl Image {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("vm")
    }
}

/// An image of a guest that ran or was paused. The tests share it.
pub(crate) fn image(version: Version, live: bool) -> Tested<Arc<Image>> {
    type Images = Mutex<Option<HashMap<(Version, bool), Arc<Image>>>>;
    static IMAGES: Images = Mutex::new(None);
    let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let images = images.get_or_insert_default();
    if let Some(image) = images.get(&(version, live)) {
        return Ok(Arc::clone(image));
    }
    let image = Image { folder: tempfile::tempdir()? };
    let mut source = source(version, version.machine())?;
    if live {
        receive_running(&mut source, version, &Settings::default(), &image.path())?;
    } else {
        receive_whole(&mut source, &Settings::default(), false, &image.path())?;
    }
    let image = Arc::new(image);
    images.insert((version, live), Arc::clone(&image));
    Ok(image)
}
