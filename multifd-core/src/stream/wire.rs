//! The numbers of the migration stream.

use super::{StreamErrorKind, input};

pub(super) const MAGIC: [u8; 4] = *b"QEVM";
pub(super) const VERSION: u32 = 3;

/// The byte that says what comes next.
pub mod section {
    /// The end of the sections.
    pub const EOF: u8 = 0x00;
    /// The first part of a section that comes in parts.
    pub const START: u8 = 0x01;
    /// A later part.
    pub const PART: u8 = 0x02;
    /// The last part.
    pub const END: u8 = 0x03;
    /// A section that comes at once: the state of a device.
    pub const FULL: u8 = 0x04;
    /// A subsection, here of CONFIGURATION.
    pub const SUBSECTION: u8 = 0x05;
    /// The VMDESCRIPTION, behind the EOF.
    pub const DESCRIPTION: u8 = 0x06;
    /// CONFIGURATION.
    pub const CONFIGURATION: u8 = 0x07;
    /// A command.
    pub const COMMAND: u8 = 0x08;
    /// What ends a section of the four kinds above.
    pub const FOOTER: u8 = 0x7e;
}

/// What a COMMAND says; the ones that are supported.
pub(super) mod command {
    use crate::stream::StreamErrorKind;

    pub(in crate::stream) const OPEN_RETURN_PATH: u16 = 1;
    pub(in crate::stream) const PING: u16 = 2;
    pub(in crate::stream) const POSTCOPY_ADVISE: u16 = 3;
    pub(in crate::stream) const SWITCHOVER_START: u16 = 11;

    /// The lengths of data that the command with this number may have; `None` if there is none.
    pub(in crate::stream) fn lengths(number: u16) -> Option<&'static [u16]> {
        Some(match number {
            OPEN_RETURN_PATH | SWITCHOVER_START => &[0],
            PING => &[4],
            POSTCOPY_ADVISE => &[0, 16],
            // Refused by their names.
            4 | 5 | 8 | 9 => &[0],
            7 => &[4],
            _ => return None,
        })
    }

    /// Whether a source says this when it switches to postcopy: LISTEN, RUN, `RAM_DISCARD`, PACKAGED.
    pub(in crate::stream) fn starts_postcopy(number: u16) -> bool {
        matches!(number, 4..=7)
    }

    /// Why a command with this number and length of data is refused.
    pub(in crate::stream) fn refusal(number: u16, length: u16) -> StreamErrorKind {
        let (name, capability) = match number {
            OPEN_RETURN_PATH | PING | POSTCOPY_ADVISE | SWITCHOVER_START => {
                return StreamErrorKind::Length {
                    what: "a COMMAND's data",
                    length: u64::from(length),
                    allowed: "4 for PING, 0 or 16 for POSTCOPY_ADVISE and 0 for OPEN_RETURN_PATH and \
                              SWITCHOVER_START",
                };
            }
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
