//! Writing an image.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;

use multifd::Vm;
use multifd::core::ram::{Ram, RamBlock};
use sha2::{Digest, Sha256};

use super::manifest::{Advise, Block, Manifest, Part, StateFile, Stream, VERSION};
use super::name::{DEVICE_STATE, EARLY_STATE, EARLY_STATE_BEHIND_START, MANIFEST, file_names};
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::file;
use crate::page::{PAGE, is_zero};
use crate::progress::Bar;

/// How much of a block is read at once, in bytes.
const CHUNK: usize = 1 << 20;

/// Writes the VM into `folder`, and waits until it is on the disk.
pub(crate) fn write(
    folder: &Path,
    vm: &Vm,
    ram: &Ram,
    interrupt: &Interrupt,
    bar: &Bar,
) -> Result<Manifest, Failure> {
    let names = file_names(vm.blocks.iter().map(|block| block.name.as_str()));
    let mut blocks = Vec::new();
    for (index, (block, file)) in ram.blocks().iter().zip(names).enumerate() {
        let digest = vm.digests.as_ref().and_then(|digests| digests.get(index));
        let digest = digest.map(ToString::to_string);
        let page_bytes = vm.blocks.get(index).and_then(|info| info.page_bytes);
        let sha256 = write_block(folder, &file, block, interrupt, bar)?;
        let (name, bytes) = (block.name().to_string(), block.bytes());
        blocks.push(Block { name, bytes, file, sha256, page_bytes, digest });
    }
    // RAM alone has none.
    let device_state = write_state(folder, DEVICE_STATE, &vm.device_state)?;
    let cannot = |what: String| Failure::new(format!("cannot write {MANIFEST}: {what}"));
    let parts = vm.configuration.subsections.iter().map(Part::of).collect::<Result<_, _>>();
    let advise = vm.postcopy_advise.map(Advise::of).transpose();
    let manifest = Manifest {
        version: VERSION,
        machine: vm.configuration.machine.clone(),
        uuid: vm.uuid.to_string(),
        page_size: ram.page_size().bytes() as u64,
        blocks,
        device_state: device_state.as_ref().map(|state| state.file.clone()),
        device_state_sha256: device_state.map(|state| state.sha256),
        early_state: write_state(folder, EARLY_STATE, &vm.early_state.before_start)?,
        early_state_behind_start: write_state(
            folder,
            EARLY_STATE_BEHIND_START,
            &vm.early_state.behind_start,
        )?,
        stream: Stream {
            configuration: parts.map_err(cannot)?,
            ram_section: vm.section_id,
            sync: vm.sync_form.into(),
            footers: vm.footers,
            postcopy_advise: advise.map_err(cannot)?,
        },
    };
    let json =
        serde_json::to_string_pretty(&manifest).map_err(|error| cannot(error.to_string()))?;
    write_file(folder, MANIFEST, (json + "\n").as_bytes())?;
    Ok(manifest)
}

/// Writes state into a file of its own, if there is any.
fn write_state(folder: &Path, name: &str, state: &[u8]) -> Result<Option<StateFile>, Failure> {
    if state.is_empty() {
        return Ok(None);
    }
    write_file(folder, name, state)?;
    Ok(Some(StateFile { file: name.to_owned(), sha256: hexadecimal(Sha256::digest(state)) }))
}

fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let written = file::create_private(&folder.join(name)).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| Failure::io(format!("cannot write {name}"), &error))
}

/// Writes a block as a sparse file. Returns its SHA-256.
fn write_block(
    folder: &Path,
    name: &str,
    block: &RamBlock,
    interrupt: &Interrupt,
    bar: &Bar,
) -> Result<String, Failure> {
    let cannot = |error| Failure::io(format!("cannot write {name}"), &error);
    let file = file::create_private(&folder.join(name)).map_err(cannot)?;
    file.set_len(block.bytes()).map_err(cannot)?;
    let mut hash = Sha256::new();
    for_each_chunk(block, interrupt, |offset, chunk| {
        hash.update(chunk);
        write_sparse(&file, offset, chunk).map_err(cannot)?;
        bar.add(chunk.len() as u64);
        Ok(())
    })?;
    file.sync_all().map_err(cannot)?;
    Ok(hexadecimal(hash.finalize()))
}

/// Writes the pages of `chunk` that are not zero, neighbours together.
fn write_sparse(file: &File, offset: u64, chunk: &[u8]) -> std::io::Result<()> {
    let pages: Vec<_> = chunk.chunks(PAGE).map(|page| (page.len(), is_zero(page))).collect();
    let mut at = 0;
    for run in pages.chunk_by(|(_, one), (_, other)| one == other) {
        let bytes: usize = run.iter().map(|(bytes, _)| bytes).sum();
        if !run[0].1 {
            file.write_all_at(&chunk[at..at + bytes], offset + at as u64)?;
        }
        at += bytes;
    }
    Ok(())
}

/// SHA-256 of a block.
pub(super) fn hash(block: &RamBlock, interrupt: &Interrupt, bar: &Bar) -> Result<String, Failure> {
    let mut hash = Sha256::new();
    for_each_chunk(block, interrupt, |_, chunk| {
        hash.update(chunk);
        bar.add(chunk.len() as u64);
        Ok(())
    })?;
    Ok(hexadecimal(hash.finalize()))
}

/// Hands copies of the block's memory to `take`, in order, with their offsets.
pub(super) fn for_each_chunk(
    block: &RamBlock,
    interrupt: &Interrupt,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < block.bytes() {
        interrupt.check()?;
        let count = (block.bytes() - offset).min(CHUNK as u64) as usize;
        block.slice(offset, count).copy_to(&mut buffer[..count]);
        take(offset, &buffer[..count])?;
        offset += count as u64;
    }
    Ok(())
}

pub(super) fn hexadecimal(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use multifd::core::wire::BlockName;

    use super::*;

    #[test]
    fn a_block_is_written_sparse_and_hashed_whole() {
        let memory = crate::mapping::anonymous(3 * CHUNK as u64 + 8192).unwrap();
        let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
        block.write(4096, &[1; 8192]);
        block.write(CHUNK as u64 - 1, &[2; 2]);
        block.write(block.bytes() - 1, &[3]);
        let folder = tempfile::tempdir().unwrap();
        let bar = Bar::of_bytes(false, "", 0);
        let interrupt = Interrupt::default();
        let sha256 = write_block(folder.path(), "ram", &block, &interrupt, &bar).unwrap();

        let path = folder.path().join("ram");
        let file = std::fs::read(&path).unwrap();
        assert_eq!(file.len() as u64, block.bytes());
        let mut memory = vec![0; file.len()];
        block.slice(0, file.len()).copy_to(&mut memory[..]);
        assert!(file == memory);
        assert_eq!(sha256, hexadecimal(Sha256::digest(&file)));
        assert_eq!(hash(&block, &interrupt, &bar).unwrap(), sha256);
        assert!(path.metadata().unwrap().blocks() * 512 < CHUNK as u64, "it is sparse");
    }
}
