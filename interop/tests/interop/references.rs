//! QEMU to QEMU without us: what fails here is no fault of ours.

use libtest_mimic::Trial;
use multifd_interop::qemu::{Settings, Version};

use crate::common::{Tested, check_equal, check_says, migrate, source, trial, waiting};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in Version::ALL {
        for compression in ["none", "zlib", "zstd"] {
            for live in [false, true] {
                if live && !version.notices_all_writes() {
                    continue;
                }
                let guest = if live { "running" } else { "paused" };
                let name = format!(
                    "reference::qemu_{version}_to_itself::{compression}::a_{guest}_guest_arrives_whole"
                );
                let test =
                    trial(name, vec![version], move || qemu_to_qemu(version, compression, live));
                trials.push(test.with_ignored_flag(compression != "none"));
            }
        }
    }
    let name = "reference::qemu_7.2_to_itself::loses_what_a_running_guest_writes".to_owned();
    trials.push(trial(name, vec![Version::V7_2], loses_writes));
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

/// That it is QEMU's own doing. It happens nearly always.
fn loses_writes() -> Tested {
    for _ in 0..10 {
        if let Err(error) = qemu_to_qemu(Version::V7_2, "none", true) {
            return check_says(&error.to_string(), &["pages differ"]);
        }
    }
    Err("every write arrived, ten times: Version::notices_all_writes is out of date".into())
}
