//! `vm.json`.

use multifd::core::PageSize;
use multifd::core::wire::Uuid;
use multifd::stream::{Configuration, PostcopyAdvise, Subsection, SubsectionData, SyncForm};
use serde::{Deserialize, Serialize};

/// The version of the format that is written. All from [`OLDEST`] on are read: what is newer than a
/// manifest has a default.
pub(super) const VERSION: u32 = 2;

const OLDEST: u32 = 1;

/// The content of `vm.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    /// The machine type, such as `pc-i440fx-10.0`; `None` for RAM alone.
    pub(crate) machine: Option<String>,
    /// All zero if the VM has none.
    pub(crate) uuid: String,
    pub(crate) page_size: u64,
    /// The RAM blocks, in the order in which they are migrated.
    pub(crate) blocks: Vec<Block>,
    /// The file with the device state; `None` for RAM alone.
    pub(crate) device_state: Option<String>,
    pub(crate) device_state_sha256: Option<String>,
    /// What devices sent before the pages, ahead of the list of RAM blocks. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) early_state: Option<StateFile>,
    /// What devices sent between that list and the last page. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) early_state_behind_start: Option<StateFile>,
    pub(crate) stream: Stream,
}

/// A file of the folder with a part of the VM's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateFile {
    pub(crate) file: String,
    pub(crate) sha256: String,
}

/// A RAM block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Block {
    /// QEMU's name for it.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// The file in the folder, as long as the block.
    pub(crate) file: String,
    pub(crate) sha256: String,
    /// The size of the huge pages that it was made of at the source, where that is part of the stream.
    /// Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) page_bytes: Option<u64>,
    /// The digest by which the source said what the block holds. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
}

/// The form of the main channel, so that the VM can be sent as it came: a QEMU with the same
/// machine type expects the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stream {
    /// What follows the machine type in CONFIGURATION.
    pub(crate) configuration: Vec<Part>,
    /// The number of the `ram` section.
    pub(crate) ram_section: u32,
    pub(crate) sync: Sync,
    /// Whether each section ends in a FOOTER.
    pub(crate) footers: bool,
    /// What the source said of postcopy. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) postcopy_advise: Option<Advise>,
}

/// What a source says that may switch to postcopy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Advise {
    /// Its capability dirty-bitmaps was on, postcopy-ram was not.
    DirtyBitmaps,
    /// postcopy-ram was on. The numbers are those of [`PostcopyAdvise::Ram`].
    PostcopyRam { page_sizes: u64, target_page_bytes: u64 },
}

/// A subsection of CONFIGURATION.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) version: u32,
    pub(crate) data: PartData,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PartData {
    /// The page size as a power of two.
    TargetPageBits(u32),
    Capabilities(Vec<String>),
    Uuid(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sync {
    /// A word of its own, for machine types from QEMU 8.1 on.
    Flush,
    /// The end of each section, for older ones.
    EachSection,
}

impl Advise {
    pub(super) fn of(advise: PostcopyAdvise) -> Result<Self, String> {
        match advise {
            PostcopyAdvise::DirtyBitmaps => Ok(Self::DirtyBitmaps),
            PostcopyAdvise::Ram { page_sizes, target_page_bytes } => {
                Ok(Self::PostcopyRam { page_sizes, target_page_bytes })
            }
            other => Err(format!("an image cannot hold {other:?}; use a newer program")),
        }
    }
}

impl From<Advise> for PostcopyAdvise {
    fn from(advise: Advise) -> Self {
        match advise {
            Advise::DirtyBitmaps => Self::DirtyBitmaps,
            Advise::PostcopyRam { page_sizes, target_page_bytes } => {
                Self::ram(page_sizes, target_page_bytes)
            }
        }
    }
}

impl From<SyncForm> for Sync {
    fn from(form: SyncForm) -> Self {
        match form {
            SyncForm::Flush => Self::Flush,
            SyncForm::EachSection => Self::EachSection,
        }
    }
}

impl From<Sync> for SyncForm {
    fn from(sync: Sync) -> Self {
        match sync {
            Sync::Flush => Self::Flush,
            Sync::EachSection => Self::EachSection,
        }
    }
}

impl Part {
    pub(super) fn of(subsection: &Subsection) -> Result<Self, String> {
        let data = match &subsection.data {
            SubsectionData::PageSize(size) => PartData::TargetPageBits(size.bits()),
            SubsectionData::Capabilities(names) => PartData::Capabilities(names.clone()),
            SubsectionData::Uuid(uuid) => PartData::Uuid(uuid.to_string()),
            other => {
                return Err(format!(
                    "an image cannot hold the subsection {other:?}; use a newer program"
                ));
            }
        };
        Ok(Self { version: subsection.version, data })
    }

    fn subsection(&self) -> Result<Subsection, String> {
        let data = match &self.data {
            PartData::TargetPageBits(bits) => {
                let size = PageSize::from_bits(*bits);
                SubsectionData::PageSize(size.ok_or_else(|| {
                    format!("target-page-bits is {bits}, but must be 12, 14 or 16")
                })?)
            }
            PartData::Capabilities(names) => SubsectionData::Capabilities(names.clone()),
            PartData::Uuid(text) => SubsectionData::Uuid(parse_uuid(text)?),
        };
        Ok(Subsection::new(data).with_version(self.version))
    }
}

impl Manifest {
    /// Reads `vm.json`. An error says what is wrong with it.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let malformed = |error| format!("it is malformed: {error}");
        let Versioned { version } = serde_json::from_slice(json).map_err(malformed)?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(format!(
                "it has version {version}, but this program reads versions {OLDEST} to {VERSION}; use \
                 a newer program"
            ));
        }
        serde_json::from_slice(json).map_err(malformed)
    }

    /// The names of the image's files, this one left out.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let Self { blocks, device_state, early_state, early_state_behind_start, .. } = self;
        let early = early_state.iter().chain(early_state_behind_start);
        let blocks = blocks.iter().map(|block| block.file.as_str());
        blocks.chain(device_state.as_deref()).chain(early.map(|state| state.file.as_str()))
    }

    pub(super) fn uuid(&self) -> Result<Uuid, String> {
        parse_uuid(&self.uuid)
    }

    pub(super) fn page_size(&self) -> Result<PageSize, String> {
        let size = PageSize::from_bytes(self.page_size).ok_or_else(|| {
            format!("page_size is {}, but must be 4096, 16384 or 65536", self.page_size)
        })?;
        let bits = self.stream.configuration.iter().find_map(|part| match part.data {
            PartData::TargetPageBits(bits) => Some(bits),
            _ => None,
        });
        match bits {
            Some(bits) if 1_u64.checked_shl(bits) != Some(self.page_size) => {
                Err(format!("page_size is {}, but target-page-bits says 2^{bits}", self.page_size))
            }
            _ => Ok(size),
        }
    }

    pub(super) fn configuration(&self) -> Result<Configuration, String> {
        let subsections = self.stream.configuration.iter().map(Part::subsection);
        let subsections: Vec<_> = subsections.collect::<Result<_, _>>()?;
        if self.machine.is_none() && !subsections.is_empty() {
            return Err("it has a configuration but no machine".to_owned());
        }
        let mut configuration = Configuration::default();
        configuration.machine.clone_from(&self.machine);
        configuration.subsections = subsections;
        Ok(configuration)
    }
}

fn parse_uuid(text: &str) -> Result<Uuid, String> {
    text.parse::<Uuid>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{
        "version": 1, "machine": "pc", "uuid": "00000000-0000-0000-0000-000000000000",
        "page_size": 4096,
        "blocks": [{"name": "pc.ram", "bytes": 4096, "file": "pc.ram", "sha256": "00"}],
        "device_state": null, "device_state_sha256": null,
        "stream": {
            "configuration": [
                {"version": 1, "data": {"target-page-bits": 12}},
                {"version": 1, "data": {"capabilities": ["multifd"]}},
                {"version": 1, "data": {"uuid": "01020304-0506-0708-090a-0b0c0d0e0f10"}}
            ],
            "ram_section": 2, "sync": "flush", "footers": true
        }
    }"#;

    #[test]
    fn a_manifest_reads_as_it_is_written() {
        let manifest = Manifest::parse(JSON.as_bytes()).unwrap();
        let again = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Manifest::parse(&again).unwrap(), manifest);
        let configuration = manifest.configuration().unwrap();
        assert_eq!(configuration.page_size(), Some(PageSize::Kib4));
        let parts = configuration.subsections.iter().map(Part::of);
        assert_eq!(parts.collect::<Result<Vec<_>, _>>(), Ok(manifest.stream.configuration));
    }

    #[test]
    fn another_version_is_refused_by_its_number_even_with_unknown_fields() {
        let error = Manifest::parse(br#"{"version": 3, "new": true}"#).unwrap_err();
        assert!(error.contains("version 3"), "{error}");
    }

    #[test]
    fn what_is_new_in_version_2_reads_as_it_is_written() {
        let mut manifest = Manifest::parse(JSON.as_bytes()).unwrap();
        assert!(manifest.early_state.is_none() && manifest.stream.postcopy_advise.is_none());
        let state = |file: &str| Some(StateFile { file: file.to_owned(), sha256: "00".to_owned() });
        manifest.version = VERSION;
        manifest.early_state = state("early-state.bin");
        manifest.early_state_behind_start = state("early-state-2.bin");
        manifest.blocks[0].page_bytes = Some(2 << 20);
        let files: Vec<_> = manifest.files().collect();
        assert_eq!(files, ["pc.ram", "early-state.bin", "early-state-2.bin"]);
        for advise in [
            Advise::DirtyBitmaps,
            Advise::PostcopyRam { page_sizes: 0x20_1000, target_page_bytes: 4096 },
        ] {
            manifest.stream.postcopy_advise = Some(advise);
            let again = serde_json::to_vec(&manifest).unwrap();
            assert_eq!(Manifest::parse(&again).unwrap(), manifest);
            assert_eq!(Advise::of(advise.into()), Ok(advise));
        }
    }

    #[test]
    fn a_field_that_is_unknown_missing_or_of_another_type_is_refused_by_its_place() {
        for (from, to) in [
            ("\"machine\": \"pc\"", "\"machine\": 7"),
            ("\"page_size\": 4096,", ""),
            ("\"version\": 1, \"machine\"", "\"version\": 1, \"more\": 1, \"machine\""),
            ("\"flush\"", "\"sometimes\""),
            ("}]", "}"),
        ] {
            let json = JSON.replacen(from, to, 1);
            assert_ne!(json, JSON, "{from}");
            let error = Manifest::parse(json.as_bytes()).unwrap_err();
            assert!(error.contains("line "), "{error}");
        }
    }

    #[test]
    fn values_that_contradict_the_format_are_refused() {
        let broken =
            |from: &str, to: &str| Manifest::parse(JSON.replacen(from, to, 1).as_bytes()).unwrap();
        assert!(broken("4096", "8192").page_size().is_err());
        assert!(broken("4096", "65536").page_size().is_err());
        assert!(broken("\"00000000-", "\"x-").uuid().is_err());
        assert!(broken("\"pc\"", "null").configuration().is_err());
    }
}
