//! A descriptor, looked into: what is to be done, or why it is refused.

use crate::aecs;
use crate::checksum::Crc;
use crate::descriptor::Descriptor;
use crate::status::Status;

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Nothing,
    Compress(Compress),
    Decompress(Decompress),
}

/// Opcode 0x43.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compress {
    pub(crate) buffers: Buffers,
    /// `Stats Mode`: counts symbols instead of writing their codes.
    pub(crate) statistics: bool,
    /// `Flush Output`: fills the last byte instead of keeping its bits in the AECS.
    pub(crate) flush: bool,
    /// `End Processing`.
    pub(crate) ending: Ending,
    /// `Generate All Literals`.
    pub(crate) literals_only: bool,
}

/// What a compression appends to its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Nothing,
    EndOfBlock,
    /// The end of the block, and an empty stored block.
    StoredBlock {
        last: bool,
    },
}

/// Opcode 0x42.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decompress {
    pub(crate) buffers: Buffers,
    /// `Stop on EOB`.
    pub(crate) stop: bool,
    /// `Check for EOB`.
    pub(crate) check: bool,
    /// `Select BFinal EOB`: it is the last block's end that counts for the two above.
    pub(crate) last_block: bool,
    /// `Ignore End Bits`: how many of the last byte do not count.
    pub(crate) ignored_bits: u32,
    /// `Suppress Output`.
    pub(crate) suppress: bool,
}

/// What any operation on data works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffers {
    pub(crate) source: Span,
    pub(crate) destination: Span,
    pub(crate) aecs: Aecs,
    pub(crate) crc: Crc,
}

/// Where the AECS is read and written (source 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aecs {
    /// `Source 2 Transfer Size`.
    pub(crate) bytes: u32,
    pub(crate) read: Option<u64>,
    pub(crate) write: Option<(u64, When)>,
}

/// When the AECS is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    OnOverflow,
}

/// Memory that a descriptor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) address: u64,
    pub(crate) bytes: u32,
}

/// Why a descriptor is refused before anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: Status,
    /// The flags that are not allowed.
    pub(crate) flags: u64,
}

impl Operation {
    /// Looks into a descriptor for a device whose largest transfer is of `largest` bytes.
    pub(crate) fn parse(descriptor: &Descriptor, largest: u32) -> Result<Self, Refusal> {
        let opcode = Opcode::parse(descriptor.opcode())?;
        if descriptor.flags() & COMPLETION_VALID != 0 && descriptor.completion_address() % 64 != 0 {
            return Err(Status::UnalignedRecord.into());
        }
        let flags = Flags::parse(descriptor, opcode)?;
        reserved_fields(descriptor, opcode, flags)?;
        match opcode {
            Opcode::NoOperation => Ok(Self::Nothing),
            Opcode::Compress => Compress::parse(descriptor, flags, largest).map(Self::Compress),
            Opcode::Decompress => {
                Decompress::parse(descriptor, flags, largest).map(Self::Decompress)
            }
        }
    }
}

impl Compress {
    fn parse(descriptor: &Descriptor, flags: Flags, largest: u32) -> Result<Self, Refusal> {
        let given = descriptor.operation_flags();
        allowed(given.into(), COMPRESS_FLAGS, Status::InvalidOperationFlags)?;
        let buffers = Buffers::parse(descriptor, flags, largest, &[aecs::COMPRESS_BYTES])?;
        buffers.apart(true)?;
        Ok(Self {
            buffers,
            statistics: given & 1 != 0,
            flush: given & 2 != 0,
            ending: match given >> 2 & 3 {
                0 => Ending::Nothing,
                1 => Ending::EndOfBlock,
                last => Ending::StoredBlock { last: last == 3 },
            },
            literals_only: given & 0x10 != 0,
        })
    }
}

impl Decompress {
    fn parse(descriptor: &Descriptor, flags: Flags, largest: u32) -> Result<Self, Refusal> {
        let given = descriptor.operation_flags();
        allowed(given.into(), DECOMPRESS_FLAGS, Status::InvalidOperationFlags)?;
        if given & 1 == 0 {
            // Without `Enable Decompression` nothing is left to do.
            return Err(Refusal { status: Status::InvalidOperationFlags, flags: 1 });
        }
        let filters = descriptor.second_operation_flags();
        allowed(filters, 0, Status::InvalidFilterFlags)?;
        let sizes = [aecs::DECOMPRESS_BYTES, aecs::WITHOUT_HISTORY_BYTES];
        let buffers = Buffers::parse(descriptor, flags, largest, &sizes)?;
        let suppress = given & 0x200 != 0;
        buffers.apart(!suppress)?;
        Ok(Self {
            buffers,
            stop: given & 4 != 0,
            check: given & 8 != 0,
            last_block: given & 0x10 != 0,
            ignored_bits: u32::from(given >> 6 & 7),
            suppress,
        })
    }
}

impl Buffers {
    fn parse(
        descriptor: &Descriptor,
        flags: Flags,
        largest: u32,
        aecs_sizes: &[u32],
    ) -> Result<Self, Refusal> {
        let source = Span { address: descriptor.source(), bytes: descriptor.source_bytes() };
        let destination =
            Span { address: descriptor.destination(), bytes: descriptor.destination_bytes() };
        let nothing = source.bytes == 0 && destination.bytes == 0;
        if nothing || source.bytes > largest || destination.bytes > largest {
            return Err(Status::InvalidTransferSize.into());
        }
        let aecs = Aecs::parse(descriptor, flags, aecs_sizes)?;
        Ok(Self { source, destination, aecs, crc: flags.crc })
    }

    /// Nothing that is written may overlap anything else.
    fn apart(&self, output: bool) -> Result<(), Refusal> {
        let aecs = |address| Span { address, bytes: self.aecs.bytes };
        let read = self.aecs.read.map(aecs);
        let written = self.aecs.write.map(|(address, _)| aecs(address));
        let destination = output.then_some(self.destination);
        let pairs = [
            (destination, Some(self.source)),
            (destination, read),
            (destination, written),
            (written, Some(self.source)),
        ];
        let overlap = pairs.iter().any(|pair| match pair {
            (Some(one), Some(other)) => one.overlaps(other),
            _ => false,
        });
        if overlap { Err(Status::OverlappingBuffers.into()) } else { Ok(()) }
    }
}

impl Aecs {
    /// There are two of them, one behind the other: one is read, the other is written, and the flag
    /// `AECS R/W Toggle Selector` says which.
    fn parse(descriptor: &Descriptor, flags: Flags, sizes: &[u32]) -> Result<Self, Refusal> {
        let (address, bytes) = (descriptor.source_2(), descriptor.source_2_bytes());
        if !flags.read_aecs && flags.write_aecs.is_none() {
            return Ok(Self { bytes: 0, read: None, write: None });
        }
        if address % 32 != 0 || bytes % 32 != 0 {
            return Err(Status::MisalignedAecs.into());
        }
        if !sizes.contains(&bytes) {
            return Err(Status::InvalidTransferSize.into());
        }
        let second = address.wrapping_add(bytes.into());
        let (read, written) = if flags.toggled { (second, address) } else { (address, second) };
        Ok(Self {
            bytes,
            read: flags.read_aecs.then_some(read),
            write: flags.write_aecs.map(|when| (written, when)),
        })
    }
}

impl Span {
    fn overlaps(&self, other: &Self) -> bool {
        let end = |span: &Self| u128::from(span.address) + u128::from(span.bytes);
        self.bytes > 0
            && other.bytes > 0
            && u128::from(self.address) < end(other)
            && u128::from(other.address) < end(self)
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status, flags: 0 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opcode {
    NoOperation,
    Decompress,
    Compress,
}

impl Opcode {
    fn parse(opcode: u8) -> Result<Self, Refusal> {
        match opcode {
            NO_OPERATION => Ok(Self::NoOperation),
            DECOMPRESS => Ok(Self::Decompress),
            COMPRESS => Ok(Self::Compress),
            _ => Err(Status::UnsupportedOpcode.into()),
        }
    }
}

/// The opcodes.
pub(crate) const NO_OPERATION: u8 = 0;
pub(crate) const DECOMPRESS: u8 = 0x42;
pub(crate) const COMPRESS: u8 = 0x43;

/// Flags of any descriptor.
pub(crate) const BLOCK_ON_FAULT: u32 = 1 << 1;
pub(crate) const COMPLETION_VALID: u32 = 1 << 2;
pub(crate) const COMPLETION_REQUESTED: u32 = 1 << 3;
const INTERRUPT_REQUESTED: u32 = 1 << 4;
const ANY_FLAGS: u32 =
    BLOCK_ON_FAULT | COMPLETION_VALID | COMPLETION_REQUESTED | INTERRUPT_REQUESTED;
/// Also cache control and strict ordering, reading and writing the AECS, CRC select, the toggle.
const DATA_FLAGS: u32 = ANY_FLAGS | 1 << 8 | 1 << 13 | 0xf << 16 | 1 << 21 | 1 << 22;
/// Statistics, flush, what to append, literals only. Big endian (bit 5) and indexing (6 to 8) are
/// not supported, the others are reserved.
const COMPRESS_FLAGS: u32 = 0b1_1111;
/// Enable, flush, stop, check, last block, ignored bits, suppress. Big endian (bit 5) and indexing
/// (10 to 12) are not supported, the others are reserved.
const DECOMPRESS_FLAGS: u32 = 0b11_1101_1111;

/// The flags that all operations share.
#[derive(Clone, Copy)]
struct Flags {
    interrupt: bool,
    read_aecs: bool,
    write_aecs: Option<When>,
    crc: Crc,
    toggled: bool,
}

impl Flags {
    fn parse(descriptor: &Descriptor, opcode: Opcode) -> Result<Self, Refusal> {
        let flags = descriptor.flags();
        let known = if opcode == Opcode::NoOperation { ANY_FLAGS } else { DATA_FLAGS };
        allowed(flags, known, Status::InvalidFlags)?;
        let invalid = |flags: u32| Refusal { status: Status::InvalidFlags, flags: flags.into() };
        if flags & COMPLETION_REQUESTED != 0 && flags & COMPLETION_VALID == 0 {
            return Err(invalid(COMPLETION_REQUESTED));
        }
        let (read, write) = (flags >> 16 & 3, flags >> 18 & 3);
        if read > 1 {
            return Err(invalid(read << 16));
        }
        let write_aecs = match write {
            0 => None,
            1 => Some(When::Always),
            2 if opcode == Opcode::Decompress => Some(When::OnOverflow),
            _ => return Err(invalid(write << 18)),
        };
        Ok(Self {
            interrupt: flags & INTERRUPT_REQUESTED != 0,
            read_aecs: read == 1,
            write_aecs,
            crc: if flags & 1 << 21 == 0 { Crc::Crc32 } else { Crc::Crc32c },
            toggled: flags & 1 << 22 != 0,
        })
    }
}

fn allowed(given: u32, known: u32, status: Status) -> Result<(), Refusal> {
    match given & !known {
        0 => Ok(()),
        flags => Err(Refusal { status, flags: flags.into() }),
    }
}

fn reserved_fields(descriptor: &Descriptor, opcode: Opcode, flags: Flags) -> Result<(), Refusal> {
    let bytes = &descriptor.0;
    let handle = !flags.interrupt && bytes[36..38] != [0; 2];
    let rest = match opcode {
        Opcode::NoOperation => bytes[16..36].iter().chain(&bytes[38..]).any(|byte| *byte != 0),
        Opcode::Compress => bytes[56..].iter().any(|byte| *byte != 0),
        Opcode::Decompress => false,
    };
    // Bits 20 to 30 of the first word, between PASID and privilege.
    let first = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & 0x7ff0_0000 != 0;
    if handle || rest || first { Err(Status::ReservedField.into()) } else { Ok(()) }
}
