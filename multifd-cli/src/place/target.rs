//! Where a VM goes.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use multifd::cloud_hypervisor::Memory;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::wire::Uuid;
use multifd::mapped_ram::{MappedRamError, Writer};
use multifd::{Incoming, Vm};
use serde::Serialize;

use super::libvirt::{Domain, Format, Header};
use super::new::{New, Placed};
use super::{Place, cloud_hypervisor};
use crate::arrival;
use crate::cancel::Interrupt;
use crate::failure::{Failure, chain};
use crate::image::{self, Manifest};
use crate::mapping;
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
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bytes: Option<u64>,
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

/// Where a VM goes, from before it comes.
#[derive(Debug)]
pub(crate) struct Target {
    place: Place,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// It is made beside its place.
    New(Preparation),
    /// It is given to a Cloud Hypervisor, with this memory where it comes from elsewhere.
    Give(Option<Memory>),
}

/// What is had of a new file or folder before its VM comes.
#[derive(Debug)]
struct Preparation {
    new: New,
    /// What libvirt is to know, where that does not come with the VM.
    domain: Option<Domain>,
    /// Another handle of a file, which goes past the page cache.
    direct: Option<File>,
}

/// How a VM is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    /// What libvirt says of it, where it comes from there.
    pub(crate) domain: Option<&'a Domain>,
    pub(crate) writing: &'a Writing,
    /// How long a Cloud Hypervisor may take to answer.
    pub(crate) limit: Option<Duration>,
}

/// A VM that is in its place. Dropping it without [`keep`](Self::keep) takes it away again, where that can be.
#[derive(Debug)]
pub(crate) struct There {
    stored: StoredVm,
    placed: Option<Placed>,
}

impl There {
    /// Takes it away again, where that can be.
    pub(crate) fn take_away(self) -> StoredVm {
        drop(self.placed);
        self.stored
    }

    pub(crate) fn keep(self) -> StoredVm {
        if let Some(placed) = self.placed {
            placed.keep();
        }
        self.stored
    }
}

impl Target {
    /// Where the VM goes. `force` replaces an existing image or file. `domain_comes` says whether it comes with what libvirt knows.
    pub(crate) fn create(
        place: &Place,
        force: bool,
        domain_comes: bool,
        writing: &Writing,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let is_file = matches!(place, Place::QemuFile { .. } | Place::Libvirt { .. });
        if writing.direct_io && !is_file {
            return Err(Failure::usage(format!(
                "--direct-io is for qemu-file: and libvirt:, not for {place}; leave it off"
            )));
        }
        let domain = match place {
            Place::CloudHypervisor(socket) => {
                cloud_hypervisor::check(socket)?;
                return Ok(Self { place: place.clone(), way: Way::Give(None) });
            }
            Place::Libvirt { xml: Some(xml), .. } => Some(Domain::of_xml(xml)?),
            Place::Libvirt { xml: None, .. } if !domain_comes => return Err(no_xml(place)),
            _ => None,
        };
        let new = New::create(place, force)?;
        interrupt.making(new.path());
        let direct = writing.direct_io.then(|| open_direct(place, new.path())).transpose()?;
        let way = Way::New(Preparation { new, domain, direct });
        Ok(Self { place: place.clone(), way })
    }

    /// Where that is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the VM is given to somebody, and cannot be taken back then.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self.way, Way::Give(_))
    }

    /// Memory for a VM that comes, at most `limit` bytes.
    pub(crate) fn provide(
        &mut self,
        incoming: &Incoming<'_>,
        limit: Option<u64>,
    ) -> Result<Arc<Ram>, multifd::Error> {
        match &mut self.way {
            Way::New(_) => arrival::provide(incoming, limit),
            Way::Give(memory) => {
                arrival::check_ram(incoming, limit, "allow more with --ram-limit")?;
                let Incoming { early_state, blocks, page_size, .. } = *incoming;
                let own = Memory::new(early_state, blocks, page_size);
                let own = memory.insert(own.map_err(multifd::Error::caller)?);
                Ok(Arc::clone(own.ram()))
            }
        }
    }

    /// Puts the VM into its place, and waits until it is on the disk, or until it has been taken. `check` says, when all of it
    /// has been read, whether it still is to be.
    pub(crate) fn store(
        self,
        (vm, ram): (&Vm, &Arc<Ram>),
        how: How<'_>,
        check: &dyn Fn() -> Result<(), Failure>,
        interrupt: &Interrupt,
        output: &Output,
    ) -> Result<There, Failure> {
        let Self { place, way } = self;
        let prepared = match way {
            Way::New(prepared) => prepared,
            Way::Give(memory) => {
                let memory = match memory {
                    Some(memory) => memory,
                    None => {
                        let bar = output.bar("copying", ram.bytes());
                        cloud_hypervisor::copy(vm, ram, interrupt, &bar)?
                    }
                };
                // Zeros may have come in place of a file's bytes.
                mapping::check_files()?;
                check()?;
                cloud_hypervisor::give(place.path(), vm, &memory, how.limit)?;
                return Ok(There { stored: StoredVm::File(describe(vm, ram, None)), placed: None });
            }
        };
        let stored = write(&place, &prepared, (vm, ram), how, interrupt, output)?;
        mapping::check_files()?;
        check()?;
        Ok(There { stored, placed: Some(prepared.new.put(interrupt)?) })
    }
}

/// Writes the VM into what is prepared to become `place`, and waits until it is on the disk.
fn write(
    place: &Place,
    Preparation { new, domain, direct }: &Preparation,
    (vm, ram): (&Vm, &Arc<Ram>),
    How { domain: comes, writing, .. }: How<'_>,
    interrupt: &Interrupt,
    output: &Output,
) -> Result<StoredVm, Failure> {
    let header = match place {
        Place::Libvirt { .. } => {
            let domain = domain.as_ref().or(comes).cloned().ok_or_else(|| no_xml(place))?;
            let (own, of_xml) = (vm.uuid, domain.uuid().unwrap_or_default());
            if own != of_xml && ![own, of_xml].contains(&Uuid::default()) {
                return Err(Failure::new(format!(
                    "cannot make {place}: its XML is of the VM {of_xml}, but this is {own}; give it its own"
                )));
            }
            Some(Header { format: Format::Sparse, domain })
        }
        Place::Image(_) => {
            let bar = output.bar("storing", ram.bytes());
            return image::write(new.path(), vm, ram, interrupt, &bar).map(StoredVm::Image);
        }
        _ => None,
    };
    let offset = match (place, &header) {
        (Place::QemuFile { offset, .. }, _) => *offset,
        (_, Some(header)) => header.domain.stream_offset(),
        (_, None) => 0,
    };
    let header = header.map(|header| header.to_bytes()).unwrap_or_default();
    let (path, threads) = (new.path(), writing.threads());
    let file = NewFile { place, path, direct: direct.as_ref(), offset, header, threads };
    file.write(vm, ram, interrupt, output).map(StoredVm::File)
}

fn no_xml(place: &Place) -> Failure {
    Failure::usage(format!(
        "cannot make {place}: libvirt needs the domain's XML; add ,xml=FILE (virsh dumpxml --migratable \
         writes it)"
    ))
}

/// A file that is written.
struct NewFile<'a> {
    place: &'a Place,
    path: &'a Path,
    direct: Option<&'a File>,
    /// Where the stream begins, behind the header.
    offset: u64,
    header: Vec<u8>,
    threads: usize,
}

impl NewFile<'_> {
    fn write(
        &self,
        vm: &Vm,
        ram: &Ram,
        interrupt: &Interrupt,
        output: &Output,
    ) -> Result<StoredFile, Failure> {
        let Self { place, path, direct, offset, ref header, threads } = *self;
        if vm.configuration.machine.is_none() {
            return Err(Failure::new(format!(
                "cannot make {place}: QEMU takes no VM without a machine type, and this is RAM alone"
            )));
        }
        let cannot = |error| Failure::io(format!("cannot write {place}"), &error);
        let mut file = OpenOptions::new().write(true).open(path).map_err(cannot)?;
        file.write_all(header).map_err(cannot)?;
        let bar = output.bar("storing", ram.bytes());
        let watch = |bytes| {
            bar.add(bytes);
            interrupt.check().is_ok()
        };
        let mut writer = Writer::new(&file).offset(offset).threads(threads).watched_by(&watch);
        if let Some(direct) = direct {
            writer = writer.pages_through(direct);
        }
        writer.write(vm, ram).map_err(|error| match error {
            MappedRamError::Write { source, .. } => cannot(source),
            MappedRamError::Stopped => interrupt.or(Failure::new("it was stopped")),
            error => Failure::new(format!("cannot write {place}: {}", chain(&error))),
        })?;
        bar.say("waiting for the disk");
        file.sync_all().map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        Ok(describe(vm, ram, Some(&metadata)))
    }
}

fn open_direct(place: &Place, path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path);
    opened.map_err(|error| {
        let doing = format!("cannot write {place} past the page cache, so leave --direct-io off");
        Failure::io(doing, &error)
    })
}

fn describe(vm: &Vm, ram: &Ram, file: Option<&Metadata>) -> StoredFile {
    let block = |block: &Arc<RamBlock>| StoredBlock {
        name: block.name().to_string(),
        bytes: block.bytes(),
    };
    StoredFile {
        machine: vm.configuration.machine.clone(),
        uuid: vm.uuid.to_string(),
        page_size: ram.page_size().bytes() as u64,
        blocks: ram.blocks().iter().map(block).collect(),
        file_bytes: file.map(Metadata::len),
        disk_bytes: file.map(|file| file.blocks() * 512),
    }
}
