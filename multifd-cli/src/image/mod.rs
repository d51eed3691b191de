//! VM image folders: a VM as files.
//!
//! `vm.json` says what the VM is and where its parts are. Each RAM block is a sparse file, the
//! device state is one as well. A folder has its name only when it is complete.

mod manifest;
mod name;
mod place;
mod read;
mod survey;
mod write;

pub(crate) use manifest::Manifest;
pub(crate) use place::Place;
pub(crate) use read::Image;
pub(crate) use survey::BlockSurvey;
pub(crate) use write::write;

/// The file that makes a folder an image.
pub(crate) const MANIFEST: &str = "vm.json";

const DEVICE_STATE: &str = "device-state.bin";

/// How much of a block is handled at once.
const CHUNK: usize = 1 << 20;
