//! Writing a VM into a new place.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use multifd::Vm;
use multifd::core::ram::Ram;
use multifd::mapped_ram::{MappedRamError, Writer};
use serde::Serialize;

use super::Place;
use super::libvirt::{Domain, Format, Header};
use super::new::New;
use crate::cancel::Interrupt;
use crate::failure::{Failure, chain};
use crate::image::{self, Manifest};
use crate::options::store::Writing;
use crate::output::Output;

/// What is stored.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum StoredVm {
    Image(Manifest),
    File(StoredFile),
}

/// A VM in a file, as it is reported.
#[derive(Debug, Serialize)]
pub(crate) struct StoredFile {
    machine: Option<String>,
    uuid: String,
    page_size: u64,
    blocks: Vec<StoredBlock>,
    /// Bytes of the file, and those of them that it takes on the disk.
    file_bytes: u64,
    disk_bytes: u64,
}

#[derive(Debug, Serialize)]
struct StoredBlock {
    name: String,
    bytes: u64,
}

impl StoredVm {
    /// What it is, in words.
    pub(crate) fn shown(&self) -> String {
        let (machine, blocks) = match self {
            Self::Image(manifest) => (&manifest.machine, manifest.blocks.len()),
            Self::File(file) => (&file.machine, file.blocks.len()),
        };
        let machine = machine.as_deref().unwrap_or("RAM without a machine");
        match blocks {
            1 => format!("{machine} with 1 RAM block"),
            count => format!("{machine} with {count} RAM blocks"),
        }
    }
}

/// Writes the VM into `new`, which is to become `place`, and waits until it is on the disk. `domain` is what libvirt says of it,
/// where it comes from there.
pub(crate) fn store(
    place: &Place,
    new: &New,
    (vm, ram): (&Vm, &Arc<Ram>),
    domain: Option<&Domain>,
    writing: &Writing,
    interrupt: &Interrupt,
    output: &Output,
) -> Result<StoredVm, Failure> {
    let header = match place {
        Place::Image(_) => {
            let bar = output.bar("storing", ram.bytes());
            return image::write(new.path(), vm, ram, interrupt, &bar).map(StoredVm::Image);
        }
        Place::QemuFile { .. } => None,
        Place::Libvirt { xml, .. } => {
            let domain = domain_of(place, xml.as_deref(), domain)?;
            Some(Header { format: Format::Sparse, domain })
        }
    };
    let offset = match (place, &header) {
        (Place::QemuFile { offset, .. }, _) => *offset,
        (_, Some(header)) => header.domain.stream_offset(),
        (_, None) => 0,
    };
    let header = header.map(|header| header.to_bytes()).unwrap_or_default();
    let file =
        write_file(place, new.path(), (vm, ram), offset, &header, writing, interrupt, output)?;
    Ok(StoredVm::File(file))
}

/// What libvirt is to know of the VM.
fn domain_of(
    place: &Place,
    xml: Option<&Path>,
    domain: Option<&Domain>,
) -> Result<Domain, Failure> {
    match (xml, domain) {
        (Some(xml), _) => Domain::of_xml(xml),
        (None, Some(domain)) => Ok(domain.clone()),
        (None, None) => Err(Failure::usage(format!(
            "cannot make {place}: libvirt needs the domain's XML; add ,xml=FILE (virsh dumpxml \
             --migratable writes it)"
        ))),
    }
}

/// Checks, before a VM comes, that it can be stored in `place`.
pub(super) fn check(place: &Place, domain_comes: bool) -> Result<(), Failure> {
    match place {
        Place::Libvirt { xml, .. } if xml.is_some() || !domain_comes => {
            domain_of(place, xml.as_deref(), None).map(drop)
        }
        _ => Ok(()),
    }
}

#[allow(clippy::too_many_arguments, reason = "one step of one function")]
fn write_file(
    place: &Place,
    path: &Path,
    (vm, ram): (&Vm, &Arc<Ram>),
    offset: u64,
    header: &[u8],
    writing: &Writing,
    interrupt: &Interrupt,
    output: &Output,
) -> Result<StoredFile, Failure> {
    if vm.configuration.machine.is_none() {
        return Err(Failure::new(format!(
            "cannot make {place}: QEMU takes no VM without a machine type, and this is RAM alone"
        )));
    }
    let cannot = |error| Failure::io(format!("cannot write {place}"), &error);
    let mut file = OpenOptions::new().write(true).open(path).map_err(cannot)?;
    file.write_all(header).map_err(cannot)?;
    let direct = writing.direct_io.then(|| open_direct(path)).transpose();
    let direct = direct.map_err(|error| {
        Failure::io(
            format!("cannot write {place} past the page cache; leave --direct-io off"),
            &error,
        )
    })?;
    let bar = output.bar("storing", ram.bytes());
    let watch = |bytes| {
        bar.add(bytes);
        interrupt.check().is_ok()
    };
    let mut writer =
        Writer::new(&file).offset(offset).threads(writing.threads()).watched_by(&watch);
    if let Some(direct) = &direct {
        writer = writer.pages_through(direct);
    }
    writer.write(vm, ram).map_err(|error| match error {
        MappedRamError::Stopped => interrupt.or(Failure::new("it was stopped")),
        error => Failure::new(format!("cannot write {place}: {}", chain(&error))),
    })?;
    bar.say("waiting for the disk");
    file.sync_all().map_err(cannot)?;
    describe(&file, vm, ram).map_err(cannot)
}

fn open_direct(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)
}

fn describe(file: &File, vm: &Vm, ram: &Ram) -> std::io::Result<StoredFile> {
    use std::os::unix::fs::MetadataExt;

    let metadata = file.metadata()?;
    let blocks = ram.blocks().iter();
    let block = |block: &Arc<multifd::core::ram::RamBlock>| StoredBlock {
        name: block.name().to_string(),
        bytes: block.bytes(),
    };
    Ok(StoredFile {
        machine: vm.configuration.machine.clone(),
        uuid: vm.uuid.to_string(),
        page_size: ram.page_size().bytes() as u64,
        blocks: blocks.map(block).collect(),
        file_bytes: metadata.len(),
        disk_bytes: metadata.blocks() * 512,
    })
}
