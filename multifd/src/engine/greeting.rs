//! What a main channel says before it counts as one.

use multifd_core::channel::MAIN_MAGIC;

use crate::stream::section::{COMMAND, CONFIGURATION, FULL, START};

/// The first bytes of a main channel, up to the name of the machine: header and CONFIGURATION, or the
/// first byte of another section where there is none. Whoever has said less has not said who it is.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    bytes: Vec<u8>,
    /// How many there are to be, as far as that is known.
    length: usize,
}

/// Why what begins like a main channel is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error(
        "its main channel has version {0}, and only 3 exists: the source is too old, or is none"
    )]
    Version(u32),
    #[error("its main channel goes on with {0:#04x}, which is not the start of a section")]
    Section(u8),
    #[error("its main channel names a machine by {0} bytes, and 255 is the most")]
    Machine(u32),
}

/// Magic and version: what has another version may send no more.
const HEADER: usize = 8;
/// With the first byte of a section.
const SECTION: usize = 9;
/// With the length of the machine's name, which follows.
const LENGTH: usize = 13;

const VERSION: u32 = 3;

impl Greeting {
    /// The most bytes that are wanted at once.
    pub(crate) const MOST: usize = 255;

    /// That of a connection whose magic has been read.
    pub(crate) fn new() -> Self {
        Self { bytes: MAIN_MAGIC.to_vec(), length: HEADER }
    }

    /// How many bytes are read next: no more than are certain to be of it. 0 when it is whole.
    pub(crate) fn wanted(&self) -> usize {
        self.length - self.bytes.len()
    }

    /// Takes bytes in, as many as are wanted at most.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), Unfit> {
        self.bytes.extend_from_slice(bytes);
        if self.wanted() > 0 {
            return Ok(());
        }
        match self.length {
            HEADER => match self.word(4) {
                Some(VERSION) | None => self.length = SECTION,
                Some(version) => return Err(Unfit::Version(version)),
            },
            SECTION => match self.bytes[SECTION - 1] {
                CONFIGURATION => self.length = LENGTH,
                START | FULL | COMMAND => {}
                other => return Err(Unfit::Section(other)),
            },
            LENGTH => {
                let length = self.word(SECTION).unwrap_or_default();
                let name = u8::try_from(length).map_err(|_| Unfit::Machine(length))?;
                self.length += usize::from(name);
            }
            _ => {}
        }
        Ok(())
    }

    /// All bytes, from the magic on.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds what follows the magic, at most `step` bytes at a time. Returns the greeting's length, or
    /// none where it wants more.
    fn greet(mut bytes: &[u8], step: usize) -> Result<Option<usize>, Unfit> {
        let mut greeting = Greeting::new();
        while greeting.wanted() > 0 {
            let count = greeting.wanted().min(step).min(bytes.len());
            if count == 0 {
                return Ok(None);
            }
            greeting.add(&bytes[..count])?;
            bytes = &bytes[count..];
        }
        Ok(Some(greeting.into_bytes().len()))
    }

    #[test]
    fn it_ends_with_the_machines_name_or_in_the_first_byte_of_another_section() {
        for step in [1, 2, 5, 100] {
            let whole = b"\0\0\0\x03\x07\0\0\0\x02pc\x08\0\x01";
            assert_eq!(greet(whole, step), Ok(Some(15)));
            for end in 0..11 {
                assert_eq!(greet(&whole[..end], step), Ok(None), "{end}");
            }
            assert_eq!(greet(b"\0\0\0\x03\x07\0\0\0\0\x01", step), Ok(Some(13)));
            for section in [START, FULL, COMMAND] {
                let bytes = [0, 0, 0, 3, section, 9, 9, 9, 9, 9];
                assert_eq!(greet(&bytes, step), Ok(Some(9)));
            }
        }
    }

    #[test]
    fn what_is_no_main_channel_is_said_as_soon_as_it_shows() {
        for step in [1, 4, 100] {
            assert_eq!(greet(b"\0\0\0\x02", step), Err(Unfit::Version(2)));
            assert_eq!(greet(b"\0\0\0\x03G", step), Err(Unfit::Section(b'G')));
            assert_eq!(greet(b"\0\0\0\x03\x07\0\0\x01\0", step), Err(Unfit::Machine(256)));
        }
    }
}
