//! The completion record that an engine writes when it is done with a descriptor.

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
