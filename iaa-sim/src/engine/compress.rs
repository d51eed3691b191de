//! Compress, opcode 0x43.

use super::{Engine, Failure};
use crate::aecs::{COMPRESS_BYTES, CompressAecs};
use crate::bits::BitWriter;
use crate::checksum;
use crate::completion::Completion;
use crate::deflate::{Encoder, Statistics};
use crate::memory::Memory;
use crate::operation::{Compress, Ending};
use crate::status::{DataError, Status};

impl Engine {
    pub(super) fn compress(
        &mut self,
        operation: &Compress,
        memory: &impl Memory,
    ) -> Result<Completion, Failure> {
        let buffers = operation.buffers;
        let aecs = self.compress_aecs(operation, memory)?;
        self.source.clear();
        self.read_source(buffers.source, memory)?;
        self.output.clear();
        let (mut last, mut bits) = if operation.statistics {
            self.statistics(operation);
            (0, 0)
        } else {
            self.encode(operation, &aecs)?
        };
        let output_bits = if operation.flush { bits } else { 0 };
        if operation.flush && bits > 0 {
            self.output.push(last);
            (last, bits) = (0, 0);
        }
        if self.output.len() > buffers.destination.bytes as usize {
            return Err(DataError::OutputTooSmall.into());
        }
        let crc = buffers.crc.update(aecs.crc, &self.source);
        let xor_checksum = checksum::xor(aecs.xor, &self.source);
        memory.write(buffers.destination.address, &self.output).map_err(Failure::Write)?;
        if let Some((address, _)) = buffers.aecs.write {
            let written = CompressAecs::to_write(crc, xor_checksum, last, bits);
            memory.write(address, &written).map_err(Failure::Write)?;
        }
        Ok(Completion {
            bytes_completed: buffers.source.bytes,
            output_bytes: self.output.len() as u32,
            output_bits: output_bits as u8,
            xor_checksum,
            crc,
            ..Completion::of(Status::Success)
        })
    }

    fn compress_aecs(
        &mut self,
        operation: &Compress,
        memory: &impl Memory,
    ) -> Result<CompressAecs, Failure> {
        let Some(address) = operation.buffers.aecs.read else {
            return Ok(CompressAecs::default());
        };
        let mut bytes = [0; COMPRESS_BYTES as usize];
        memory.read(address, &mut bytes).map_err(Failure::Read)?;
        Ok(CompressAecs::parse(&bytes)?)
    }

    fn statistics(&mut self, operation: &Compress) {
        let mut statistics = Statistics::default();
        self.matcher.run(&self.source, operation.literals_only, &mut statistics);
        if operation.ending != Ending::Nothing {
            statistics.end_of_block();
        }
        statistics.write(&mut self.output);
    }

    /// Writes all whole bytes; the bits that are left, and how many.
    fn encode(
        &mut self,
        operation: &Compress,
        aecs: &CompressAecs,
    ) -> Result<(u8, u32), DataError> {
        let mut writer = BitWriter::new(&mut self.output);
        let (bytes, last, bits) = aecs.accumulated();
        bytes.iter().for_each(|byte| writer.put((*byte).into(), 8));
        writer.put(last.into(), bits);
        let mut encoder = Encoder::new(&aecs.codes, writer);
        self.matcher.run(&self.source, operation.literals_only, &mut encoder);
        if operation.ending != Ending::Nothing {
            encoder.end_of_block();
        }
        if let Ending::StoredBlock { last } = operation.ending {
            encoder.stored_block(last);
        }
        Ok(encoder.finish()?.finish())
    }
}
