//! Reading a mapped-ram file.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use multifd_core::PageSize;
use multifd_core::ram::{PageMemory, Ram};

use super::MappedRamError;
use super::bitmap::Bitmap;
use super::chunks::{self, Chunk};
use crate::stream::{BlockInfo, Limits, MainDecoder, MainEvent, MappedBlock};
use crate::vm::Vm;

/// The most RAM of a VM, in bytes: 16 TiB, whose bitmap has 512 MiB.
const MOST_RAM: u64 = 16 << 40;

/// Bytes of the stream that are read at once.
const BUFFER: usize = 64 << 10;

/// A VM in a mapped-ram file: what its stream says, and where the pages are. Nothing of these is read before
/// [`load`](Self::load).
#[derive(Debug)]
pub struct MappedRam {
    file: File,
    page_size: PageSize,
    vm: Vm,
    blocks: Vec<MappedBlock>,
}

impl MappedRam {
    /// The VM whose stream begins at byte `offset` of `file`. The file's position is neither used nor changed.
    ///
    /// # Errors
    /// A file that cannot be read, that is cut off, or whose stream is against the format or beyond `limits`.
    pub fn open(file: File, offset: u64, limits: Limits) -> Result<Self, MappedRamError> {
        let length = file.metadata().map_err(MappedRamError::reading(0))?.len();
        let mut stream = Stream {
            file: &file,
            decoder: MainDecoder::new(limits).of_mapped_ram(offset),
            at: offset,
            buffer: vec![0; BUFFER],
            unread: 0..0,
        };
        let (mut vm, mut blocks, mut ram) = (Vm::default(), Vec::new(), 0_u64);
        while let Some(event) = stream.next()? {
            if let MainEvent::MappedBlock(block) = event {
                if block.end() > length {
                    let (name, end) = (block.info.name.clone(), block.end());
                    return Err(MappedRamError::CutOff { name, end, bytes: length });
                }
                // A file that is all holes is as long as it likes.
                ram = ram.saturating_add(block.info.bytes);
                if ram > MOST_RAM {
                    return Err(MappedRamError::TooMuchRam { limit: MOST_RAM });
                }
                stream.continue_at(block.end());
                blocks.push(block);
            } else {
                vm.note(event);
            }
        }
        let decoder = &stream.decoder;
        vm.complete(decoder);
        vm.configuration = vm.configuration.without_mapped_ram();
        Ok(Self { page_size: decoder.page_size(), vm, blocks, file })
    }

    /// What the VM is beside its RAM, as if it had come over connections: it does not say that it was in such a file.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// As [`vm`](Self::vm), without a copy of its device state.
    pub fn into_vm(self) -> Vm {
        self.vm
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Where each RAM block is in the file, in the order of the stream.
    pub fn blocks(&self) -> &[MappedBlock] {
        &self.blocks
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The parts of block `index` that the file has pages of, as ranges of offsets in the block, in bytes, in ascending order and
    /// apart from each other. The rest of the block is zero, whatever is in its place in the file.
    ///
    /// # Errors
    /// A bitmap that cannot be read, or that has bits behind the last page.
    ///
    /// # Panics
    /// Where there is no such block.
    pub fn data(&self, index: usize) -> Result<Vec<Range<u64>>, MappedRamError> {
        let page = self.page_size.bytes() as u64;
        let runs = self.bitmap(index)?;
        let runs = runs.runs(0..self.pages(index));
        Ok(runs.map(|run| run.start * page..run.end * page).collect())
    }

    /// Reads the pages into `ram`, by `threads` threads. A page that the file does not have is not written where memory is
    /// [fresh](multifd_core::ram::RamBlock::fresh), and is zeroed elsewhere.
    ///
    /// # Errors
    /// RAM with other blocks than the file's; a file that cannot be read.
    pub fn load(&self, ram: &Ram, threads: usize) -> Result<(), MappedRamError> {
        if !is_ram_of(ram, self.page_size, self.blocks.iter().map(|block| &block.info)) {
            return Err(MappedRamError::OtherRam);
        }
        let bitmaps = (0..self.blocks.len()).map(|index| self.bitmap(index));
        let bitmaps = bitmaps.collect::<Result<Vec<_>, _>>()?;
        let all = chunks::chunks(
            (0..self.blocks.len()).map(|index| std::iter::once(0..self.pages(index))),
        );
        let start = || PageMemory::new(chunks::most_bytes(self.page_size));
        chunks::for_each(&all, threads, start, |buffer, chunk| {
            self.load_chunk(ram, &bitmaps[chunk.block], chunk, buffer.get_mut_or_new())
        })
    }

    fn load_chunk(
        &self,
        ram: &Ram,
        bitmap: &Bitmap,
        chunk: &Chunk,
        buffer: &mut [u8],
    ) -> Result<(), MappedRamError> {
        let (block, mapped) = (&ram.blocks()[chunk.block], &self.blocks[chunk.block]);
        let page = self.page_size.bytes() as u64;
        let mut zeros = chunk.pages.start;
        let zero = |pages: Range<u64>| {
            pages.for_each(|number| block.receive_zero(number * page, page as usize));
        };
        for run in bitmap.runs(chunk.pages.clone()) {
            zero(zeros..run.start);
            zeros = run.end;
            let (offset, bytes) = (run.start * page, ((run.end - run.start) * page) as usize);
            let at = mapped.pages_offset + offset;
            let read = self.file.read_exact_at(&mut buffer[..bytes], at);
            read.map_err(MappedRamError::reading(at))?;
            block.write(offset, &buffer[..bytes]);
            run.for_each(|number| _ = block.mark_received(number * page));
        }
        zero(zeros..chunk.pages.end);
        Ok(())
    }

    fn pages(&self, index: usize) -> u64 {
        self.blocks[index].info.bytes / self.page_size.bytes() as u64
    }

    fn bitmap(&self, index: usize) -> Result<Bitmap, MappedRamError> {
        let block = &self.blocks[index];
        // It lies inside the file.
        let mut bytes = vec![0; block.bitmap_bytes as usize];
        let read = self.file.read_exact_at(&mut bytes, block.bitmap_offset);
        read.map_err(MappedRamError::reading(block.bitmap_offset))?;
        let bitmap = Bitmap::parse(&bytes, self.pages(index));
        bitmap.ok_or_else(|| MappedRamError::Bitmap(block.info.name.clone()))
    }
}

/// Whether `ram` has blocks like these, in this order.
pub(super) fn is_ram_of<'a>(
    ram: &Ram,
    page_size: PageSize,
    blocks: impl Iterator<Item = &'a BlockInfo>,
) -> bool {
    let own = ram.blocks().iter().map(|block| (block.name(), block.bytes()));
    ram.page_size() == page_size && own.eq(blocks.map(|info| (&info.name, info.bytes)))
}

/// The stream of a file, which jumps over the pages.
struct Stream<'a> {
    file: &'a File,
    decoder: MainDecoder,
    /// Where in the file the buffer's end is from.
    at: u64,
    buffer: Vec<u8>,
    unread: Range<usize>,
}

impl Stream<'_> {
    fn next(&mut self) -> Result<Option<MainEvent>, MappedRamError> {
        loop {
            let mut bytes = &self.buffer[self.unread.clone()];
            let event = self.decoder.next(&mut bytes)?;
            self.unread.start = self.unread.end - bytes.len();
            if event.is_some() || self.decoder.is_over() {
                return Ok(event);
            }
            let count = self.fill().map_err(MappedRamError::reading(self.at))?;
            if count == 0 {
                return Ok(self.decoder.finish()?);
            }
        }
    }

    fn continue_at(&mut self, offset: u64) {
        self.decoder.continue_at(offset);
        (self.at, self.unread) = (offset, 0..0);
    }

    fn fill(&mut self) -> io::Result<usize> {
        loop {
            match self.file.read_at(&mut self.buffer, self.at) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(count) => {
                    self.unread = 0..count;
                    self.at += count as u64;
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
