//! Guests that QEMU saves into files and takes from them, with `multifd` between.

use std::path::Path;

use libtest_mimic::Trial;
use multifd_interop::program::Multifd;
use multifd_interop::qemu::{Qemu, Settings, Version};
use serde_json::json;

use crate::common::{
    Tested, UUID, check, check_equal, image_ram, migrate, receive, send, source, to_listen, trial,
};

/// Versions that have mapped-ram.
const WITH_MAPPED_RAM: [Version; 2] = [Version::V10_0, Version::Newest];

pub(crate) fn trials() -> Vec<Trial> {
    let mapped = WITH_MAPPED_RAM.into_iter().flat_map(|version| {
        [true, false].map(|multifd| {
            let by = if multifd { "two_channels" } else { "one_connection" };
            let name = format!(
                "files::a_guest_goes_on_from_a_mapped_file_of_{version}_by_{by}_over_zstd_into_another"
            );
            trial(name, vec![version], move || there_and_back(version, multifd))
        })
    });
    let plain = Version::ALL.map(|version| {
        let name = format!("files::an_ordinary_stream_of_{version}_in_a_file_is_read");
        trial(name, vec![version], move || plain(version))
    });
    let postcopy = {
        let name =
            "files::a_guest_whose_source_has_postcopy_ram_on_goes_on_from_a_mapped_file".to_owned();
        trial(name, vec![Version::Newest], || after_postcopy(Version::Newest))
    };
    mapped.chain(plain).chain([postcopy]).collect()
}

/// As QEMU is set up for such files.
fn settings(multifd: bool) -> Settings {
    let capabilities: &[_] = &["mapped-ram"];
    Settings { return_path: false, capabilities, multifd, ..Settings::default() }
}

fn there_and_back(version: Version, multifd: bool) -> Tested {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let place = |name: &str| format!("qemu-file:{}", at(name).display());
    // What is before its stream is somebody else's, and stays.
    std::fs::write(at("saved"), b"not of the stream")?;
    let (mut qemu, settings) = (source(version, version.machine())?, settings(multifd));
    qemu.set_up(&settings)?;
    migrate(&mut qemu, &format!("file:{},offset=0x1000", at("saved").display()), &settings, true)?;
    qemu.complete_migration()?;
    let (ram, counter) = (qemu.ram()?, qemu.counter()?);
    drop(qemu);
    let saved = place("saved") + ",offset=4096";
    let inspected = Multifd::run(["inspect", &saved])?;
    check(inspected.contains("nothing is wrong"), || inspected.clone())?;
    let image = at("vm");
    Multifd::run(["convert", "--from", &saved, "--to", &image.display().to_string()])?;
    check_equal(&ram, &image_ram(&image)?)?;

    let zstd = Settings { compression: "zstd", ..Settings::default() };
    let (recv, uri) = receive(Path::new(&place("sent")), &zstd, &["--threads", "2"])?;
    send(&image, &uri, &zstd, &[])?.succeed()?;
    recv.succeed()?;
    goes_on(version, &at("sent"), 0, &settings, &ram, counter)?;

    let again = place("direct") + ",offset=1M";
    Multifd::run(["convert", "--from", &saved, "--to", &again, "--direct-io"])?;
    goes_on(version, &at("direct"), 1 << 20, &settings, &ram, counter)
}

/// What libvirt's users have on, mostly without starting it.
fn after_postcopy(version: Version) -> Tested {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    let mut qemu = source(version, version.machine())?;
    let both = Settings { capabilities: &["postcopy-ram"], ..Settings::default() };
    qemu.set_up(&both)?;
    let (recv, uri) = receive(Path::new(&format!("qemu-file:{}", file.display())), &both, &[])?;
    migrate(&mut qemu, &uri, &both, false)?;
    qemu.complete_migration()?;
    recv.succeed()?;
    goes_on(version, &file, 0, &settings(true), &qemu.ram()?, qemu.counter()?)
}

/// A QEMU takes the file, and its guest goes on.
fn goes_on(
    version: Version,
    file: &Path,
    offset: u64,
    settings: &Settings,
    ram: &[u8],
    counter: u32,
) -> Tested {
    let mut qemu = load(version, file, offset, settings)?;
    check_equal(ram, &qemu.ram()?)?;
    let after = qemu.counter()?;
    check(after == counter, || format!("the guest counts {after}, and not {counter}"))?;
    qemu.cont()?;
    Ok(qemu.goes_on()?)
}

fn load(version: Version, file: &Path, offset: u64, settings: &Settings) -> Tested<Qemu> {
    let mut qemu = to_listen(version, version.machine(), settings)?;
    let uri = format!("file:{},offset={offset:#x}", file.display());
    qemu.execute("migrate-incoming", &json!({ "uri": uri }))?;
    qemu.complete_migration()?;
    Ok(qemu)
}

fn plain(version: Version) -> Tested {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let mut qemu = source(version, version.machine())?;
    let one = Settings { return_path: false, multifd: false, ..Settings::default() };
    qemu.set_up(&one)?;
    // 7.2 has no files, but programs.
    migrate(&mut qemu, &format!("exec:cat >{}", at("saved").display()), &one, false)?;
    qemu.complete_migration()?;
    let (ram, counter) = (qemu.ram()?, qemu.counter()?);
    drop(qemu);
    let from = format!("qemu-file:{}", at("saved").display());
    let image = at("vm");
    Multifd::run(["convert", "--from", &from, "--to", &image.display().to_string()])?;
    check_equal(&ram, &image_ram(&image)?)?;

    // By channels, into a QEMU.
    let both = Settings::default();
    let mut next = to_listen(version, version.machine(), &both)?;
    let uri = next.listen()?;
    let legacy = Settings { zero_pages: Some("legacy"), ..both };
    // A file does not have the UUID, which a QEMU compares.
    let sent = send(Path::new(&from), &uri, &legacy, &["--uuid", UUID])?;
    next.complete_migration()?;
    sent.succeed()?;
    check_equal(&ram, &next.ram()?)?;
    let after = next.counter()?;
    check(after == counter, || format!("the guest counts {after}, and not {counter}"))?;
    next.cont()?;
    Ok(next.goes_on()?)
}
