//! QEMU to QEMU without us: what fails here is no fault of ours.

use libtest_mimic::Trial;
use multifd_interop::qemu::{Settings, Version};

use crate::common::{Tested, check_equal, migrate, source, trial, waiting};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in Version::ALL {
        for compression in ["none", "zlib", "zstd"] {
            for live in [false, true] {
                let guest = if live { "running" } else { "paused" };
                let name = format!("reference::qemu_{version}_to_itself::{compression}::a_{guest}_guest_arrives_whole");
                let test = trial(name, vec![version], move || {
                    qemu_to_qemu(version, compression, live)
                });
                trials.push(test.with_ignored_flag(compression != "none"));
            }
        }
    }
    trials
}

fn qemu_to_qemu(version: Version, compression: &'static str, live: bool) -> Tested {
    let settings = Settings { compression, ..Settings::default() };
    let (mut destination, uri) = waiting(version, version.machine(), &settings)?;
    let mut source = source(version, version.machine())?;
    source.set_up(&settings)?;
    migrate(&mut source, &uri, live)?;
    source.complete_migration()?;
    destination.complete_migration()?;
    check_equal(&source.ram()?, &destination.ram()?)?;
    destination.cont()?;
    Ok(destination.goes_on()?)
}
