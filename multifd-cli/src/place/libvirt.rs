//! The files of libvirt's `virsh save`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use multifd::core::wire::Uuid;

use super::cannot_use;
use crate::failure::Failure;
use crate::file;
use crate::size::Bytes;

const MAGIC: &[u8; 16] = b"LibvirtQemudSave";
const UNFINISHED: &[u8; 16] = b"LibvirtQemudPart";
const VERSION: u32 = 2;

/// Bytes of the header: its magic, and 19 numbers in the host's order, of which 5 are used.
const HEADER: usize = 16 + 19 * 4;

/// The most bytes of a domain's XML and cookie that are accepted. Those of large domains have some hundred KiB.
const MOST_DATA: u32 = 16 << 20;

/// What the stream behind a header begins at a multiple of, in a file that is made here; libvirt edits the XML in place.
const ALIGNMENT: usize = 4096;

/// How the stream in a file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Raw,
    Gzip,
    Zstd,
    /// In the mapped-ram format.
    Sparse,
}

/// What libvirt keeps of a domain beside its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    /// The XML, and the cookie, with the zeros that follow each.
    data: Vec<u8>,
    cookie_offset: u32,
    was_running: u32,
}

/// The header of a file, and what comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) format: Format,
    pub(super) domain: Domain,
}

impl Header {
    /// Reads the header of the file at `path`.
    pub(super) fn read(path: &Path, file: &File) -> Result<Self, Failure> {
        let wrong = |why: String| cannot_use(path, why);
        let mut header = [0; HEADER];
        let unread = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                wrong("it ends within libvirt's header".to_owned())
            }
            _ => Failure::io(format!("cannot read {}", path.display()), &error),
        };
        file.read_exact_at(&mut header, 0).map_err(unread)?;
        let (magic, numbers) = header.split_at(MAGIC.len());
        if magic == UNFINISHED {
            return Err(wrong("libvirt has not finished it".to_owned()));
        }
        if magic != MAGIC {
            return Err(wrong("it is no file of virsh save".to_owned()));
        }
        let mut numbers = numbers
            .chunks_exact(4)
            .map(|number| u32::from_ne_bytes([number[0], number[1], number[2], number[3]]));
        let [version, bytes, was_running, format, cookie_offset] =
            [(); 5].map(|()| numbers.next().unwrap_or_default());
        if version != VERSION {
            return Err(wrong(match version.swap_bytes() {
                VERSION => "it is of a machine with another byte order".to_owned(),
                _ => format!("it is of version {version}, but only version {VERSION} is known"),
            }));
        }
        if bytes > MOST_DATA {
            let (bytes, most) = (Bytes(bytes.into()), Bytes(MOST_DATA.into()));
            return Err(wrong(format!("its XML has {bytes}, but at most {most} are expected")));
        }
        if cookie_offset >= bytes.max(1) {
            return Err(wrong(format!(
                "its cookie is at {cookie_offset}, behind its {bytes} bytes"
            )));
        }
        let mut data = vec![0; bytes as usize];
        file.read_exact_at(&mut data, HEADER as u64).map_err(unread)?;
        let domain = Domain { data, cookie_offset, was_running };
        Ok(Self { format: Format::of(format).map_err(wrong)?, domain })
    }

    /// The bytes before the stream.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { format, domain: Domain { data, cookie_offset, was_running } } = self;
        let numbers = [VERSION, data.len() as u32, *was_running, format.number(), *cookie_offset];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(numbers.into_iter().flat_map(u32::to_ne_bytes));
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(data);
        bytes
    }
}

impl Domain {
    /// A domain with the XML in the file at `path`, which was running.
    pub(super) fn of_xml(path: &Path) -> Result<Self, Failure> {
        let mut data = file::read(path, u64::from(MOST_DATA) / 2)?;
        let begins = data.iter().position(|byte| !byte.is_ascii_whitespace());
        if begins.is_none_or(|at| data[at] != b'<') || data.contains(&0) {
            return Err(cannot_use(path, "it is no XML; virsh dumpxml --migratable writes it"));
        }
        // Room for a longer one.
        data.resize((HEADER + data.len() + 1024).next_multiple_of(ALIGNMENT) - HEADER, 0);
        Ok(Self { data, cookie_offset: 0, was_running: 1 })
    }

    /// The domain's UUID, as its XML has it.
    pub(super) fn uuid(&self) -> Option<Uuid> {
        let end = self.data.iter().position(|&byte| byte == 0).unwrap_or(self.data.len());
        let xml = std::str::from_utf8(&self.data[..end]).ok()?;
        let (_, behind) = xml.split_once("<uuid>")?;
        behind.split_once("</uuid>")?.0.trim().parse().ok()
    }

    /// Where in a file the stream begins.
    pub(super) fn stream_offset(&self) -> u64 {
        (HEADER + self.data.len()) as u64
    }
}

impl Format {
    fn of(number: u32) -> Result<Self, String> {
        let packed = |by: &str| {
            format!(
                "its stream is packed by {by}, which is not read here: set save_image_format in libvirt's \
                 qemu.conf to raw, zstd or sparse"
            )
        };
        match number {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Gzip),
            2 => Err(packed("bzip2")),
            3 => Err(packed("xz")),
            4 => Err(packed("lzop")),
            5 => Ok(Self::Zstd),
            6 => Ok(Self::Sparse),
            other => Err(format!("its stream has the format {other}, which is not known")),
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Raw => 0,
            Self::Gzip => 1,
            Self::Zstd => 5,
            Self::Sparse => 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn header() -> Header {
        let domain = Domain {
            data: b"<domain/>\0<cookie/>\0\0\0".to_vec(),
            cookie_offset: 10,
            was_running: 1,
        };
        Header { format: Format::Sparse, domain }
    }

    fn read(bytes: &[u8]) -> Result<Header, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Header::read(file.path(), file.as_file()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_header_reads_as_it_is_written() {
        let bytes = header().to_bytes();
        assert_eq!(bytes.len() as u64, header().domain.stream_offset());
        assert_eq!(read(&bytes), Ok(header()));
        assert_eq!(read(&[&bytes[..], b"QEVM"].concat()), Ok(header()));
    }

    #[test]
    fn what_is_wrong_with_a_header_is_said() {
        let bytes = header().to_bytes();
        let with = |at: usize, number: u32| {
            let mut bytes = bytes.clone();
            bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
            bytes
        };
        let mut part = bytes.clone();
        part[12..16].copy_from_slice(b"Part");
        for (bytes, why) in [
            (part, "has not finished it"),
            (b"QEVM".repeat(40), "no file of virsh save"),
            (bytes[..40].to_vec(), "ends within libvirt's header"),
            (bytes[..100].to_vec(), "ends within libvirt's header"),
            (with(16, 3), "version 3"),
            (with(16, VERSION.swap_bytes()), "another byte order"),
            (with(20, 1 << 30), "XML has 1 GiB"),
            (with(28, 3), "packed by xz"),
            (with(28, 7), "format 7"),
            (with(32, 22), "cookie is at 22"),
        ] {
            let error = read(&bytes).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_domains_uuid_is_in_its_xml() {
        let domain = |xml: &str| Domain { data: xml.into(), cookie_offset: 0, was_running: 1 };
        let text = "01020304-0506-0708-090a-0b0c0d0e0f10";
        let xml =
            format!("<domain><name>vm</name>\n  <uuid>{text}</uuid></domain>\0<uuid>x</uuid>");
        assert_eq!(domain(&xml).uuid().unwrap().to_string(), text);
        for xml in ["<domain/>", "<uuid>x</uuid>", "\0<uuid>", "<uuid>"] {
            assert_eq!(domain(xml).uuid(), None);
        }
    }

    #[test]
    fn a_domain_is_made_of_xml_alone() {
        let file = |text: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text).unwrap();
            Domain::of_xml(file.path()).map(|domain| domain.stream_offset())
        };
        assert_eq!(file(b"\n<domain/>").unwrap(), 4096);
        for text in [&b""[..], b"name: vm", b"<domain/>\0"] {
            assert!(file(text).unwrap_err().to_string().contains("no XML"));
        }
    }
}
