//! CONFIGURATION: which machine the stream is of, and what it was set up with.

use std::io::Read;

use super::StreamErrorKind;
use super::input::{Input, SHORT, name};
use super::wire::{self, section};

/// How many capabilities a source may list. QEMU has some twenty.
const MAX_CAPABILITIES: u32 = 256;

const PAGE_BITS: &str = "configuration/target-page-bits";
const CAPABILITIES: &str = "configuration/capabilities";
const UUID: &str = "configuration/uuid";

/// The machine that the stream is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The machine type, such as `pc-i440fx-10.0`: 1 to 255 bytes without a NUL. `None` where the
    /// stream has no CONFIGURATION, as with very old machine types; then there are no subsections.
    pub machine: Option<String>,
    /// What comes with it, in the order of the stream; none twice.
    pub subsections: Vec<Subsection>,
}

/// An optional part of [`Configuration`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsection {
    /// Its version, kept so that it can be written as it was.
    pub version: u32,
    /// What it says.
    pub data: SubsectionData,
}

/// What a [`Subsection`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubsectionData {
    /// The page size, as a power of two: 12 to 16.
    PageBits(u32),
    /// The names of the migration capabilities that are on at the source.
    Capabilities(Vec<String>),
    /// The VM's UUID.
    Uuid([u8; 16]),
}

impl Configuration {
    /// The machine type `machine` with no subsections.
    pub fn new(machine: impl Into<String>) -> Self {
        Self { machine: Some(machine.into()), subsections: Vec::new() }
    }

    /// The page size as a power of two, where the stream says it.
    pub fn page_bits(&self) -> Option<u32> {
        self.data().find_map(|data| match data {
            SubsectionData::PageBits(bits) => Some(*bits),
            _ => None,
        })
    }

    /// The VM's UUID, where the stream says it.
    pub fn uuid(&self) -> Option<&[u8; 16]> {
        self.data().find_map(|data| match data {
            SubsectionData::Uuid(uuid) => Some(uuid),
            _ => None,
        })
    }

    /// The capabilities that are on at the source, as far as the stream lists them.
    pub fn capabilities(&self) -> &[String] {
        let names = self.data().find_map(|data| match data {
            SubsectionData::Capabilities(names) => Some(names.as_slice()),
            _ => None,
        });
        names.unwrap_or_default()
    }

    fn data(&self) -> impl Iterator<Item = &SubsectionData> {
        self.subsections.iter().map(|subsection| &subsection.data)
    }

    /// Reads what follows the header: CONFIGURATION with its subsections, or nothing.
    pub(super) fn read<R: Read>(input: &mut Input<R>) -> Result<Self, StreamErrorKind> {
        if input.peek("CONFIGURATION")? != section::CONFIGURATION {
            return Ok(Self::default());
        }
        input.u8("CONFIGURATION")?;
        let mut configuration = Self::new(read_machine(input)?);
        while input.peek("a section")? == section::SUBSECTION {
            input.begin_item();
            let subsection = Subsection::read(input)?;
            if configuration.data().any(|data| data.name() == subsection.data.name()) {
                return Err(StreamErrorKind::RepeatedSubsection(subsection.data.name()));
            }
            configuration.subsections.push(subsection);
        }
        Ok(configuration)
    }

    /// Appends CONFIGURATION to `out`, or nothing where there is no machine type.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), StreamErrorKind> {
        let Some(machine) = &self.machine else {
            if self.subsections.is_empty() {
                return Ok(());
            }
            return Err(StreamErrorKind::Misuse(
                "CONFIGURATION has subsections but no machine type",
            ));
        };
        let length = machine_length(machine.len() as u64)?;
        name(machine.as_bytes(), "the machine type")?;
        out.push(section::CONFIGURATION);
        out.extend_from_slice(&u32::from(length).to_be_bytes());
        out.extend_from_slice(machine.as_bytes());
        self.subsections.iter().try_for_each(|subsection| subsection.write(out))
    }
}

fn read_machine<R: Read>(input: &mut Input<R>) -> Result<String, StreamErrorKind> {
    let what = "the machine type";
    let length = machine_length(u64::from(input.u32(what)?))?;
    let mut buffer = [0; SHORT];
    let bytes = &mut buffer[..usize::from(length)];
    input.exact(bytes, what)?;
    Ok(name(bytes, what)?.to_owned())
}

/// QEMU's machine types have some twenty characters, so a byte's worth is plenty.
fn machine_length(length: u64) -> Result<u8, StreamErrorKind> {
    u8::try_from(length).map_err(|_| StreamErrorKind::Length {
        what: "the machine type",
        length,
        allowed: "1 to 255",
    })
}

impl Subsection {
    fn read<R: Read>(input: &mut Input<R>) -> Result<Self, StreamErrorKind> {
        let what = "a subsection of CONFIGURATION";
        input.u8(what)?;
        let name = input.name(what)?;
        let version = input.u32(what)?;
        let data = match name.as_str() {
            PAGE_BITS => SubsectionData::PageBits(page_bits(input.u32(what)?)?),
            CAPABILITIES => SubsectionData::Capabilities(read_capabilities(input)?),
            UUID => SubsectionData::Uuid(input.array(what)?),
            _ => return Err(StreamErrorKind::UnknownSubsection(name)),
        };
        Ok(Self { version, data })
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), StreamErrorKind> {
        out.push(section::SUBSECTION);
        wire::put_name(out, self.data.name(), "a subsection")?;
        out.extend_from_slice(&self.version.to_be_bytes());
        match &self.data {
            SubsectionData::PageBits(bits) => {
                out.extend_from_slice(&page_bits(*bits)?.to_be_bytes());
            }
            SubsectionData::Capabilities(names) => {
                let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&capability_count(count)?.to_be_bytes());
                for name in names {
                    wire::put_name(out, name, "a capability")?;
                }
            }
            SubsectionData::Uuid(uuid) => out.extend_from_slice(uuid),
        }
        Ok(())
    }
}

impl SubsectionData {
    fn name(&self) -> &'static str {
        match self {
            Self::PageBits(_) => PAGE_BITS,
            Self::Capabilities(_) => CAPABILITIES,
            Self::Uuid(_) => UUID,
        }
    }
}

fn page_bits(bits: u32) -> Result<u32, StreamErrorKind> {
    if wire::PAGE_BITS.contains(&bits) { Ok(bits) } else { Err(StreamErrorKind::PageBits(bits)) }
}

fn read_capabilities<R: Read>(input: &mut Input<R>) -> Result<Vec<String>, StreamErrorKind> {
    let what = "the list of capabilities";
    let count = capability_count(input.u32(what)?)?;
    (0..count).map(|_| input.name(what)).collect()
}

fn capability_count(count: u32) -> Result<u32, StreamErrorKind> {
    if count > MAX_CAPABILITIES {
        return Err(StreamErrorKind::Length {
            what: "the list of capabilities",
            length: u64::from(count),
            allowed: "at most 256 names",
        });
    }
    Ok(count)
}
