//! Reading an image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use multifd::core::ram::{BlockDigest, Ram, RamBlock};
use multifd::core::wire::BlockName;
use multifd::stream::{BlockInfo, Limits};
use multifd::{EarlyState, Vm};
use sha2::{Digest, Sha256};

use super::manifest::{Block, Manifest, StateFile};
use super::name::{MANIFEST, is_inside};
use super::write::{hash, hexadecimal};
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::file;
use crate::folder::{self, Wanted};
use crate::mapping::{self, Access};
use crate::options::device_state::DeviceStateLimit;
use crate::progress::Bar;

/// The most bytes of a manifest. One of a VM with thousands of RAM blocks has some hundred KiB.
const MOST_MANIFEST: u64 = 16 << 20;

/// A VM from its folder, ready to be sent. The files are mapped, not read.
#[derive(Debug)]
pub(crate) struct Image {
    folder: PathBuf,
    pub(super) blocks: Vec<Block>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) vm: Vm,
}

impl Image {
    /// Opens the image in `folder`, and checks that every file exists and has its length, or with
    /// device state and early state, no more than is accepted.
    pub(crate) fn open(
        folder: &Path,
        device_state_limit: &DeviceStateLimit,
    ) -> Result<Self, Failure> {
        folder::expect(folder, Wanted::Image)?;
        let path = folder.join(MANIFEST);
        let manifest = read_manifest(&path)?;
        let wrong = |what| Failure::new(format!("cannot use {}: {what}", path.display()));
        let page_size = manifest.page_size().map_err(wrong)?;
        let blocks = manifest.blocks.iter().map(|block| map_block(folder, block));
        let blocks: Vec<_> = blocks.collect::<Result<_, _>>()?;
        if blocks.is_empty() {
            return Err(wrong("it does not list any RAM block".to_owned()));
        }
        let ram = Ram::new(page_size, blocks).map_err(|error| wrong(error.to_string()))?;
        let mut vm = Vm::default();
        vm.configuration = manifest.configuration().map_err(wrong)?;
        vm.uuid = manifest.uuid().map_err(wrong)?;
        vm.blocks = ram.blocks().iter().zip(&manifest.blocks).map(info).collect();
        vm.section_id = manifest.stream.ram_section;
        vm.sync_form = manifest.stream.sync.into();
        vm.footers = manifest.stream.footers;
        vm.device_state =
            read_device_state(folder, &manifest, device_state_limit)?.unwrap_or_default();
        vm.early_state = read_early_state(folder, &manifest)?;
        vm.postcopy_advise = manifest.stream.postcopy_advise.map(Into::into);
        vm.digests = digests(&manifest.blocks).map_err(wrong)?;
        let (folder, blocks) = (folder.to_owned(), manifest.blocks);
        Ok(Self { folder, blocks, ram: Arc::new(ram), vm })
    }

    /// Checks every block against its SHA-256.
    pub(crate) fn verify(&self, interrupt: &Interrupt, bar: &Bar) -> Result<(), Failure> {
        for (block, listed) in self.ram.blocks().iter().zip(&self.blocks) {
            let found = hash(block, interrupt, bar)?;
            mapping::check_files()?;
            check_hash(&self.folder, &listed.file, &found, &listed.sha256)?;
        }
        Ok(())
    }
}

fn info((block, listed): (&Arc<RamBlock>, &Block)) -> BlockInfo {
    BlockInfo::new(block.name().clone(), block.bytes()).with_page_bytes(listed.page_bytes)
}

/// What each block held when it was stored, if the source of each has said so.
fn digests(blocks: &[Block]) -> Result<Option<Vec<BlockDigest>>, String> {
    let texts = blocks.iter().map(|block| block.digest.as_deref());
    let Some(texts) = texts.collect::<Option<Vec<_>>>() else { return Ok(None) };
    let digests = texts.into_iter().map(str::parse::<BlockDigest>);
    digests.collect::<Result<_, _>>().map(Some).map_err(|error| error.to_string())
}

pub(crate) fn read_manifest(path: &Path) -> Result<Manifest, Failure> {
    let json = file::read(path, MOST_MANIFEST)?;
    Manifest::parse(&json)
        .map_err(|what| Failure::new(format!("cannot use {}: {what}", path.display())))
}

/// The path of `file`, which must be in the folder itself and not a link.
fn inside(folder: &Path, file: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(file);
    let is_link = || path.symlink_metadata().is_ok_and(|file| file.file_type().is_symlink());
    if !is_inside(file) || is_link() {
        let folder = folder.display();
        return Err(Failure::new(format!(
            "cannot use {folder}: '{file}' in its {MANIFEST} is not a file of the folder itself"
        )));
    }
    Ok(path)
}

fn map_block(folder: &Path, block: &Block) -> Result<RamBlock, Failure> {
    let path = inside(folder, &block.file)?;
    let (file, found) = file::open(&path)?;
    if found != block.bytes {
        let Block { name, bytes, .. } = block;
        return Err(Failure::new(format!(
            "cannot use {}: it has {found} bytes, but the RAM block '{name}' has {bytes}; the \
             image is damaged",
            path.display()
        )));
    }
    let name = BlockName::new(&block.name)?;
    let memory = mapping::of_file(&path, file, 0, found, Access::Read)?;
    Ok(RamBlock::new(name, memory))
}

fn read_device_state(
    folder: &Path,
    manifest: &Manifest,
    limit: &DeviceStateLimit,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(file) = &manifest.device_state else { return Ok(None) };
    let read = |path: &Path| file::read_or(path, limit.bytes(), Some(DeviceStateLimit::ALLOW_MORE));
    read_state(folder, file, manifest.device_state_sha256.as_deref(), read).map(Some)
}

fn read_early_state(folder: &Path, manifest: &Manifest) -> Result<EarlyState, Failure> {
    // Both together, as where it arrives.
    let limit = Limits::default().early_state;
    let read = |state: &Option<StateFile>, limit: usize| match state {
        Some(StateFile { file, sha256 }) => {
            read_state(folder, file, Some(sha256), |path| file::read(path, limit as u64))
        }
        None => Ok(Vec::new()),
    };
    let mut early_state = EarlyState::new();
    early_state.before_start = read(&manifest.early_state, limit)?;
    let rest = limit.saturating_sub(early_state.before_start.len());
    early_state.behind_start = read(&manifest.early_state_behind_start, rest)?;
    Ok(early_state)
}

/// Reads a file with `read`, and checks it against its SHA-256 where that is known.
fn read_state(
    folder: &Path,
    file: &str,
    sha256: Option<&str>,
    read: impl Fn(&Path) -> Result<Vec<u8>, Failure>,
) -> Result<Vec<u8>, Failure> {
    let bytes = read(&inside(folder, file)?)?;
    if let Some(expected) = sha256 {
        check_hash(folder, file, &hexadecimal(Sha256::digest(&bytes)), expected)?;
    }
    Ok(bytes)
}

fn check_hash(folder: &Path, file: &str, found: &str, expected: &str) -> Result<(), Failure> {
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let path = folder.join(file);
    Err(Failure::new(format!(
        "cannot use {}: its SHA-256 is {found}, but {MANIFEST} says {expected}; the image is damaged",
        path.display()
    )))
}
