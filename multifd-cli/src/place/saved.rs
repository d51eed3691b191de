//! A VM in its place.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use multifd::cloud_hypervisor::Handed;
use multifd::core::ram::Ram;
use multifd::core::wire::Uuid;
use multifd::mapped_ram::{MappedRam, MappedRamError};
use multifd::stream::{Limits, StreamErrorKind};
use multifd::{Vm, plain_stream};

use super::libvirt::{Domain, Format, Header};
use super::{Place, cannot_use, cloud_hypervisor, mapped};
use crate::arrival;
use crate::cancel::Interrupt;
use crate::decode::watched::Watched;
use crate::failure::{Failure, chain};
use crate::file;
use crate::image::{BlockSurvey, Image, survey};
use crate::options::device_state::DeviceStateLimit;
use crate::output::{self, Output};
use crate::progress::Bar;

/// How a VM is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) device_state_limit: &'a DeviceStateLimit,
    /// Pages that a stream does not have are zero.
    pub(crate) allow_missing_pages: bool,
    /// How long a Cloud Hypervisor may take for a message.
    pub(crate) patience: Option<Duration>,
}

/// A VM in its place, ready to be sent or copied. What can be mapped is not read.
#[derive(Debug)]
pub(crate) enum Saved {
    Image(Image),
    File(SavedFile),
    /// A VM that Cloud Hypervisor hands over, and keeps until it is told that it is safe.
    Handed {
        socket: PathBuf,
        handed: Handed,
        ram: Arc<Ram>,
    },
}

/// A VM in a file.
#[derive(Debug)]
pub(crate) struct SavedFile {
    vm: Vm,
    ram: Arc<Ram>,
    /// What libvirt says of it.
    domain: Option<Domain>,
}

impl Saved {
    /// Opens the VM at `place`. What is packed, or has its pages anywhere in its stream,
    /// is read. A Cloud Hypervisor is waited for, for any time.
    pub(crate) fn open(
        place: &Place,
        reading: Reading<'_>,
        output: &Output,
    ) -> Result<Self, Failure> {
        let Reading { device_state_limit: limit, patience, .. } = reading;
        match place {
            Place::CloudHypervisor(socket) => {
                let (handed, ram) = cloud_hypervisor::take(socket, limit, patience)?;
                Ok(Self::Handed { socket: socket.clone(), handed, ram })
            }
            Place::Image(folder) => Image::open(folder, limit).map(Self::Image),
            Place::QemuFile { path, offset } => {
                let (file, _) = file::open(path)?;
                let (vm, ram) = open_stream(path, file, *offset, reading, output)?;
                Ok(Self::File(SavedFile { vm, ram, domain: None }))
            }
            Place::Libvirt { path, .. } => {
                let (file, _) = file::open(path)?;
                let Header { format, domain } = Header::read(path, &file)?;
                let offset = domain.stream_offset();
                let (mut vm, ram) = match format {
                    Format::Raw | Format::Sparse => {
                        open_stream(path, file, offset, reading, output)?
                    }
                    Format::Gzip => {
                        let unpack = |file| Ok(MultiGzDecoder::new(BufReader::new(file)));
                        read_plain(path, file, offset, unpack, reading, output)?
                    }
                    Format::Zstd => {
                        read_plain(path, file, offset, zstd::Decoder::new, reading, output)?
                    }
                };
                // The stream does not say it.
                vm.uuid = domain.uuid().unwrap_or(vm.uuid);
                Ok(Self::File(SavedFile { vm, ram, domain: Some(domain) }))
            }
        }
    }

    /// What the VM is beside its RAM.
    pub(crate) fn vm(&self) -> &Vm {
        match self {
            Self::Image(image) => &image.vm,
            Self::File(file) => &file.vm,
            Self::Handed { handed, .. } => handed.vm(),
        }
    }

    /// Has the VM another UUID.
    pub(crate) fn set_uuid(&mut self, uuid: Uuid) -> Result<(), Failure> {
        match self {
            Self::Image(image) => image.vm.uuid = uuid,
            Self::File(file) => file.vm.uuid = uuid,
            Self::Handed { .. } => {
                return Err(Failure::usage(
                    "a VM of Cloud Hypervisor's has its UUID in its configuration; leave --uuid off",
                ));
            }
        }
        Ok(())
    }

    /// Whether the VM's guest goes on where it is if it is not given up.
    fn would_go_on(&self) -> bool {
        matches!(self, Self::Handed { handed, .. } if handed.was_running())
    }

    /// Where it is not known who has the VM, and its guest would go on here if it was not given up: has it wait until the user
    /// decides. Returns `failure`.
    pub(crate) fn hold(&self, failure: Failure, interrupt: &Interrupt) -> Failure {
        if failure.is_unclear() && self.would_go_on() {
            output::note(&format!("multifd: {failure}"));
            output::note(
                "multifd: the guest stays stopped in Cloud Hypervisor as long as this program waits. Look who \
                 has the VM. If it is there: end that Cloud Hypervisor, then this program. If it is not: end this \
                 program (Ctrl-C), and the guest goes on here",
            );
            interrupt.wait();
        }
        failure
    }

    /// Fails where whoever hands the VM over does not wait any more. To be asked before it is safe elsewhere for good.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Image(_) | Self::File(_) => Ok(()),
            Self::Handed { socket, handed, .. } => cloud_hypervisor::expect_waiting(socket, handed),
        }
    }

    /// The VM is safe elsewhere: whoever has handed it over may give it up.
    pub(crate) fn give_up(self) -> Result<(), Failure> {
        match self {
            Self::Image(_) | Self::File(_) => Ok(()),
            Self::Handed { socket, handed, .. } => cloud_hypervisor::give_up(&socket, handed),
        }
    }

    pub(crate) fn ram(&self) -> &Arc<Ram> {
        match self {
            Self::Image(image) => &image.ram,
            Self::File(file) => &file.ram,
            Self::Handed { ram, .. } => ram,
        }
    }

    /// What libvirt says of the VM.
    pub(crate) fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Image(_) | Self::Handed { .. } => None,
            Self::File(file) => file.domain.as_ref(),
        }
    }

    /// Checks every block against its SHA-256.
    pub(crate) fn verify(&self, interrupt: &Interrupt, bar: &Bar) -> Result<(), Failure> {
        match self {
            Self::Image(image) => image.verify(interrupt, bar),
            Self::File(_) | Self::Handed { .. } => Err(Failure::usage(
                "only a VM image has the SHA-256 of its RAM; leave --verify off for other places",
            )),
        }
    }

    /// Reads all of the RAM.
    pub(crate) fn survey(
        &self,
        interrupt: &Interrupt,
        bar: &Bar,
    ) -> Result<Vec<BlockSurvey>, Failure> {
        match self {
            Self::Image(image) => image.survey(interrupt, bar),
            Self::File(_) | Self::Handed { .. } => survey(self.ram(), None, interrupt, bar),
        }
    }
}

/// The VM whose stream begins at `offset` in the file, with the capability mapped-ram or without.
fn open_stream(
    path: &Path,
    file: File,
    offset: u64,
    reading: Reading<'_>,
    output: &Output,
) -> Result<(Vm, Arc<Ram>), Failure> {
    let again = file.try_clone().map_err(|error| cannot_use(path, error))?;
    let saved = match MappedRam::open(again, offset, limits(reading.device_state_limit)) {
        Err(MappedRamError::Stream(error)) if error.kind == StreamErrorKind::NotMappedRam => {
            return read_plain(path, file, offset, Ok, reading, output);
        }
        opened => opened.map_err(|error| cannot_use(path, chain(&error)))?,
    };
    let ram = mapped::ram(path, &saved)?;
    Ok((saved.into_vm(), Arc::new(ram)))
}

/// The VM in an ordinary stream, which is read as a whole.
fn read_plain<R: Read>(
    path: &Path,
    mut file: File,
    offset: u64,
    unpack: impl FnOnce(Watched) -> io::Result<R>,
    reading: Reading<'_>,
    output: &Output,
) -> Result<(Vm, Arc<Ram>), Failure> {
    let cannot = |error| Failure::io(format!("cannot read {}", path.display()), &error);
    let bytes = file.metadata().map_err(cannot)?.len();
    file.seek(SeekFrom::Start(offset)).map_err(cannot)?;
    let bar = output.bar("reading", bytes.saturating_sub(offset));
    // Nothing is made yet: a signal may simply end the program.
    let stream = unpack(Watched::new(file, Interrupt::default(), bar)).map_err(cannot)?;
    let limits = limits(reading.device_state_limit);
    let read = plain_stream::read(Whole(stream), limits, arrival::provide_stored);
    let (vm, ram) = read.map_err(|error| cannot_use(path, chain(&error)))?;
    match ram.missing_pages() {
        0 => Ok((vm, ram)),
        _ if reading.allow_missing_pages => Ok((vm, ram)),
        count => Err(cannot_use(
            path,
            format!(
                "{count} of its pages are missing: it is the main channel of a migration over several \
                 connections (multifd decode reads those), or of a guest that has given memory back, for \
                 which there is --allow-missing-pages"
            ),
        )),
    }
}

fn limits(device_state: &DeviceStateLimit) -> Limits {
    let mut limits = Limits::default();
    limits.device_state = device_state.in_memory();
    limits
}

/// A stream that is cut off where its packing says so: its end is none.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(io::ErrorKind::InvalidData, "what it is packed by is cut off")
            }
            _ => error,
        })
    }
}
