//! Places: where a VM is, and where it goes.

mod cloud_hypervisor;
mod leftover;
mod libvirt;
mod mapped;
mod new;
mod saved;
mod target;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

pub(crate) use saved::{Reading, Saved};
pub(crate) use target::{How, StoredVm, Target};

use crate::failure::Failure;
use crate::size;

/// Where a VM is, or where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The folder of a VM image.
    Image(PathBuf),
    /// A file that QEMU writes and takes, from its byte `offset` on.
    QemuFile { path: PathBuf, offset: u64 },
    /// A file of libvirt's `virsh save`. A new one may have the domain's XML from the file `xml`.
    Libvirt { path: PathBuf, xml: Option<PathBuf> },
    /// A socket by which Cloud Hypervisor hands a VM over, or takes it.
    CloudHypervisor(PathBuf),
}

const QEMU_FILE: &[u8] = b"qemu-file:";
const LIBVIRT: &[u8] = b"libvirt:";
const CLOUD_HYPERVISOR: &[u8] = b"cloud-hypervisor:";

/// How long a Cloud Hypervisor may take for a message where nothing else is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What places are, for help texts.
pub(crate) const FORMS: &str = "\
A PLACE is one of
  FOLDER                         a VM image, the folder with vm.json
  qemu-file:PATH[,offset=BYTES]  what QEMU writes by `migrate file:PATH`, and takes by -incoming:
                                 read with and without the capability mapped-ram, written with it
  libvirt:PATH[,xml=FILE]        what virsh save writes: read as raw, gzip, zstd or sparse, written
                                 as sparse (libvirt 11.2); FILE is the domain's XML for a new one
  cloud-hypervisor:SOCKET        a Cloud Hypervisor that hands its VM over (ch-remote
                                 send-migration destination_url=unix:SOCKET,local=on) or takes one
                                 (receive-migration receiver_url=unix:SOCKET)";

impl Place {
    /// A parser for the command line.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(|text| Self::parse(&text))
    }

    fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        if let Some(rest) = bytes.strip_prefix(QEMU_FILE) {
            let (path, offset) = split(rest, b",offset=");
            let offset = offset.map_or(Ok(0), parse_offset)?;
            return Ok(Self::QemuFile { path: path_of(path)?, offset });
        }
        if let Some(rest) = bytes.strip_prefix(LIBVIRT) {
            let (path, xml) = split(rest, b",xml=");
            return Ok(Self::Libvirt { path: path_of(path)?, xml: xml.map(path_of).transpose()? });
        }
        if let Some(socket) = bytes.strip_prefix(CLOUD_HYPERVISOR) {
            return path_of(socket).map(Self::CloudHypervisor);
        }
        path_of(bytes).map(Self::Image)
    }

    /// Fails for a place that hands its VM over once, and does not keep it.
    pub(crate) fn expect_stored(&self) -> Result<(), Failure> {
        match self {
            Self::CloudHypervisor(_) => Err(Failure::usage(format!(
                "cannot look into {self}: Cloud Hypervisor hands a VM over once; multifd convert --from {self} \
                 stores it"
            ))),
            _ => Ok(()),
        }
    }

    /// The same with `change` made of its folder or file.
    pub(crate) fn at(mut self, change: impl FnOnce(&str) -> String) -> Result<Self, Failure> {
        let (Self::Image(path)
        | Self::QemuFile { path, .. }
        | Self::Libvirt { path, .. }
        | Self::CloudHypervisor(path)) = &mut self;
        let text = path.to_str().ok_or_else(|| cannot_use(path, "its name is not UTF-8"))?;
        *path = change(text).into();
        Ok(self)
    }

    /// The folder or file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Image(path)
            | Self::QemuFile { path, .. }
            | Self::Libvirt { path, .. }
            | Self::CloudHypervisor(path) => path,
        }
    }
}

/// What is before the last `key`, and what is behind it.
fn split<'a>(text: &'a [u8], key: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    match text.windows(key.len()).rposition(|part| part == key) {
        Some(at) => (&text[..at], Some(&text[at + key.len()..])),
        None => (text, None),
    }
}

fn path_of(bytes: &[u8]) -> Result<PathBuf, String> {
    match bytes {
        [] => Err("it has no path".to_owned()),
        path => Ok(PathBuf::from(OsStr::from_bytes(path))),
    }
}

/// As QEMU takes it: with a unit, or in hexadecimal.
fn parse_offset(text: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(text);
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16)
            .map_err(|_| format!("'{text}' is not an offset: write it as 1M or 0x100000")),
        None => size::parse(&text),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(path) => write!(f, "{}", path.display()),
            Self::QemuFile { path, offset: 0 } => write!(f, "qemu-file:{}", path.display()),
            Self::QemuFile { path, offset } => {
                write!(f, "qemu-file:{},offset={offset}", path.display())
            }
            Self::Libvirt { path, xml: None } => write!(f, "libvirt:{}", path.display()),
            Self::CloudHypervisor(socket) => write!(f, "cloud-hypervisor:{}", socket.display()),
            Self::Libvirt { path, xml: Some(xml) } => {
                write!(f, "libvirt:{},xml={}", path.display(), xml.display())
            }
        }
    }
}

/// `why` the place cannot be used.
fn cannot_use(path: &Path, why: impl fmt::Display) -> Failure {
    Failure::new(format!("cannot use {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Place, String> {
        Place::parse(OsStr::new(text))
    }

    #[test]
    fn places_are_read_as_they_are_shown() {
        let file = |path: &str, offset| Place::QemuFile { path: path.into(), offset };
        let libvirt = |path: &str, xml: Option<&str>| Place::Libvirt {
            path: path.into(),
            xml: xml.map(Into::into),
        };
        for (text, place) in [
            ("vm", Place::Image("vm".into())),
            ("./qemu-file:vm", Place::Image("./qemu-file:vm".into())),
            ("qemu-file:/a/vm.mapped", file("/a/vm.mapped", 0)),
            ("qemu-file:a,b,offset=4096", file("a,b", 4096)),
            ("cloud-hypervisor:/tmp/vm.sock", Place::CloudHypervisor("/tmp/vm.sock".into())),
            ("libvirt:vm.save", libvirt("vm.save", None)),
            ("libvirt:vm.save,xml=/etc/vm.xml", libvirt("vm.save", Some("/etc/vm.xml"))),
        ] {
            assert_eq!(parse(text), Ok(place.clone()));
            assert_eq!(place.to_string(), text);
        }
        assert_eq!(parse("qemu-file:vm,offset=1M"), Ok(file("vm", 1 << 20)));
        assert_eq!(parse("qemu-file:vm,offset=0x5c"), Ok(file("vm", 92)));
    }

    #[test]
    fn what_has_no_path_or_a_malformed_offset_is_refused() {
        for text in ["", "qemu-file:", "qemu-file:,offset=1", "libvirt:,xml=a", "libvirt:a,xml="] {
            assert_eq!(parse(text), Err("it has no path".to_owned()), "{text}");
        }
        for text in ["qemu-file:a,offset=x", "qemu-file:a,offset=0x", "qemu-file:a,offset=0x1M"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
