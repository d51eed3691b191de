//! The status and error codes of the completion record.

/// How a descriptor ended: the completion record's field `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// All is done.
    Success = 0x01,
    /// Memory that was to be read is not there. Nothing has been done.
    ReadPageFault = 0x03,
    /// The data cannot be worked on, for the reason in the field `Error Code`: a [`DataError`].
    DataError = 0x0a,
    /// The destination is full; what is needed to go on is in the AECS.
    OutputOverflow = 0x0b,
    /// There is no such operation.
    UnsupportedOpcode = 0x10,
    /// A flag of the descriptor is set that is reserved, or whose value is.
    InvalidFlags = 0x11,
    /// A reserved field is not 0.
    ReservedField = 0x12,
    /// A size is 0 that must not be, is above the largest transfer, or is not that of an AECS.
    InvalidTransferSize = 0x13,
    /// Two buffers overlap of which one is written.
    OverlappingBuffers = 0x16,
    /// The completion record's address is not a multiple of 64.
    UnalignedRecord = 0x1b,
    /// The AECS's address or size is not a multiple of 32.
    MisalignedAecs = 0x1c,
    /// A flag of the operation is set that is reserved, or not supported.
    InvalidOperationFlags = 0x30,
    /// A filter flag is set where nothing is filtered.
    InvalidFilterFlags = 0x31,
    /// Memory that was to be written is not there. A part of the output may have been written.
    WritePageFault = 0x83,
}

/// What is wrong with the data: the completion record's field `Error Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DataError {
    /// The input ended within a block's header, and what is there of it does not fit into the AECS.
    HeaderTooBig = 1,
    /// Bits that are no code of the code lengths' code.
    BadCodeLengthCode = 2,
    /// The first code length of literals and lengths repeats the one before.
    FirstLiteralLengthRepeats = 3,
    /// The first code length of distances repeats the one before.
    FirstDistanceLengthRepeats = 4,
    /// No literal or length has a code.
    NoLiteralCodes = 5,
    /// A run of code lengths goes past those of literals and lengths.
    TooManyLiteralLengths = 6,
    /// A run of code lengths goes past those of distances.
    TooManyDistanceLengths = 7,
    /// The code of code lengths has more codes than there are.
    BadCodeLengthLengths = 8,
    /// The code of literals and lengths has more codes than there are.
    BadLiteralLengths = 9,
    /// The code of distances has more codes than there are.
    BadDistanceLengths = 10,
    /// Bits that are no code of a literal or length.
    BadLiteralCode = 11,
    /// Bits that are no code of a distance.
    BadDistanceCode = 12,
    /// A block of type 3.
    BadBlockType = 13,
    /// A stored block's length and its complement do not fit.
    BadStoredLength = 14,
    /// The input does not end with the end of a block that was asked for.
    NoEndOfBlock = 15,
    /// A distance beyond the history of 4096 bytes.
    DistanceTooFar = 17,
    /// A distance to before the start of the output.
    DistanceBeforeStart = 18,
    /// The AECS has a value that means nothing.
    BadAecs = 22,
    /// The destination is too small, and the operation cannot be continued.
    OutputTooSmall = 25,
    /// A symbol is needed that has no code in the AECS.
    NoCode = 30,
    /// A header with more than 286 codes of literals and lengths.
    TooManyLiteralCodes = 35,
    /// A header with more than 30 codes of distances.
    TooManyDistanceCodes = 36,
}
