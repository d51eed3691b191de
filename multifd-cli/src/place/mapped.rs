//! The RAM of a mapped-ram file, mapped where it is.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use multifd::core::ram::{BlockMemory, Ram, RamBlock, is_zero};
use multifd::core::vm_memory::{MmapRegion, VolatileSlice};
use multifd::mapped_ram::MappedRam;
use rustix::fs::{SeekFrom, seek};

use super::cannot_use;
use crate::failure::{Failure, chain};
use crate::mapping::{self, Access};

/// A block's pages in the file, of which it is known which are there.
#[derive(Debug)]
struct Pages {
    memory: Arc<MmapRegion>,
    data: Vec<Range<u64>>,
}

impl BlockMemory for Pages {
    fn bytes(&self) -> u64 {
        BlockMemory::bytes(&self.memory)
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        self.memory.slice(offset, len)
    }

    fn data(&self) -> Option<Vec<Range<u64>>> {
        Some(self.data.clone())
    }
}

/// The RAM of the file at `path`.
pub(super) fn ram(path: &Path, saved: &MappedRam) -> Result<Ram, Failure> {
    let page = mapping::page_bytes().map_err(|error| cannot_use(path, error))? as u64;
    // QEMU has them at whole MiB; the format asks for less than a machine with large pages can map.
    match saved.blocks().iter().all(|block| block.pages_offset % page == 0) {
        true => mapped(path, saved),
        false => loaded(path, saved),
    }
}

fn mapped(path: &Path, saved: &MappedRam) -> Result<Ram, Failure> {
    let mut blocks = Vec::new();
    for (index, block) in saved.blocks().iter().enumerate() {
        let data = saved.data(index).map_err(|error| cannot_use(path, chain(&error)))?;
        let file = saved.file().try_clone().map_err(|error| cannot_use(path, error))?;
        let (at, bytes) = (block.pages_offset, block.info.bytes);
        let memory = mapping::of_file(path, file, at, bytes, Access::PrivateWrite)?;
        let pages = Pages { memory, data: data.clone() };
        let ram = RamBlock::new(block.info.name.clone(), pages);
        for gap in gaps(&data, bytes) {
            clear(saved, at, &gap, &ram).map_err(|error| cannot_use(path, error))?;
        }
        blocks.push(ram);
    }
    Ok(Ram::new(saved.page_size(), blocks)?)
}

/// What is between `data`, up to `bytes`.
fn gaps(data: &[Range<u64>], bytes: u64) -> Vec<Range<u64>> {
    let starts = std::iter::once(0).chain(data.iter().map(|data| data.end));
    let ends = data.iter().map(|data| data.start).chain([bytes]);
    starts.zip(ends).map(|(start, end)| start..end).filter(|gap| !gap.is_empty()).collect()
}

/// Zeroes what the file has in the block's `gap`: pages that have become zero since they were written. The block begins at
/// `at` in the file, which itself is not written.
fn clear(saved: &MappedRam, at: u64, gap: &Range<u64>, block: &RamBlock) -> io::Result<()> {
    let page = saved.page_size().bytes() as u64;
    let (mut offset, end) = (at + gap.start, at + gap.end);
    while offset < end {
        // Holes need not be read.
        let Some(data) = seek_or_end(saved, SeekFrom::Data(offset))?.filter(|&data| data < end)
        else {
            return Ok(());
        };
        let hole = seek_or_end(saved, SeekFrom::Hole(data))?.unwrap_or(end).min(end);
        let written = (data - at) / page * page..hole - at;
        for offset in written.step_by(page as usize) {
            if !is_zero(block.slice(offset, page as usize)) {
                block.write(offset, &vec![0; page as usize]);
            }
        }
        offset = hole;
    }
    Ok(())
}

/// `None` at the end of the file.
fn seek_or_end(saved: &MappedRam, to: SeekFrom) -> io::Result<Option<u64>> {
    match seek(saved.file(), to) {
        Ok(found) => Ok(Some(found)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn loaded(path: &Path, saved: &MappedRam) -> Result<Ram, Failure> {
    let blocks = saved.blocks().iter().map(|block| {
        let memory = mapping::anonymous(block.info.bytes).map_err(Failure::new)?;
        Ok(RamBlock::new(block.info.name.clone(), memory).fresh())
    });
    let ram = Ram::new(saved.page_size(), blocks.collect::<Result<Vec<_>, Failure>>()?)?;
    saved.load(&ram, 1).map_err(|error| cannot_use(path, chain(&error)))?;
    Ok(ram)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use multifd::Vm;
    use multifd::core::PageSize;
    use multifd::core::wire::BlockName;
    use multifd::mapped_ram::Writer;
    use multifd::stream::{BlockInfo, Configuration, Limits};

    use super::*;

    const BYTES: u64 = 64 * 4096;

    /// A file with pages 3, 4 and 60.
    fn saved() -> (tempfile::NamedTempFile, MappedRam) {
        let name = BlockName::new("pc.ram").unwrap();
        let memory = mapping::anonymous(BYTES).unwrap();
        let ram = Ram::new(PageSize::Kib4, [RamBlock::new(name.clone(), memory)]).unwrap();
        for page in [3, 4, 60] {
            ram.blocks()[0].write(page * 4096 + 7, &[page as u8]);
        }
        let mut vm = Vm::default();
        vm.configuration = Configuration::new("pc");
        vm.blocks = vec![BlockInfo::new(name, BYTES)];
        let file = tempfile::NamedTempFile::new().unwrap();
        Writer::new(file.as_file()).write(&vm, &ram).unwrap();
        let read = MappedRam::open(file.reopen().unwrap(), 0, Limits::default()).unwrap();
        (file, read)
    }

    fn content(ram: &Ram) -> Vec<u8> {
        let mut bytes = vec![0; BYTES as usize];
        ram.blocks()[0].slice(0, bytes.len()).copy_to(&mut bytes[..]);
        bytes
    }

    #[test]
    fn mapped_and_read_memory_are_the_same_and_what_is_behind_a_clear_bit_is_zero() {
        let (file, read) = saved();
        let before = content(&loaded(file.path(), &read).unwrap());
        let at = read.blocks()[0].pages_offset;
        for page in [0, 5, 30, 63] {
            file.as_file().write_all_at(&[9; 4096], at + page * 4096).unwrap();
        }
        let bytes = std::fs::read(file.path()).unwrap();
        for make in [loaded, mapped] {
            assert!(content(&make(file.path(), &read).unwrap()) == before);
        }
        assert!(std::fs::read(file.path()).unwrap() == bytes, "the file is left as it was");
        let ram = ram(file.path(), &read).unwrap();
        let data = ram.blocks()[0].memory().data();
        assert_eq!(data, Some(vec![3 * 4096..5 * 4096, 60 * 4096..61 * 4096]));
    }

    #[test]
    fn a_file_that_becomes_shorter_is_noticed() {
        let (file, read) = saved();
        let ram = ram(file.path(), &read).unwrap();
        let short = File::options().write(true).open(file.path()).unwrap();
        short.set_len(read.blocks()[0].pages_offset + 4096).unwrap();
        content(&ram);
        let error = mapping::check_files().unwrap_err().to_string();
        assert!(error.contains("became shorter"), "{error}");
    }
}
