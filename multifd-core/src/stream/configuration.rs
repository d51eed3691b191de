//! CONFIGURATION: which machine the stream is of, and what it was set up with.

use super::StreamErrorKind;
use super::input::name;
use super::mapped_ram;
use super::wire::{self, section};
use crate::PageSize;
use crate::wire::Uuid;

/// How many capabilities a source may list. QEMU has some twenty.
const MAX_CAPABILITIES: u32 = 256;

/// The machine that the stream is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Configuration {
    /// The machine type, such as `pc-i440fx-10.0`: 1 to 255 bytes without a NUL. `None` where the
    /// stream has no CONFIGURATION, as with very old machine types; then there are no subsections.
    pub machine: Option<String>,
    /// What comes with it, in the order of the stream; none twice.
    pub subsections: Vec<Subsection>,
}

/// An optional part of [`Configuration`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subsection {
    /// Its version, kept so that it can be written as it was.
    pub version: u32,
    /// What it says.
    pub data: SubsectionData,
}

/// What a [`Subsection`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubsectionData {
    /// The page size.
    PageSize(PageSize),
    /// The names of the migration capabilities that are on at the source.
    Capabilities(Vec<String>),
    /// The VM's UUID.
    Uuid(Uuid),
}

/// The subsections that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    PageSize,
    Capabilities,
    Uuid,
}

impl Configuration {
    /// The machine type `machine` with no subsections.
    pub fn new(machine: impl Into<String>) -> Self {
        Self { machine: Some(machine.into()), subsections: Vec::new() }
    }

    /// The page size, where the stream says it.
    pub fn page_size(&self) -> Option<PageSize> {
        self.data().find_map(|data| match data {
            SubsectionData::PageSize(size) => Some(*size),
            _ => None,
        })
    }

    /// The version of the machine type, by which QEMU keeps its formats compatible: major and minor, of
    /// `pc-i440fx-10.0` (10, 0). `None` for names of another form, such as those of distributions.
    pub fn machine_version(&self) -> Option<(u32, u32)> {
        let (_, version) = self.machine.as_deref()?.rsplit_once('-')?;
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// Whether a source with this configuration may be told
    /// [`SwitchoverAck`](super::ReturnMessage::SwitchoverAck) as soon as it opens the return path,
    /// without knowing whether it has switchover-ack on: it waits for it if it has, and passes over it
    /// if not. So it is for machine types 8.1 to 11.0. Before, a source may not know the message and
    /// fails; from 11.1 on a source counts the devices that are waited for and fails at an answer that
    /// it has not asked for. `docs/migration-stream.md` has the trials.
    pub fn takes_switchover_ack(&self) -> bool {
        self.machine_version().is_some_and(|version| ((8, 1)..=(11, 0)).contains(&version))
    }

    /// The VM's UUID, where the stream says it.
    pub fn uuid(&self) -> Option<Uuid> {
        self.data().find_map(|data| match data {
            SubsectionData::Uuid(uuid) => Some(*uuid),
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

    /// The configuration of the same VM in a mapped-ram file: its source had that capability on.
    #[must_use]
    pub fn with_mapped_ram(&self) -> Self {
        let mut names = self.without_mapped_ram().capabilities().to_vec();
        names.push(mapped_ram::CAPABILITY.to_owned());
        self.with_capabilities(names)
    }

    /// The configuration of the VM of a mapped-ram file, as it goes over connections.
    #[must_use]
    pub fn without_mapped_ram(&self) -> Self {
        let names = self.capabilities().iter().filter(|&name| name != mapped_ram::CAPABILITY);
        self.with_capabilities(names.cloned().collect())
    }

    /// In the place where they are, or else behind the page size, as QEMU has them.
    fn with_capabilities(&self, names: Vec<String>) -> Self {
        let is_list = |part: &Subsection| matches!(part.data, SubsectionData::Capabilities(_));
        let behind_page_size = || {
            let is_size = |part: &Subsection| matches!(part.data, SubsectionData::PageSize(_));
            self.subsections.iter().position(is_size).map_or(0, |at| at + 1)
        };
        let at = self.subsections.iter().position(is_list).unwrap_or_else(behind_page_size);
        let mut subsections = self.subsections.clone();
        subsections.retain(|part| !is_list(part));
        if !names.is_empty() {
            subsections.insert(at, Subsection::new(SubsectionData::Capabilities(names)));
        }
        Self { machine: self.machine.clone(), subsections }
    }

    pub(super) fn data(&self) -> impl Iterator<Item = &SubsectionData> {
        self.subsections.iter().map(|subsection| &subsection.data)
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

impl Subsection {
    /// A subsection of version 1, which all of QEMU's are.
    pub const fn new(data: SubsectionData) -> Self {
        Self { version: 1, data }
    }

    /// The subsection in this version.
    #[must_use]
    pub fn with_version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), StreamErrorKind> {
        out.push(section::SUBSECTION);
        wire::put_name(out, self.data.kind().name(), "a subsection")?;
        out.extend_from_slice(&self.version.to_be_bytes());
        match &self.data {
            SubsectionData::PageSize(size) => out.extend_from_slice(&size.bits().to_be_bytes()),
            SubsectionData::Capabilities(names) => {
                let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&capability_count(count)?.to_be_bytes());
                for name in names {
                    wire::put_name(out, name, "a capability")?;
                }
            }
            SubsectionData::Uuid(Uuid(uuid)) => out.extend_from_slice(uuid),
        }
        Ok(())
    }
}

impl SubsectionData {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::PageSize(_) => Kind::PageSize,
            Self::Capabilities(_) => Kind::Capabilities,
            Self::Uuid(_) => Kind::Uuid,
        }
    }
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::PageSize, Self::Capabilities, Self::Uuid];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PageSize => "configuration/target-page-bits",
            Self::Capabilities => "configuration/capabilities",
            Self::Uuid => "configuration/uuid",
        }
    }
}

/// QEMU's machine types have some twenty characters, so a byte's worth is plenty.
pub(super) fn machine_length(length: u64) -> Result<u8, StreamErrorKind> {
    u8::try_from(length).map_err(|_| StreamErrorKind::Length {
        what: "the machine type",
        length,
        allowed: "1 to 255",
    })
}

pub(super) fn capability_count(count: u32) -> Result<u32, StreamErrorKind> {
    if count > MAX_CAPABILITIES {
        return Err(StreamErrorKind::Length {
            what: "the list of capabilities",
            length: u64::from(count),
            allowed: "at most 256 names",
        });
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switchover_ack_is_for_machine_types_that_take_it_whether_they_wait_for_it_or_not() {
        for (machine, version, takes) in [
            ("pc-i440fx-7.2", Some((7, 2)), false),
            ("pc-q35-8.0", Some((8, 0)), false),
            ("pc-q35-8.1", Some((8, 1)), true),
            ("virt-10.0", Some((10, 0)), true),
            ("pc-i440fx-11.0", Some((11, 0)), true),
            ("pc-i440fx-11.1", Some((11, 1)), false),
            ("pc-q35-rhel9.4.0", None, false),
            ("microvm", None, false),
        ] {
            let configuration = Configuration::new(machine);
            assert_eq!(configuration.machine_version(), version, "{machine}");
            assert_eq!(configuration.takes_switchover_ack(), takes, "{machine}");
        }
        assert!(!Configuration::default().takes_switchover_ack());
    }
}
