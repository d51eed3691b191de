//! VM image folders: a VM as files.
//!
//! `vm.json` says what the VM is and where its parts are. Each RAM block is a sparse file, the
//! device state is one as well. A folder gets its name only when it is complete.

mod manifest;
mod name;
mod read;
mod survey;
mod write;

pub(crate) use manifest::Manifest;
pub(crate) use name::MANIFEST;
pub(crate) use read::{Image, read_manifest};
pub(crate) use survey::{BlockSurvey, survey};
pub(crate) use write::write;
