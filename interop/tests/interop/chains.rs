//! One guest through QEMUs of several versions, with `multifd` between them.

use libtest_mimic::Trial;
use multifd_interop::guest::unchanging;
use multifd_interop::qemu::{Qemu, Settings, Version};

use crate::common::{
    Tested, as_shown, check, check_equal, image_ram, receive_running, send, source, trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let upwards = [("pc-i440fx-7.2", "none"), ("pc-q35-7.2", "zstd")].map(|(machine, codec)| {
        let name =
            format!("chain::{machine}_goes_on_from_qemu_7.2_to_10.0_to_the_newest_by_{codec}");
        trial(name, Version::ALL.to_vec(), move || through(&Version::ALL, machine, codec))
    });
    let downwards = {
        let versions = [Version::Newest, Version::V10_0];
        let name = "chain::pc-q35-10.0_goes_on_from_the_newest_qemu_to_10.0_by_zlib".to_owned();
        trial(name, versions.to_vec(), move || through(&versions, "pc-q35-10.0", "zlib"))
    };
    upwards.into_iter().chain([downwards]).collect()
}

fn through(versions: &[Version], machine: &str, compression: &'static str) -> Tested {
    let settings = Settings { compression, ..Settings::default() };
    let mut qemu = source(versions[0], machine)?;
    let first = unchanging(qemu.ram()?);
    for pair in versions.windows(2) {
        let before = qemu.counter()?;
        qemu = hop(qemu, [pair[0], pair[1]], &settings)?;
        let after = qemu.counter()?;
        check(after > before, || format!("the guest counts {after} after {before}"))?;
        qemu.cont()?;
        qemu.goes_on()?;
    }
    check_equal(&first, &unchanging(qemu.ram()?))
}

/// Into an image and out of it into the next QEMU, while the guest runs.
fn hop(mut qemu: Qemu, [from, to]: [Version; 2], settings: &Settings) -> Tested<Qemu> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("vm");
    receive_running(&mut qemu, from, settings, &image)?;
    drop(qemu);
    let (mut next, uri) = as_shown(to, &image, settings, &folder)?;
    // Every version understands it.
    let send =
        send(&image, &uri, &Settings { zero_pages: Some("legacy"), ..settings.clone() }, &[])?;
    next.complete_migration()?;
    send.succeed()?;
    check_equal(&image_ram(&image)?, &next.ram()?)?;
    Ok(next)
}
