//! Mapped-ram files: no panic, what is loaded is what the file has where its bitmaps say so, and zeros elsewhere, and what is
//! taken reads as it is written.

use std::fs::File;
use std::os::unix::fs::FileExt;

use multifd::mapped_ram::{MappedRam, MappedRamError, Writer};
use multifd::stream::Limits;
use multifd_core::ram::{Ram, RamBlock};
use multifd_core::vm_memory::MmapRegion;

use crate::{content, parts};

/// The most bytes of a file, and of the RAM that is loaded: files are sparse, and pages at whole MiB.
const MOST: u64 = 8 << 20;

/// Runs the target on one input: a byte of choice, then parts of the file, each behind its offset of 4 bytes
/// (little-endian).
pub fn mapped_ram(input: &[u8]) {
    let (choice, parts) = parts(input);
    let file = tempfile::tempfile().expect("a file can be made");
    for part in parts {
        let Some((&offset, bytes)) = part.split_first_chunk::<4>() else { continue };
        let offset = u64::from(u32::from_le_bytes(offset)) % MOST;
        file.write_all_at(bytes, offset).expect("it can be written");
    }
    let offset = if choice & 1 == 0 { 0 } else { 92 };
    let Ok((saved, ram)) = load(&file, offset) else { return };
    let Some(ram) = ram else { return };
    let again = tempfile::tempfile().expect("a file can be made");
    let written = Writer::new(&again).offset(offset).threads(2).write(saved.vm(), &ram);
    // A stream of RAM alone cannot say that it is of such a file.
    if saved.vm().configuration.machine.is_some() {
        written.expect("what is read can be written");
        let (saved_again, ram_again) = load(&again, offset).expect("what is written is read");
        assert_eq!(saved_again.vm(), saved.vm());
        let equal = content(&ram) == content(&ram_again.expect("it is as small"));
        assert!(equal, "another RAM is read than was written");
    }
}

/// The VM, and its RAM where that is small.
fn load(file: &File, offset: u64) -> Result<(MappedRam, Option<Ram>), MappedRamError> {
    let again = file.try_clone().expect("it can be cloned");
    let saved = MappedRam::open(again, offset, Limits::default())?;
    let length = file.metadata().expect("it has a length").len();
    let data: Vec<_> = (0..saved.blocks().len()).map(|block| saved.data(block)).collect();
    for (block, data) in saved.blocks().iter().zip(&data) {
        assert!(block.end() <= length);
        let data = data.as_deref().unwrap_or_default();
        assert!(data.windows(2).all(|pair| pair[0].end < pair[1].start));
        assert!(data.last().is_none_or(|last| last.end <= block.info.bytes));
    }
    if saved.blocks().iter().map(|block| block.info.bytes).sum::<u64>() > MOST {
        return Ok((saved, None));
    }
    let data = data.into_iter().collect::<Result<Vec<_>, _>>()?;
    let blocks = saved.blocks().iter().map(|block| {
        let memory = MmapRegion::<()>::new(block.info.bytes as usize).expect("some memory");
        RamBlock::new(block.info.name.clone(), memory).fresh()
    });
    let ram = Ram::new(saved.page_size(), blocks).expect("blocks of a stream are those of a RAM");
    saved.load(&ram, 2)?;
    for ((block, data), (_, loaded)) in saved.blocks().iter().zip(&data).zip(content(&ram)) {
        let mut expected = vec![0; loaded.len()];
        for data in data {
            let room = &mut expected[data.start as usize..data.end as usize];
            file.read_exact_at(room, block.pages_offset + data.start).expect("it is in the file");
        }
        assert!(expected == loaded, "another RAM is loaded than the file has");
    }
    Ok((saved, Some(ram)))
}
