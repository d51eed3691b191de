//! The guest that is migrated: its memory, and how it dirties its pages.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use multifd::PageSet;
use multifd::core::PageSize;
use multifd::core::ram::{Ram, RamBlock, is_zero};
use multifd::core::wire::BlockName;
use multifd_conformance::made_up::{self, Noise};

use crate::failure::Failure;
use crate::file;
use crate::mapping::{self, Access};
use crate::page::{self, PAGE};
use crate::size::Bytes;

/// One page in this number is dirtied between two rounds.
const DIRTY: u64 = 20;

/// A guest's memory as one block, which can be dirtied and reset.
#[derive(Debug)]
pub(super) struct Guest {
    origin: Origin,
    ram: Arc<Ram>,
    dirtied: Vec<u64>,
}

/// Where the memory's original content comes from.
#[derive(Debug)]
enum Origin {
    MadeUp { seed: u64 },
    File { file: File, name: String },
}

impl Guest {
    /// A guest with `bytes` bytes of memory made up from `seed`.
    pub(super) fn made_up(bytes: u64, seed: u64) -> Result<Self, Failure> {
        mapping::check_pages(Path::new("--size"), bytes)?;
        // In the end, about half of it is in use on each side.
        let machine = mapping::memory_of_this_machine();
        if bytes > machine {
            let (bytes, machine) = (Bytes(bytes), Bytes(machine));
            return Err(Failure::new(format!(
                "cannot make up {bytes} of memory: this machine has {machine}; use a smaller --size"
            )));
        }
        let memory = mapping::anonymous(bytes).map_err(Failure::new)?;
        let ram = ram(RamBlock::new(BlockName::new("pc.ram")?, memory))?;
        let guest = Self { origin: Origin::MadeUp { seed }, ram, dirtied: Vec::new() };
        for index in 0..guest.pages() {
            // The memory is new: its pages are zero, and take no room until they are written.
            let page = guest.original(index)?;
            if !page::is_zero(&page) {
                guest.write(index, &page);
            }
        }
        Ok(guest)
    }

    /// A guest with the memory that is in a file. The file is not changed.
    pub(super) fn of_file(path: &Path) -> Result<Self, Failure> {
        let (file, bytes) = file::open(path)?;
        mapping::check_pages(path, bytes)?;
        let again = file.try_clone();
        let again = again
            .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
        let memory = mapping::of_file(path, again, 0, bytes, Access::PrivateWrite)?;
        let ram = ram(RamBlock::new(BlockName::new("pc.ram")?, memory))?;
        let origin = Origin::File { file, name: path.display().to_string() };
        Ok(Self { origin, ram, dirtied: Vec::new() })
    }

    pub(super) fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    pub(super) fn pages(&self) -> u64 {
        self.ram.bytes() / PAGE as u64
    }

    /// What the memory is, for people.
    pub(super) fn describe(&self) -> String {
        match &self.origin {
            Origin::MadeUp { seed } => format!("made up from seed {seed}"),
            Origin::File { name, .. } => name.clone(),
        }
    }

    /// The number of zero pages.
    pub(super) fn zero_pages(&self) -> u64 {
        let block = &self.ram.blocks()[0];
        (0..self.pages()).filter(|index| is_zero(block.slice(index * PAGE as u64, PAGE))).count()
            as u64
    }

    /// Writes some pages, as a guest does between round `round` and the next. Some become zero, some
    /// get data, some the content of another page. Returns these pages. They are always the same for
    /// a round.
    pub(super) fn dirty(&mut self, round: u64) -> Result<PageSet, Failure> {
        let mut dirtied = PageSet::none(&self.ram);
        for index in 0..self.pages() {
            let mut noise = Noise::new(round, index);
            if noise.below(DIRTY) != 0 {
                continue;
            }
            let page = match noise.below(4) {
                0 => vec![0; PAGE],
                1 => {
                    let mut page = vec![0; PAGE];
                    made_up::fill_with_data(&mut page, round, index);
                    page
                }
                _ => self.original(noise.below(self.pages()))?,
            };
            self.write(index, &page);
            self.dirtied.push(index);
            dirtied.insert(0, index * PAGE as u64)?;
        }
        Ok(dirtied)
    }

    /// Restores the memory's original content.
    pub(super) fn reset(&mut self) -> Result<(), Failure> {
        for index in std::mem::take(&mut self.dirtied) {
            self.write(index, &self.original(index)?);
        }
        Ok(())
    }

    fn original(&self, index: u64) -> Result<Vec<u8>, Failure> {
        let mut page = vec![0; PAGE];
        match &self.origin {
            Origin::MadeUp { seed } => made_up::fill(&mut page, *seed, index),
            Origin::File { file, name } => {
                let read = file.read_exact_at(&mut page, index * PAGE as u64);
                read.map_err(|error| Failure::io(format!("cannot read {name}"), &error))?;
            }
        }
        Ok(page)
    }

    fn write(&self, index: u64, page: &[u8]) {
        self.ram.blocks()[0].write(index * PAGE as u64, page);
    }
}

fn ram(block: RamBlock) -> Result<Arc<Ram>, Failure> {
    Ok(Arc::new(Ram::new(PageSize::Kib4, [block])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: u64 = 4000;

    fn content(guest: &Guest) -> Vec<u8> {
        let mut bytes = vec![0; guest.ram.bytes() as usize];
        guest.ram.blocks()[0].slice(0, bytes.len()).copy_to(&mut bytes[..]);
        bytes
    }

    #[test]
    fn a_guest_dirties_the_pages_that_it_returns_and_is_reset() {
        let mut guest = Guest::made_up(PAGES * PAGE as u64, 1).unwrap();
        let before = content(&guest);
        let dirtied = guest.dirty(1).unwrap();
        let after = content(&guest);
        let pages = || before.chunks(PAGE).zip(after.chunks(PAGE));
        let changed = pages().filter(|(before, after)| before != after).count() as u64;
        assert!((PAGES / 40..PAGES / 10).contains(&dirtied.len()));
        assert!(changed <= dirtied.len() && changed > dirtied.len() / 2);
        assert!(pages().any(|(before, after)| page::is_zero(before) && !page::is_zero(after)));
        assert!(pages().any(|(before, after)| !page::is_zero(before) && page::is_zero(after)));

        guest.dirty(2).unwrap();
        assert!(content(&guest) != after);
        guest.reset().unwrap();
        assert!(content(&guest) == before);
    }

    #[test]
    fn a_guest_of_a_file_leaves_the_file_as_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; 64 * PAGE];
        bytes.chunks_mut(PAGE).enumerate().for_each(|(at, page)| page.fill(at as u8));
        std::fs::write(file.path(), &bytes).unwrap();
        let mut guest = Guest::of_file(file.path()).unwrap();
        assert!(content(&guest) == bytes);
        assert_eq!(guest.zero_pages(), 1);
        for round in 1..10 {
            guest.dirty(round).unwrap();
        }
        assert!(content(&guest) != bytes);
        assert!(std::fs::read(file.path()).unwrap() == bytes);
        guest.reset().unwrap();
        assert!(content(&guest) == bytes);
    }

    #[test]
    fn a_size_that_is_not_whole_pages_or_too_large_is_refused() {
        for bytes in [0, 1, 4097, 1 << 62] {
            assert!(Guest::made_up(bytes, 1).is_err());
        }
    }
}
