//! Decompress, opcode 0x42.

use super::{Engine, Failure};
use crate::aecs::{DECOMPRESS_BYTES, DecompressAecs, INPUT_BITS};
use crate::bits::BitReader;
use crate::checksum;
use crate::completion::Completion;
use crate::inflate::{BlockEnd, Phase, Rest, State, StopAt};
use crate::memory::Memory;
use crate::operation::{Buffers, Decompress, When};
use crate::status::{DataError, Status};

/// How far a decompression has come.
struct Progress {
    crc: u32,
    xor: u16,
    output_bytes: u32,
    /// The bit of the input that comes next.
    position: usize,
}

impl Engine {
    pub(super) fn decompress(
        &mut self,
        operation: &Decompress,
        memory: &impl Memory,
    ) -> Result<Completion, Failure> {
        let buffers = operation.buffers;
        let start = self.load(&buffers, memory)?;
        // What the AECS has of the input comes before the source.
        let held_bytes = self.source.len();
        self.read_source(buffers.source, memory)?;
        let ignored = if buffers.source.bytes == 0 { 0 } else { operation.ignored_bits as usize };
        let limit = 8 * self.source.len() - ignored;
        let (progress, rest) = self.inflate(operation, memory, start.min(limit), limit)?;
        let read = progress.position.div_ceil(8).max(held_bytes);
        let (keep_to, bytes_completed) = match rest {
            Ok(Rest::NeedsInput) => (limit, buffers.source.bytes),
            Ok(Rest::OutputFull) => ((8 * read).min(limit), (read - held_bytes) as u32),
            Ok(Rest::Stopped) | Err(_) => (progress.position, (read - held_bytes) as u32),
        };
        let completion = Completion {
            bytes_completed,
            output_bytes: progress.output_bytes,
            xor_checksum: progress.xor,
            crc: progress.crc,
            ..Completion::of(Status::Success)
        };
        let verdict =
            rest.and_then(|rest| self.verdict(operation, rest, keep_to - progress.position));
        match verdict {
            Err(error) => {
                let status = Status::DataError as u8;
                Ok(Completion { status, error: error as u8, ..completion })
            }
            Ok(status) => {
                self.store(&buffers, memory, &progress, keep_to, status)?;
                Ok(Completion { status: status as u8, ..completion })
            }
        }
    }

    /// Sets up what a decompression goes on from; the bit at which its input begins.
    fn load(&mut self, buffers: &Buffers, memory: &impl Memory) -> Result<usize, Failure> {
        self.source.clear();
        let Some(address) = buffers.aecs.read else {
            self.aecs.fill(0);
            self.inflater.state = State::default();
            self.inflated.start(&[]);
            return Ok(0);
        };
        let bytes = &mut self.aecs[..buffers.aecs.bytes as usize];
        memory.read(address, bytes).map_err(Failure::Read)?;
        let aecs = DecompressAecs(bytes);
        self.inflater.state = aecs.state()?;
        if matches!(self.inflater.state.phase, Phase::Coded { .. }) {
            aecs.tables(&mut self.inflater.tables)?;
        }
        aecs.history(&mut self.history)?;
        self.inflated.start(&self.history);
        Ok(aecs.input(&mut self.source)?)
    }

    /// Decompresses and writes the output, until all is done or the destination is full.
    #[allow(
        clippy::type_complexity,
        reason = "a failure of memory, and apart from it one of the data"
    )]
    fn inflate(
        &mut self,
        operation: &Decompress,
        memory: &impl Memory,
        start: usize,
        limit: usize,
    ) -> Result<(Progress, Result<Rest, DataError>), Failure> {
        let Buffers { destination, crc, aecs, .. } = operation.buffers;
        let stop = match (operation.stop, operation.last_block) {
            (false, _) => StopAt::Nothing,
            (true, false) => StopAt::AnyBlock,
            (true, true) => StopAt::LastBlock,
        };
        let (before, xor) = match aecs.read {
            Some(_) => DecompressAecs(&mut self.aecs).checksums(),
            None => (0, 0),
        };
        let mut progress = Progress { crc: before, xor, output_bytes: 0, position: start };
        let mut reader = BitReader::new(&self.source, start, limit);
        loop {
            let room =
                destination.bytes - if operation.suppress { 0 } else { progress.output_bytes };
            self.inflated.allow(if operation.suppress { usize::MAX } else { room as usize });
            let rest = self.inflater.run(&mut reader, &mut self.inflated, stop);
            let bytes = self.inflated.held();
            let full = room as usize == bytes.len() && !operation.suppress;
            progress.crc = crc.update(progress.crc, bytes);
            progress.xor = checksum::xor(progress.xor, bytes);
            if !operation.suppress {
                let address = destination.address.wrapping_add(progress.output_bytes.into());
                memory.write(address, bytes).map_err(Failure::Write)?;
                progress.output_bytes += bytes.len() as u32;
            }
            self.inflated.take();
            progress.position = reader.position();
            match rest {
                Ok(Rest::OutputFull) if !full => {}
                rest => return Ok((progress, rest)),
            }
        }
    }

    /// The status of a decompression that has come to a rest, with so many bits of input left over.
    fn verdict(
        &self,
        operation: &Decompress,
        rest: Rest,
        left: usize,
    ) -> Result<Status, DataError> {
        match rest {
            Rest::OutputFull if operation.buffers.aecs.write.is_none() => {
                return Err(DataError::OutputTooSmall);
            }
            Rest::OutputFull => return Ok(Status::OutputOverflow),
            Rest::NeedsInput if left > INPUT_BITS => return Err(DataError::HeaderTooBig),
            Rest::NeedsInput | Rest::Stopped => {}
        }
        let ended = match self.inflater.state.ended {
            Some(BlockEnd::Last) => true,
            Some(BlockEnd::Any) => !operation.last_block,
            None => false,
        };
        if operation.check && !ended { Err(DataError::NoEndOfBlock) } else { Ok(Status::Success) }
    }

    /// Writes the AECS, if it is to be written.
    fn store(
        &mut self,
        buffers: &Buffers,
        memory: &impl Memory,
        progress: &Progress,
        keep_to: usize,
        status: Status,
    ) -> Result<(), Failure> {
        let Some((address, when)) = buffers.aecs.write else { return Ok(()) };
        if when == When::OnOverflow && status != Status::OutputOverflow {
            return Ok(());
        }
        debug_assert!(buffers.aecs.bytes <= DECOMPRESS_BYTES);
        let bytes = &mut self.aecs[..buffers.aecs.bytes as usize];
        let mut aecs = DecompressAecs(bytes);
        aecs.set_checksums(progress.crc, progress.xor);
        aecs.set_input(&self.source, progress.position, keep_to);
        aecs.set_state(self.inflater.state);
        if matches!(self.inflater.state.phase, Phase::Coded { .. }) {
            aecs.set_tables(&self.inflater.tables);
        }
        aecs.set_history(self.inflated.past());
        memory.write(address, bytes).map_err(Failure::Write)
    }
}
