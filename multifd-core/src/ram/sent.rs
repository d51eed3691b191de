//! Which pages a source has sent with data.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::page_size::PageSize;
use crate::registry::MethodDescriptor;
use crate::wire::BlockName;

/// The pages of a VM's RAM that have been sent with data in one migration, for a codec whose receivers
/// do not clear such a page where it later comes as zero
/// ([`without_zero_after_data`](crate::MethodDescriptor::without_zero_after_data)). All channels share it.
///
/// Takes 4 KiB for each 128 MiB of memory of which a page has been sent, 64 MiB at most: pages of memory
/// beyond that count as sent, so that no peer can have it take more.
#[derive(Debug, Default)]
pub struct SentPages(Mutex<Groups>);

#[derive(Debug, Default)]
struct Groups {
    blocks: HashMap<BlockName, HashMap<u64, Box<[u64; WORDS]>>>,
    count: usize,
}

/// A group has a bit for each page of the smallest size.
const UNIT: u64 = PageSize::Kib4.bytes() as u64;
const WORDS: usize = 512;
const GROUP: u64 = WORDS as u64 * u64::BITS as u64 * UNIT;

/// The most groups.
const MOST: usize = 16 << 10;

impl SentPages {
    /// No page has been sent yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the channels of a source with that codec share: none, where nothing has to be known.
    pub fn of(codec: &MethodDescriptor) -> Option<Arc<Self>> {
        (!codec.zero_after_data).then(Arc::default)
    }

    /// Notes that the pages of `block` at `offsets` (in bytes) are sent with data.
    pub fn note(&self, block: &BlockName, offsets: &[u64]) {
        let Groups { blocks, count } = &mut *self.groups();
        if !blocks.contains_key(block) {
            blocks.insert(block.clone(), HashMap::new());
        }
        let Some(groups) = blocks.get_mut(block) else { return };
        for &offset in offsets {
            let (group, word, mask) = place(offset);
            if !groups.contains_key(&group) {
                if *count == MOST {
                    continue;
                }
                *count += 1;
            }
            groups.entry(group).or_insert_with(|| Box::new([0; WORDS]))[word] |= mask;
        }
    }

    /// Whether the page of `block` at `offset` (in bytes) may have been sent with data.
    pub fn may_have(&self, block: &BlockName, offset: u64) -> bool {
        let groups = self.groups();
        let (group, word, mask) = place(offset);
        match groups.blocks.get(block).and_then(|groups| groups.get(&group)) {
            Some(words) => words[word] & mask != 0,
            None => groups.count == MOST,
        }
    }

    fn groups(&self) -> std::sync::MutexGuard<'_, Groups> {
        // Whoever panics has left bits as they were, or set.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The group of the page at `offset`, and its bit in it.
fn place(offset: u64) -> (u64, usize, u64) {
    let bit = offset % GROUP / UNIT;
    // The cast cannot truncate: a group has few words.
    (offset / GROUP, (bit / 64) as usize, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> BlockName {
        BlockName::new(name).unwrap()
    }

    #[test]
    fn a_page_that_was_sent_is_known_and_no_other() {
        let sent = SentPages::new();
        let offsets = [0, UNIT, 65 * UNIT, GROUP - UNIT, GROUP, 1 << 60];
        sent.note(&name("a"), &offsets);
        for offset in offsets {
            assert!(sent.may_have(&name("a"), offset), "{offset:#x}");
            assert!(!sent.may_have(&name("a"), offset + 2 * UNIT), "{offset:#x}");
            assert!(!sent.may_have(&name("b"), offset), "{offset:#x}");
        }
    }

    #[test]
    fn memory_without_end_takes_no_memory_without_end_and_counts_as_sent() {
        let sent = SentPages::new();
        let offsets: Vec<_> = (0..=MOST as u64).map(|group| group * GROUP).collect();
        sent.note(&name("a"), &offsets);
        assert_eq!(sent.groups().count, MOST);
        assert!(offsets.iter().all(|&offset| sent.may_have(&name("a"), offset)));
        assert!(sent.may_have(&name("b"), 0));
        assert!(!sent.may_have(&name("a"), UNIT), "what is known is still known");
    }
}
