//! What is around the DEFLATE stream of a gzip member (RFC 1952).

use multifd_core::Error;

/// What every member begins with: gzip's magic and the method, DEFLATE.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// FLG: nothing optional follows the header, or an extra field.
const PLAIN: u8 = 0;
const EXTRA: u8 = 4;

/// XFL: nothing is said of how it was made, or that it was made slowly, or fast.
const XFL: [u8; 3] = [0, 2, 4];

/// OS: unknown.
const OS: u8 = 0xff;

/// Bytes of a header without an extra field: magic and method, FLG, MTIME, XFL, OS.
const FIXED: usize = 10;

/// XLEN, and what the extra field begins with: the sub-field "QZ", of 8 bytes.
const EXTRA_START: [u8; 6] = [12, 0, b'Q', b'Z', 8, 0];

/// Bytes of a header with QATzip's extra field.
pub(crate) const HEADER: usize = FIXED + EXTRA_START.len() + 8;

/// Bytes behind the DEFLATE stream: CRC-32 and ISIZE.
pub(crate) const TRAILER: usize = 8;

/// What QATzip's extra field says of a member, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// What the DEFLATE stream inflates to.
    pub(crate) source: u32,
    /// The DEFLATE stream itself.
    pub(crate) deflate: u32,
}

/// The header of a member with QATzip's extra field.
pub(crate) fn header(sizes: Sizes) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..3].copy_from_slice(&MAGIC);
    header[3] = EXTRA;
    header[9] = OS;
    header[FIXED..FIXED + 6].copy_from_slice(&EXTRA_START);
    header[HEADER - 8..HEADER - 4].copy_from_slice(&sizes.source.to_le_bytes());
    header[HEADER - 4..].copy_from_slice(&sizes.deflate.to_le_bytes());
    header
}

/// Takes the header off the start of `input`. Returns what its extra field says, if it has one, and
/// what comes behind the header. Time and system are of no meaning here, and may be any.
///
/// # Errors
/// What is not a header, or has anything optional but QATzip's extra field.
pub(crate) fn split_header(input: &[u8]) -> Result<(Option<Sizes>, &[u8]), Error> {
    let Some((fixed, rest)) = input.split_first_chunk::<FIXED>() else {
        return Err(Error::payload("it ends in the header of a gzip member"));
    };
    if fixed[..3] != MAGIC {
        let what = format!("a gzip member begins with {:02x?}, not with {MAGIC:02x?}", &fixed[..3]);
        return Err(Error::payload(what));
    }
    let (flags, xfl) = (fixed[3], fixed[8]);
    if !XFL.contains(&xfl) {
        return Err(Error::payload(format!("a gzip member has XFL {xfl}, not 0, 2 or 4")));
    }
    match flags {
        PLAIN => Ok((None, rest)),
        EXTRA => split_extra(rest).map(|(sizes, rest)| (Some(sizes), rest)),
        _ => {
            let what = format!("a gzip member has the flags {flags:#04x}, not 0 or {EXTRA}");
            Err(Error::payload(what))
        }
    }
}

fn split_extra(input: &[u8]) -> Result<(Sizes, &[u8]), Error> {
    let Some((start, rest)) = input.split_first_chunk::<6>() else {
        return Err(Error::payload("it ends in the extra field of a gzip member"));
    };
    if *start != EXTRA_START {
        let what = format!(
            "a gzip member's extra field begins with {start:02x?}, not with QATzip's {EXTRA_START:02x?}"
        );
        return Err(Error::payload(what));
    }
    let split = || {
        let (source, rest) = split_u32(rest)?;
        let (deflate, rest) = split_u32(rest)?;
        Some((Sizes { source, deflate }, rest))
    };
    split().ok_or_else(|| Error::payload("it ends in the extra field of a gzip member"))
}

/// What comes behind the DEFLATE stream of a member with these bytes.
pub(crate) fn trailer(bytes: &[u8]) -> [u8; TRAILER] {
    let mut trailer = [0; TRAILER];
    trailer[..4].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    // The cast cannot truncate: a member has no more than a packet's pages.
    trailer[4..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    trailer
}

/// Takes the trailer of a member with these bytes off the start of `input`. Returns what comes behind.
///
/// # Errors
/// It is cut short, or of other bytes.
pub(crate) fn strip_trailer<'a>(bytes: &[u8], input: &'a [u8]) -> Result<&'a [u8], Error> {
    let split = split_u32(input).and_then(|(crc, rest)| Some((crc, split_u32(rest)?)));
    let Some((crc, (isize, rest))) = split else {
        return Err(Error::payload("it ends in the trailer of a gzip member"));
    };
    let found = crc32fast::hash(bytes);
    if crc != found {
        let what = format!(
            "a gzip member inflates to bytes with the CRC-32 {found:#010x}, it says {crc:#010x}"
        );
        return Err(Error::payload(what));
    }
    if isize as usize != bytes.len() {
        let found = bytes.len();
        let what = format!("a gzip member inflates to {found} bytes, its ISIZE is {isize}");
        return Err(Error::payload(what));
    }
    Ok(rest)
}

fn split_u32(input: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = input.split_first_chunk()?;
    Some((u32::from_le_bytes(*word), rest))
}
