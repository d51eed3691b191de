//! Whether two memories are equal.

use multifd::core::ram::{Ram, RamBlock};

use crate::page::PAGE;

/// The result of comparing two memories page by page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Pages that were compared.
    pub(super) pages: u64,
    /// Pages that differ.
    pub(super) different: u64,
    /// The first of them: its block, and its offset in bytes.
    pub(super) first: Option<(String, u64)>,
}

/// Compares every page of `source` with its counterpart. A block without one differs as a whole.
pub(super) fn compare(source: &Ram, destination: &Ram) -> Comparison {
    let mut comparison = Comparison::default();
    for block in source.blocks() {
        let name = block.name().as_str();
        let other = destination.block(name).filter(|other| other.bytes() == block.bytes());
        for offset in (0..block.bytes()).step_by(PAGE) {
            comparison.pages += 1;
            if !other.is_some_and(|other| are_equal(block, other, offset)) {
                comparison.different += 1;
                comparison.first.get_or_insert_with(|| (name.to_owned(), offset));
            }
        }
    }
    comparison
}

fn are_equal(one: &RamBlock, other: &RamBlock, offset: u64) -> bool {
    let mut pages = [[0; PAGE]; 2];
    one.slice(offset, PAGE).copy_to(&mut pages[0]);
    other.slice(offset, PAGE).copy_to(&mut pages[1]);
    pages[0] == pages[1]
}

#[cfg(test)]
mod tests {
    use multifd::core::PageSize;
    use multifd::core::wire::BlockName;

    use super::*;

    fn ram(blocks: &[(&str, u64)]) -> Ram {
        let blocks = blocks.iter().map(|&(name, pages)| {
            let memory = crate::mapping::anonymous(pages * PAGE as u64).unwrap();
            RamBlock::new(BlockName::new(name).unwrap(), memory)
        });
        Ram::new(PageSize::Kib4, blocks).unwrap()
    }

    #[test]
    fn every_page_of_every_block_is_compared() {
        let blocks = [("pc.ram", 5), ("pc.bios", 2)];
        let equal = Comparison { pages: 7, ..Comparison::default() };
        assert_eq!(compare(&ram(&blocks), &ram(&blocks)), equal);
    }

    #[test]
    fn one_different_byte_anywhere_is_found() {
        let blocks = [("pc.ram", 3), ("pc.bios", 2)];
        for (name, pages) in blocks {
            for at in [0, 1, PAGE as u64 - 1, PAGE as u64, pages * PAGE as u64 - 1] {
                let (one, other) = (ram(&blocks), ram(&blocks));
                one.block(name).unwrap().write(at, &[1]);
                let first = Some((name.to_owned(), at / PAGE as u64 * PAGE as u64));
                let expected = Comparison { pages: 5, different: 1, first };
                assert_eq!(compare(&one, &other), expected);
                assert_eq!(compare(&other, &one), expected);
            }
        }
    }

    #[test]
    fn a_block_that_is_missing_or_of_another_size_differs() {
        let source = ram(&[("pc.ram", 3)]);
        for destination in [ram(&[("ram", 3)]), ram(&[("pc.ram", 4)]), ram(&[("pc.ram", 2)])] {
            let comparison = compare(&source, &destination);
            assert_eq!((comparison.pages, comparison.different), (3, 3));
        }
    }
}
