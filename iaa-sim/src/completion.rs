//! The completion record that an engine writes when it is done with a descriptor.

use crate::status::Status;

/// Bytes of a completion record.
pub const COMPLETION_BYTES: usize = 64;

/// What a descriptor came to: the fields of the completion record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// How it ended; 0 while it has not.
    pub status: u8,
    /// What is wrong with the data or the descriptor.
    pub error: u8,
    /// Of a page fault: bit 0 says that its address counts, others what was done there.
    pub fault_info: u8,
    /// Bytes of source 1 that are done.
    pub bytes_completed: u32,
    /// Where the page fault was.
    pub fault_address: u64,
    /// The flags that are not allowed.
    pub invalid_flags: u64,
    /// Bytes written to the destination.
    pub output_bytes: u32,
    /// Bits used in the last of these; 0 for all 8.
    pub output_bits: u8,
    /// The XOR checksum over the data.
    pub xor_checksum: u16,
    /// The CRC over the data.
    pub crc: u32,
}

impl Completion {
    /// One of that status, and nothing more.
    pub(crate) fn of(status: Status) -> Self {
        Self { status: status as u8, ..Self::default() }
    }

    /// One of a page fault there, by the status that says of what kind.
    pub(crate) fn page_fault(status: Status, address: u64) -> Self {
        Self { fault_info: 1, fault_address: address, ..Self::of(status) }
    }

    /// What a record in memory says.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; COMPLETION_BYTES]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self {
            status: bytes[0],
            error: bytes[1],
            fault_info: bytes[2],
            bytes_completed: (word(0) >> 32) as u32,
            fault_address: word(8),
            invalid_flags: word(16),
            output_bytes: word(24) as u32,
            output_bits: bytes[28],
            xor_checksum: (word(24) >> 48) as u16,
            crc: word(32) as u32,
        }
    }

    /// The record as it lies in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; COMPLETION_BYTES] {
        let mut bytes = [0; COMPLETION_BYTES];
        bytes[0] = self.status;
        bytes[1] = self.error;
        bytes[2] = self.fault_info;
        bytes[4..8].copy_from_slice(&self.bytes_completed.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.fault_address.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.invalid_flags.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.output_bytes.to_le_bytes());
        bytes[28] = self.output_bits;
        bytes[30..32].copy_from_slice(&self.xor_checksum.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let completion = Completion {
            status: 1,
            error: 2,
            fault_info: 3,
            bytes_completed: 0x0102_0304,
            fault_address: 0x1122_3344_5566_7788,
            invalid_flags: 0x8877_6655_4433_2211,
            output_bytes: 0x0506_0708,
            output_bits: 5,
            xor_checksum: 0x1234,
            crc: 0x9abc_def0,
        };
        assert_eq!(Completion::from_bytes(&completion.to_bytes()), completion);
    }
}
