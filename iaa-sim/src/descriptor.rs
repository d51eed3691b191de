//! The descriptor by which a program asks for an operation.

/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: usize = 64;

/// A descriptor as it was submitted, not looked into yet: any 64 bytes are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub [u8; DESCRIPTOR_BYTES]);

impl Descriptor {
    /// What is to be done.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.0[7]
    }

    /// The flags that all operations share, 24 bits.
    pub(crate) fn flags(&self) -> u32 {
        self.u32(4) & 0x00ff_ffff
    }

    /// Where the completion record is to be written.
    #[must_use]
    pub fn completion_address(&self) -> u64 {
        self.u64(8)
    }

    /// Where source 1 is.
    #[must_use]
    pub fn source(&self) -> u64 {
        self.u64(16)
    }

    /// Where the output goes.
    #[must_use]
    pub fn destination(&self) -> u64 {
        self.u64(24)
    }

    /// Bytes of source 1.
    #[must_use]
    pub fn source_bytes(&self) -> u32 {
        self.u32(32)
    }

    /// The flags of the operation: `Decompression Flags`, `Compression Flags`.
    pub(crate) fn operation_flags(&self) -> u16 {
        u16::from_le_bytes([self.0[38], self.0[39]])
    }

    /// Where source 2, of DEFLATE the AECS, is.
    #[must_use]
    pub fn source_2(&self) -> u64 {
        self.u64(40)
    }

    /// Most bytes of output.
    #[must_use]
    pub fn destination_bytes(&self) -> u32 {
        self.u32(48)
    }

    /// Bytes of source 2.
    pub(crate) fn source_2_bytes(&self) -> u32 {
        self.u32(52)
    }

    /// `Filter Flags`, or the second flags of a compression.
    pub(crate) fn second_operation_flags(&self) -> u32 {
        self.u32(56)
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("4 bytes"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("8 bytes"))
    }
}
