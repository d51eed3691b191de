//! What a folder is, to tell the user of a wrong one.

use std::io::{Read as _, Seek as _};
use std::path::Path;

use multifd::core::Foreign;
use multifd::driver::{MainChannelError, MainReader};
use multifd::stream::{Limits, MainDecoder, MainEvent, StreamErrorKind};

use crate::failure::Failure;
use crate::file;
use crate::image::MANIFEST;

/// The file that makes a folder a recording.
pub(crate) const MAIN: &str = "main.bin";

/// What a command can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Image,
    Recording,
    Either,
}

/// Whether the folder is a VM image, as far as its names say.
pub(crate) fn is_image(folder: &Path) -> bool {
    has(folder, MANIFEST)
}

/// Fails if `folder` cannot be what is wanted. The error says what it is instead.
pub(crate) fn expect(folder: &Path, wanted: Wanted) -> Result<(), Failure> {
    let shown = folder.display();
    let metadata = std::fs::metadata(folder)
        .map_err(|error| Failure::io(format!("cannot read {shown}"), &error))?;
    let (is_image, is_recording) = (has(folder, MANIFEST), has(folder, MAIN));
    let (is_wanted, what, has_no) = match wanted {
        Wanted::Image => (is_image, "a VM image", MANIFEST.to_owned()),
        Wanted::Recording => (is_recording, "a recording", MAIN.to_owned()),
        Wanted::Either => {
            let either = format!("{MANIFEST} and no {MAIN}");
            (is_image || is_recording, "a VM image or a recording", either)
        }
    };
    if is_wanted {
        return Ok(());
    }
    let why = if !metadata.is_dir() {
        let kind = kind(folder).map(|kind| format!("; {kind}")).unwrap_or_default();
        format!("a file, but the folder of {what} is expected{kind}")
    } else if is_recording {
        "a recording, but a VM image is expected; multifd decode makes one of it".to_owned()
    } else if is_image {
        "a VM image, but a recording is expected; multifd show shows an image".to_owned()
    } else if has(&folder.join("from"), MAIN) {
        format!("what a relay has recorded, but {what} is expected; use {shown}/from or {shown}/to")
    } else {
        format!("a folder that is not {what}: it has no {has_no}")
    };
    Err(Failure::new(format!("cannot use {shown}: it is {why}")))
}

/// What a file is that somebody may take for a recorded migration; `None` also for what is no regular
/// file, which is not waited for.
fn kind(path: &Path) -> Option<String> {
    let mut first = [0; 4];
    let (mut file, _) = file::open(path).ok()?;
    file.read_exact(&mut first).ok()?;
    match Foreign::of(first) {
        Some(Foreign::LibvirtSave) => {
            let path = path.display();
            return Some(format!(
                "virsh save wrote it; where a PLACE is asked for, name it libvirt:{path}"
            ));
        }
        Some(foreign) => return Some(foreign.to_string()),
        None => {}
    }
    file.rewind().ok()?;
    let mut main = MainReader::new(file, MainDecoder::new(Limits::default()));
    loop {
        match main.next_event() {
            // Behind the list of RAM blocks there is nothing more to tell by.
            Ok(Some(MainEvent::RamStart { .. }) | None) => return None,
            Ok(Some(_)) => {}
            Err(MainChannelError::Stream(error)) if error.kind == StreamErrorKind::MappedRam => {
                let path = path.display();
                return Some(format!(
                    "QEMU wrote it with mapped-ram; where a PLACE is asked for, name it qemu-file:{path}"
                ));
            }
            Err(_) => return None,
        }
    }
}

/// Whether there is a `name`, of whatever kind.
fn has(folder: &Path, name: &str) -> bool {
    folder.join(name).symlink_metadata().is_ok()
}
