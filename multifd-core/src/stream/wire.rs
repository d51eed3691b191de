//! The numbers of the migration stream.

use super::{StreamErrorKind, input};

pub(super) const MAGIC: [u8; 4] = *b"QEVM";
pub(super) const VERSION: u32 = 3;

/// The byte that says what comes next.
pub(crate) mod section {
    pub(crate) const EOF: u8 = 0x00;
    pub(crate) const START: u8 = 0x01;
    pub(crate) const PART: u8 = 0x02;
    pub(crate) const END: u8 = 0x03;
    pub(crate) const FULL: u8 = 0x04;
    pub(crate) const SUBSECTION: u8 = 0x05;
    pub(crate) const DESCRIPTION: u8 = 0x06;
    pub(crate) const CONFIGURATION: u8 = 0x07;
    pub(crate) const COMMAND: u8 = 0x08;
    pub(crate) const FOOTER: u8 = 0x7e;
}

/// What a COMMAND says; the ones that are supported.
pub(super) mod command {
    use crate::stream::StreamErrorKind;

    pub(in crate::stream) const OPEN_RETURN_PATH: u16 = 1;
    pub(in crate::stream) const PING: u16 = 2;
    pub(in crate::stream) const SWITCHOVER_START: u16 = 11;

    /// Why a command with this number and length of data is none of them.
    pub(in crate::stream) fn refusal(number: u16, length: u16) -> StreamErrorKind {
        let (name, capability) = match number {
            OPEN_RETURN_PATH | PING | SWITCHOVER_START => {
                return StreamErrorKind::Length {
                    what: "a COMMAND's data",
                    length: u64::from(length),
                    allowed: "4 for PING and 0 for OPEN_RETURN_PATH and SWITCHOVER_START",
                };
            }
            3 => ("POSTCOPY_ADVISE", "postcopy-ram"),
            4 => ("POSTCOPY_LISTEN", "postcopy-ram"),
            5 => ("POSTCOPY_RUN", "postcopy-ram"),
            6 => ("POSTCOPY_RAM_DISCARD", "postcopy-ram"),
            7 => ("PACKAGED", "postcopy-ram"),
            8 => ("ENABLE_COLO", "x-colo"),
            9 => ("POSTCOPY_RESUME", "postcopy-ram"),
            10 => ("RECV_BITMAP", "postcopy-ram"),
            _ => return StreamErrorKind::UnknownCommand(number),
        };
        StreamErrorKind::UnsupportedCommand { number, name, capability }
    }
}

/// The name and the version of the one section that comes as START, PART and END.
pub(super) const RAM: &str = "ram";
pub(super) const RAM_VERSION: u32 = 4;

/// The page size of a source that does not say otherwise.
pub(super) const DEFAULT_PAGE_SIZE: u64 = 4096;

/// The page sizes that are supported, as powers of two: 4 to 64 KiB. From 4 KiB on, the low bits of
/// an address have room for all flags.
pub(super) const PAGE_BITS: [u32; 3] = [12, 14, 16];

/// Whether `bytes` is one of [`PAGE_BITS`]' sizes.
pub(super) fn is_page_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && PAGE_BITS.contains(&bytes.trailing_zeros())
}

/// Appends a length byte and `name`; an error where the name could not be read back.
pub(super) fn put_name(
    out: &mut Vec<u8>,
    name: &str,
    what: &'static str,
) -> Result<(), StreamErrorKind> {
    let length = u8::try_from(name.len()).map_err(|_| StreamErrorKind::Length {
        what,
        length: name.len() as u64,
        allowed: "1 to 255",
    })?;
    input::name(name.as_bytes(), what)?;
    out.push(length);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}
