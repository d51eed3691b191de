//! Names on the wire: 256 bytes, NUL-terminated.

use std::borrow::Borrow;
use std::fmt;

use crate::error::{PeerError, UsageError};

/// Bytes that a name takes in a packet, its NUL included.
pub(super) const NAME_BYTES: usize = 256;

/// A RAM block's name: 1 to 255 bytes of UTF-8 without a NUL, such as `pc.ram`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockName(Box<str>);

impl BlockName {
    /// The name `name`.
    ///
    /// # Errors
    /// An empty name, one over 255 bytes, and one with a NUL in it: the format cannot carry them.
    pub fn new(name: &str) -> Result<Self, UsageError> {
        if name.is_empty() || name.len() >= NAME_BYTES || name.contains('\0') {
            return Err(UsageError::BlockName { name: name.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for BlockName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Reads a NUL-terminated name. It may be empty.
pub(super) fn parse_name(field: &[u8; NAME_BYTES]) -> Result<&str, PeerError> {
    let end = field.iter().position(|&byte| byte == 0).ok_or(PeerError::NameNotTerminated)?;
    std::str::from_utf8(&field[..end]).map_err(|_| PeerError::NameNotUtf8)
}

/// Writes a name of fewer than 256 bytes.
pub(super) fn write_name(field: &mut [u8; NAME_BYTES], name: &str) {
    field[..name.len()].copy_from_slice(name.as_bytes());
    field[name.len()..].fill(0);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_is_shown_and_looked_up_as_its_text() {
        let name = BlockName::new("pc.ram").unwrap();
        assert_eq!(
            (format!("{name:>8}"), format!("{name:?}")),
            ("  pc.ram".into(), "\"pc.ram\"".into())
        );
        let names = BTreeSet::from([name]);
        assert!(names.contains("pc.ram") && !names.contains("pc.bios"));
    }

    #[test]
    fn a_name_that_the_format_cannot_carry_is_refused() {
        for name in ["", "a\0b", &"x".repeat(256)] {
            BlockName::new(name).unwrap_err();
        }
        BlockName::new(&"x".repeat(255)).unwrap();
    }
}
