//! The RAM blocks, and the history of each page.

use std::collections::HashMap;

use multifd_core::PageSize;
use multifd_core::wire::BlockName;

use super::finding::Connection;
use super::report::{BlockReport, Counts};
use crate::stream::BlockInfo;

/// Pages whose histories are allocated together.
const GROUP: u64 = 128;

/// The most groups whose histories are kept: those of 512 GiB in 4 KiB pages. They take 1 GiB.
const MOST_GROUPS: usize = 1 << 20;

/// The blocks in the order of the main channel's list.
#[derive(Debug)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    groups: usize,
    untracked: u64,
}

#[derive(Debug)]
struct Block {
    info: BlockInfo,
    counts: Counts,
    main_pages: u64,
    /// By the number of the group. A group is allocated when its first page comes, since a list may
    /// claim any size.
    groups: HashMap<u64, Box<[History; GROUP as usize]>>,
    sent: u64,
    sent_again: u64,
    most_times: u32,
}

/// What is known about a page.
#[derive(Clone, Copy, Debug, Default)]
struct History {
    /// Where it came last.
    round: u32,
    connection: u16,
    /// How often it came.
    times: u16,
}

impl Blocks {
    pub(super) fn new(list: &[BlockInfo]) -> Self {
        let block = |info: &BlockInfo| Block {
            info: info.clone(),
            counts: Counts::default(),
            main_pages: 0,
            groups: HashMap::new(),
            sent: 0,
            sent_again: 0,
            most_times: 0,
        };
        Self { blocks: list.iter().map(block).collect(), groups: 0, untracked: 0 }
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.blocks.iter().position(|block| block.info.name.as_str() == name)
    }

    pub(super) fn name(&self, block: usize) -> &BlockName {
        &self.blocks[block].info.name
    }

    pub(super) fn bytes(&self, block: usize) -> u64 {
        self.blocks[block].info.bytes
    }

    /// Counts a packet's pages for their block.
    pub(super) fn count(&mut self, block: usize, counts: &Counts) {
        self.blocks[block].counts += *counts;
    }

    /// Counts a page that came on the main channel.
    pub(super) fn count_on_main(&mut self, block: usize) {
        self.blocks[block].main_pages += 1;
    }

    /// Notes that a page of the block has come in `round` on `connection`. Returns the connection on
    /// which it came earlier in the same round, if it did.
    pub(super) fn mark(
        &mut self,
        block: usize,
        page: u64,
        round: u64,
        connection: Connection,
    ) -> Option<Connection> {
        let block = &mut self.blocks[block];
        let (group, index) = (page / GROUP, (page % GROUP) as usize);
        if !block.groups.contains_key(&group) {
            if self.groups == MOST_GROUPS {
                self.untracked += 1;
                return None;
            }
            self.groups += 1;
        }
        let group = block
            .groups
            .entry(group)
            .or_insert_with(|| Box::new([History::default(); GROUP as usize]));
        let before = group[index];
        let round = u32::try_from(round).unwrap_or(u32::MAX);
        let times = before.times.saturating_add(1);
        group[index] = History { round, connection: pack(connection), times };
        block.most_times = block.most_times.max(times.into());
        match times {
            1 => block.sent += 1,
            2 => block.sent_again += 1,
            _ => {}
        }
        (before.times > 0 && before.round == round).then(|| unpack(before.connection))
    }

    /// Pages whose history was not kept, since there were too many.
    pub(super) fn untracked(&self) -> u64 {
        self.untracked
    }

    /// The blocks with pages that never came: the number of such pages, and of all pages.
    pub(super) fn never_sent(&self, page_size: PageSize) -> Vec<(BlockName, u64, u64)> {
        let lacking = self.blocks.iter().filter_map(|block| {
            let pages = block.info.bytes / page_size.bytes() as u64;
            (block.sent < pages).then(|| (block.info.name.clone(), pages - block.sent, pages))
        });
        lacking.collect()
    }

    pub(super) fn reports(self, page_size: PageSize) -> Vec<BlockReport> {
        let report = |block: Block| BlockReport {
            pages: block.info.bytes / page_size.bytes() as u64,
            name: block.info.name,
            bytes: block.info.bytes,
            counts: block.counts,
            main_pages: block.main_pages,
            sent: block.sent,
            sent_again: block.sent_again,
            most_times: block.most_times,
        };
        self.blocks.into_iter().map(report).collect()
    }
}

/// There are at most 256 channels, as ids have 8 bits.
fn pack(connection: Connection) -> u16 {
    match connection {
        Connection::Main => u16::MAX,
        Connection::Channel(number) => number.min(usize::from(u16::MAX) - 1) as u16,
    }
}

fn unpack(packed: u16) -> Connection {
    match packed {
        u16::MAX => Connection::Main,
        number => Connection::Channel(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: Connection = Connection::Channel(3);

    fn blocks(bytes: u64) -> Blocks {
        Blocks::new(&[BlockInfo::new(BlockName::new("pc.ram").unwrap(), bytes)])
    }

    #[test]
    fn a_page_that_comes_again_is_known_by_its_round_and_connection() {
        let mut blocks = blocks(1 << 20);
        assert_eq!(blocks.mark(0, 255, 0, CHANNEL), None);
        assert_eq!(blocks.mark(0, 255, 0, Connection::Main), Some(CHANNEL));
        assert_eq!(blocks.mark(0, 255, 0, CHANNEL), Some(Connection::Main));
        assert_eq!(blocks.mark(0, 255, 1, CHANNEL), None);
        assert_eq!(blocks.mark(0, 254, 1, CHANNEL), None);
        let report = &blocks.reports(PageSize::Kib4)[0];
        assert_eq!((report.sent, report.sent_again, report.most_times), (2, 1, 4));
    }

    #[test]
    fn a_block_takes_memory_for_the_pages_that_come_and_not_for_its_size() {
        let mut blocks = blocks(1 << 60);
        blocks.mark(0, 0, 1, CHANNEL);
        blocks.mark(0, (1 << 48) - 1, 1, CHANNEL);
        assert_eq!((blocks.blocks[0].groups.len(), blocks.groups), (2, 2));
    }
}
