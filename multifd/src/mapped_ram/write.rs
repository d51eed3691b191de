//! Writing a mapped-ram file.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use multifd_core::ram::{PageMemory, Ram, RamBlock, copy_unless_zero};

use super::MappedRamError;
use super::bitmap::Bitmap;
use super::chunks::{self, Chunk};
use super::read::is_ram_of;
use crate::stream::{BlockInfo, MainEncoder, MappedBlock, PostcopyAdvise};
use crate::vm::Vm;

/// Writes a VM into a file, as QEMU does with the capability mapped-ram. A page of zeros is not written, so the file is to be
/// a new one: with nothing, or zeros, wherever a page may be.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    file: &'a File,
    pages: &'a File,
    offset: u64,
    threads: usize,
    /// Is told the bytes of RAM that have been done, and says whether to go on.
    watch: Option<&'a (dyn Fn(u64) -> bool + Sync)>,
}

/// A block on its way into the file.
struct Block<'a> {
    memory: &'a RamBlock,
    mapped: MappedBlock,
    bitmap: Bitmap,
}

impl<'a> Writer<'a> {
    /// A writer into `file`, which begins at its first byte, with one thread.
    pub fn new(file: &'a File) -> Self {
        Self { file, pages: file, offset: 0, threads: 1, watch: None }
    }

    /// Begins at byte `offset` of the file. What is before it is somebody else's.
    #[must_use]
    pub fn offset(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    /// Has so many threads write pages.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Has pages written through another handle of the same file, which may be one that goes past the page cache (`O_DIRECT`):
    /// memory, lengths and places are multiples of the page size.
    #[must_use]
    pub fn pages_through(self, pages: &'a File) -> Self {
        Self { pages, ..self }
    }

    /// Has `watch` told, after each piece, how many bytes of RAM it was. Where that returns false it ends early.
    #[must_use]
    pub fn watched_by(self, watch: &'a (dyn Fn(u64) -> bool + Sync)) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// Writes the VM `vm` with the RAM `ram`, which stands still. What is in the file is whole when this has returned, and then
    /// still to be synced to the disk. Returns where in the file it ends.
    ///
    /// # Errors
    /// RAM with other blocks than the VM's, a VM that the stream cannot have (one without a machine type), a file that cannot
    /// be written.
    pub fn write(self, vm: &Vm, ram: &Ram) -> Result<u64, MappedRamError> {
        if !is_ram_of(ram, ram.page_size(), vm.blocks.iter()) {
            return Err(MappedRamError::OtherRam);
        }
        let mut encoder =
            MainEncoder::new().with_page_size(ram.page_size()).with_footers(vm.footers);
        encoder.set_digests(vm.digests.clone().unwrap_or_default());
        let blocks = self.put_start(&mut encoder, vm, ram)?;
        self.put_pages(ram, &blocks)?;
        for block in &blocks {
            self.put(&block.bitmap.to_bytes(), block.mapped.bitmap_offset)?;
        }
        encoder.early_state(&vm.early_state.behind_start)?;
        encoder.ram_end()?;
        self.flush(&mut encoder)?;
        // Last: what has an end is whole.
        self.put_device_state(&mut encoder, &vm.device_state)
    }

    /// Writes everything up to the end of the list of RAM blocks.
    fn put_start<'r>(
        self,
        encoder: &mut MainEncoder,
        vm: &Vm,
        ram: &'r Ram,
    ) -> Result<Vec<Block<'r>>, MappedRamError> {
        encoder.continue_at(self.offset)?;
        encoder.header(&vm.configuration.with_mapped_ram())?;
        // A QEMU that has mapped-ram on cannot have postcopy-ram on, and refuses the advice of a source that had.
        if let Some(advise @ PostcopyAdvise::DirtyBitmaps) = vm.postcopy_advise {
            encoder.postcopy_advise(advise)?;
        }
        encoder.early_state(&vm.early_state.before_start)?;
        // Such a file does not say what memory is made of.
        let infos = vm.blocks.iter().map(|info| BlockInfo::new(info.name.clone(), info.bytes));
        encoder.mapped_ram_start(vm.section_id, 0, &infos.collect::<Vec<_>>())?;
        let mut blocks = Vec::new();
        for memory in ram.blocks() {
            let Some(mapped) = encoder.mapped_block()? else { break };
            self.flush(encoder)?;
            encoder.continue_at(mapped.end())?;
            let bitmap = Bitmap::new(memory.bytes() / ram.page_size().bytes() as u64);
            blocks.push(Block { memory, mapped, bitmap });
        }
        // The end of the list.
        encoder.mapped_block()?;
        self.flush(encoder)?;
        Ok(blocks)
    }

    fn put_pages(self, ram: &Ram, blocks: &[Block<'_>]) -> Result<(), MappedRamError> {
        let page = ram.page_size().bytes() as u64;
        let pages = |bytes: Range<u64>| bytes.start / page..bytes.end.div_ceil(page);
        let may_be_there = |block: &Block<'_>| {
            let all = 0..block.memory.bytes();
            let data = block.memory.memory().data().unwrap_or_else(|| vec![all]);
            data.into_iter().map(pages).collect::<Vec<_>>()
        };
        let may_be_there: Vec<_> = blocks.iter().map(may_be_there).collect();
        let known: u64 = may_be_there.iter().flatten().map(|pages| pages.end - pages.start).sum();
        self.done(ram.bytes().saturating_sub(known * page))?;
        let all = chunks::chunks(may_be_there);
        let start = || PageMemory::new(chunks::most_bytes(ram.page_size()));
        chunks::for_each(&all, self.threads, start, |buffer, chunk| {
            self.put_chunk(&blocks[chunk.block], page, chunk, buffer.get_mut_or_new())?;
            self.done((chunk.pages.end - chunk.pages.start) * page)
        })
    }

    /// Writes those pages of `chunk` that are not zero, neighbours together.
    fn put_chunk(
        self,
        block: &Block<'_>,
        page: u64,
        chunk: &Chunk,
        buffer: &mut [u8],
    ) -> Result<(), MappedRamError> {
        let copies = chunk.pages.clone().zip(buffer.chunks_exact_mut(page as usize));
        for (number, copy) in copies {
            if copy_unless_zero(block.memory.slice(number * page, page as usize), copy) {
                block.bitmap.set(number);
            }
        }
        for run in block.bitmap.runs(chunk.pages.clone()) {
            let [start, end] =
                [run.start, run.end].map(|number| ((number - chunk.pages.start) * page) as usize);
            let at = block.mapped.pages_offset + run.start * page;
            let written = self.pages.write_all_at(&buffer[start..end], at);
            written.map_err(MappedRamError::writing(at))?;
        }
        Ok(())
    }

    fn put_device_state(
        self,
        encoder: &mut MainEncoder,
        state: &[u8],
    ) -> Result<u64, MappedRamError> {
        if state.is_empty() {
            encoder.no_device_state()?;
        } else {
            let at = encoder.offset();
            let sections = encoder.device_state_apart(state)?;
            self.put(sections, at)?;
        }
        self.flush(encoder)?;
        Ok(encoder.offset())
    }

    /// Writes what is encoded where it belongs.
    fn flush(self, encoder: &mut MainEncoder) -> Result<(), MappedRamError> {
        let count = encoder.bytes().len();
        self.put(encoder.bytes(), encoder.offset() - count as u64)?;
        encoder.written(count);
        Ok(())
    }

    fn put(self, bytes: &[u8], at: u64) -> Result<(), MappedRamError> {
        self.file.write_all_at(bytes, at).map_err(MappedRamError::writing(at))
    }

    fn done(self, bytes: u64) -> Result<(), MappedRamError> {
        match self.watch.is_none_or(|watch| watch(bytes)) {
            true => Ok(()),
            false => Err(MappedRamError::Stopped),
        }
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, threads, .. } = self;
        f.debug_struct("Writer")
            .field("file", file)
            .field("offset", offset)
            .field("threads", threads)
            .finish_non_exhaustive()
    }
}
