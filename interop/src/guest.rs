//! What can be said of the guest of [`firmware`](crate::firmware) from outside.

use crate::error::Error;
use crate::firmware::{COUNTER, DIRTIED, TOGGLED};
use crate::qemu::Qemu;
use crate::wait::wait_until;

const PAGE: usize = 4096;

impl Qemu {
    /// The number of rounds that the guest has made.
    ///
    /// # Errors
    /// QEMU does not say.
    pub fn counter(&mut self) -> Result<u32, Error> {
        let bytes = self.memory(COUNTER, 4)?;
        let bytes = bytes.try_into();
        bytes.map(u32::from_le_bytes).map_err(|_| Error::Protocol("no counter".to_owned()))
    }

    /// Waits until the guest has filled its memory, and made some rounds more than it has now.
    ///
    /// # Errors
    /// It stands still.
    pub fn goes_on(&mut self) -> Result<(), Error> {
        let before = self.counter()?;
        wait_until("the guest goes on", || {
            Ok((self.counter()?.wrapping_sub(before) >= 4).then_some(()))
        })
    }
}

/// The first page that differs and how many do, in words; `None` where the memories are equal.
pub fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected.len() != found.len() {
        return Some(format!("{} bytes in place of {}", found.len(), expected.len()));
    }
    let pages = expected.chunks(PAGE).zip(found.chunks(PAGE)).enumerate();
    let differing: Vec<_> = pages.filter(|(_, (one, other))| one != other).collect();
    let (page, (one, other)) = differing.first()?;
    let at = one.iter().zip(*other).position(|(one, other)| one != other).unwrap_or_default();
    Some(format!(
        "{} pages differ, the first at {:#x}, where it has {:02x?} in place of {:02x?}",
        differing.len(),
        page * PAGE + at,
        &other[at..(at + 8).min(other.len())],
        &one[at..(at + 8).min(one.len())],
    ))
}

/// Memory without what the guest changes: those pages are made zero.
pub fn unchanging(mut ram: Vec<u8>) -> Vec<u8> {
    for range in [COUNTER..COUNTER + PAGE as u32, DIRTIED, TOGGLED] {
        ram[range.start as usize..range.end as usize].fill(0);
    }
    ram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::END;

    #[test]
    fn memories_that_differ_are_told_by_the_first_byte_and_the_number_of_pages() {
        let one = vec![0; 3 * PAGE];
        assert_eq!(difference(&one, &one), None);
        let mut other = one.clone();
        (other[PAGE + 7], other[PAGE + 8], other[2 * PAGE]) = (1, 1, 1);
        let said = difference(&one, &other).unwrap_or_default();
        assert!(said.starts_with("2 pages differ, the first at 0x1007, "), "{said}");
        assert!(difference(&one, &one[PAGE..]).is_some());
    }

    #[test]
    fn only_what_the_guest_changes_is_passed_over() {
        let ram = unchanging(vec![1; END as usize]);
        for (address, kept) in [(COUNTER, 0), (COUNTER + 4096, 1), (DIRTIED.end - 1, 0)] {
            assert_eq!(ram[address as usize], kept, "{address:#x}");
        }
    }
}
