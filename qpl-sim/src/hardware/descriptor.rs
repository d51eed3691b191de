//! Descriptors of one whole stream each, as libqpl fills them in, and the AECS of its fixed codes.

use std::sync::OnceLock;

use iaa_sim::descriptor::Descriptor;

use super::memory::DeviceMemory;
use crate::buffers::Buffers;

/// Bytes of the AECS of a decompression.
pub(crate) const DECOMPRESS_AECS_BYTES: usize = 0x1500;

/// Bytes of the AECS of a compression.
const COMPRESS_AECS_BYTES: usize = 1568;

const COMPRESS: u8 = 0x43;
const DECOMPRESS: u8 = 0x42;

/// Bits of the flags that all operations have.
const BLOCK_ON_FAULT: u32 = 1 << 1;
const RECORD_VALID: u32 = 1 << 2;
const RECORD_REQUESTED: u32 = 1 << 3;
const READ_AECS: u32 = 1 << 16;
const WRITE_AECS_ON_OVERFLOW: u32 = 2 << 18;

/// Flush output, and append the end of the block.
const COMPRESS_WHOLE: u16 = 0x2 | 1 << 2;
/// Decompress, flush output, stop at the end of the final block, and insist on it.
const DECOMPRESS_WHOLE: u16 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10;
const SUPPRESS_OUTPUT: u16 = 0x200;

/// Where an operation's completion record and AECS are, where a device does it.
#[derive(Clone, Copy)]
pub(crate) struct OnDevice<'a> {
    pub(crate) memory: &'a DeviceMemory,
    pub(crate) blocks_on_fault: bool,
}

/// Compresses into one final block with fixed codes.
pub(crate) fn compress(buffers: &Buffers, device: Option<OnDevice<'_>>) -> Descriptor {
    let mut fields = Fields::new(COMPRESS, READ_AECS, COMPRESS_WHOLE, device);
    fields.buffers(buffers.input, buffers.input_bytes, buffers.output, buffers.output_bytes);
    fields.aecs(compress_aecs(), COMPRESS_AECS_BYTES);
    fields.0
}

/// Decompresses a stream up to the end of its final block.
pub(crate) fn decompress(buffers: &Buffers, device: Option<OnDevice<'_>>) -> Descriptor {
    let write = if device.is_some() { WRITE_AECS_ON_OVERFLOW } else { 0 };
    let mut fields = Fields::new(DECOMPRESS, write, DECOMPRESS_WHOLE, device);
    fields.buffers(buffers.input, buffers.input_bytes, buffers.output, buffers.output_bytes);
    if let Some(device) = device {
        fields.aecs(device.memory.aecs_address(), DECOMPRESS_AECS_BYTES);
    }
    fields.0
}

/// Decompresses a stream that was compressed for its checksum alone.
pub(crate) fn verify(
    stream: *const u8,
    stream_bytes: u32,
    behind: *mut u8,
    device: OnDevice<'_>,
) -> Descriptor {
    let flags = DECOMPRESS_WHOLE | SUPPRESS_OUTPUT;
    let mut fields = Fields::new(DECOMPRESS, 0, flags, Some(device));
    // A device refuses a descriptor with no bytes on either side.
    fields.buffers(stream, stream_bytes, behind, u32::from(stream_bytes == 0));
    fields.0
}

struct Fields(Descriptor);

impl Fields {
    fn new(opcode: u8, flags: u32, operation_flags: u16, device: Option<OnDevice<'_>>) -> Self {
        let mut fields = Self(Descriptor([0; 64]));
        let mut flags = flags;
        if let Some(OnDevice { memory, blocks_on_fault }) = device {
            flags |= RECORD_VALID | RECORD_REQUESTED;
            flags |= if blocks_on_fault { BLOCK_ON_FAULT } else { 0 };
            fields.put(8, memory.record_address());
        }
        fields.put_u32(4, flags);
        let Descriptor(bytes) = &mut fields.0;
        bytes[7] = opcode;
        bytes[38..40].copy_from_slice(&operation_flags.to_le_bytes());
        fields
    }

    fn buffers(&mut self, input: *const u8, input_bytes: u32, output: *mut u8, output_bytes: u32) {
        self.put(16, input.expose_provenance() as u64);
        self.put(24, output.expose_provenance() as u64);
        self.put_u32(32, input_bytes);
        self.put_u32(48, output_bytes);
    }

    fn aecs(&mut self, address: u64, bytes: usize) {
        self.put(40, address);
        self.put_u32(52, bytes as u32);
    }

    fn put(&mut self, at: usize, value: u64) {
        self.0.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.0.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// The address of the AECS of a stream that is one final block with fixed codes. It is read alone, so all jobs
/// have the same.
fn compress_aecs() -> u64 {
    #[repr(align(64))]
    struct Aligned([u8; COMPRESS_AECS_BYTES]);
    static AECS: OnceLock<Aligned> = OnceLock::new();
    AECS.get_or_init(|| Aligned(fixed_codes())).0.as_ptr().expose_provenance() as u64
}

fn fixed_codes() -> [u8; COMPRESS_AECS_BYTES] {
    const BITS_AT: usize = 28;
    const ACCUMULATOR_AT: usize = 32;
    const LITERALS_AT: usize = 288;
    const DISTANCES_AT: usize = LITERALS_AT + 4 * 288;
    let mut bytes = [0; COMPRESS_AECS_BYTES];
    // The header's bits are in the accumulator: a final block, of type 1.
    bytes[BITS_AT] = 3;
    bytes[ACCUMULATOR_AT] = 0b011;
    let mut code = |at: usize, code: u32, length: u32| {
        bytes[at..at + 4].copy_from_slice(&(code | length << 15).to_le_bytes());
    };
    // RFC 1951, 3.2.6.
    for symbol in 0..286 {
        let (first, first_code, length) = match symbol {
            0..144 => (0, 0x30, 8),
            144..256 => (144, 0x190, 9),
            256..280 => (256, 0, 7),
            _ => (280, 0xc0, 8),
        };
        code(LITERALS_AT + 4 * symbol as usize, first_code + symbol - first, length);
    }
    for symbol in 0..30 {
        code(DISTANCES_AT + 4 * symbol as usize, symbol, 5);
    }
    bytes
}
