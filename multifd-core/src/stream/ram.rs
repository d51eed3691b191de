//! The `ram` section: the list of RAM blocks, and the words that its bodies are made of.

use super::mapped_ram::{self, MappedBlock};
use super::{Configuration, StreamErrorKind};
use crate::PageSize;
use crate::wire::BlockName;

/// How many RAM blocks a source may have. QEMU has one for each DIMM, ROM and video memory: some
/// tens.
pub(super) const MAX_BLOCKS: usize = 1024;

/// A RAM block: a run of guest memory with a name. Pages are said by their offset in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockInfo {
    /// QEMU's name of it, such as `pc.ram`.
    pub name: BlockName,
    /// Its used length: the bytes that are migrated, a whole number of pages and not 0.
    pub bytes: u64,
    /// The size in bytes of the pages that its memory is made of at the source, where the stream
    /// says it: with the capability postcopy-ram, for huge pages.
    pub page_bytes: Option<u64>,
}

/// What stands in place of a huge page's size in a mapped-ram file: version 1 of a header, and the
/// first half of a page size. No machine has huge pages of 4 GiB.
const MAPPED_RAM: u64 = 1 << 32;

impl BlockInfo {
    /// The block `name` of `bytes` bytes.
    pub const fn new(name: BlockName, bytes: u64) -> Self {
        Self { name, bytes, page_bytes: None }
    }

    /// The block with this size of the pages that its memory is made of, in bytes: a power of two, at
    /// least the page size.
    #[must_use]
    pub fn with_page_bytes(self, page_bytes: Option<u64>) -> Self {
        Self { page_bytes, ..self }
    }
}

/// How the main channel says that all multifd channels are to be waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the format has these two, and a caller must know both")]
pub enum SyncForm {
    /// By a `MULTIFD_FLUSH` word, once in START and at the end of each round. QEMU 8.1 and later.
    #[default]
    Flush,
    /// By the end of every body: START's, each PART's and END's. QEMU up to 8.0, and machine types
    /// up to 8.0 on a newer QEMU.
    EachSection,
}

impl SyncForm {
    /// What QEMU expects of a source with this machine type.
    pub fn of_machine(configuration: &Configuration) -> Self {
        match configuration.machine_version() {
            Some(version) if version < (8, 1) => Self::EachSection,
            _ => Self::Flush,
        }
    }
}

/// RAM blocks that may stand in one stream together.
#[derive(Debug)]
pub(super) struct BlockList {
    blocks: Vec<BlockInfo>,
    page_size: PageSize,
}

impl BlockList {
    pub(super) fn new(page_size: PageSize) -> Self {
        Self { blocks: Vec::new(), page_size }
    }

    pub(super) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Adds a block.
    pub(super) fn push(&mut self, block: BlockInfo) -> Result<(), StreamErrorKind> {
        if self.blocks.len() == MAX_BLOCKS {
            return Err(StreamErrorKind::TooManyBlocks { limit: MAX_BLOCKS });
        }
        if self.find(block.name.as_str().as_bytes()).is_some() {
            return Err(StreamErrorKind::RepeatedBlock(block.name));
        }
        if block.bytes == 0 || !self.page_size.is_aligned(block.bytes) {
            let BlockInfo { name, bytes, .. } = block;
            return Err(StreamErrorKind::BlockSize { name, bytes, page_size: self.page_size });
        }
        let page_bytes = block.page_bytes;
        self.blocks.push(block);
        page_bytes.map_or(Ok(()), |bytes| self.set_page_bytes(bytes))
    }

    pub(super) fn as_slice(&self) -> &[BlockInfo] {
        &self.blocks
    }

    /// Whether `word`, behind the last block, is the size of that block's pages: it has no flags.
    pub(super) fn may_be_page_bytes(&self, word: u64) -> bool {
        let has_none = self.blocks.last().is_some_and(|block| block.page_bytes.is_none());
        has_none && word != 0 && self.page_size.is_aligned(word)
    }

    /// Sets the size of the pages that the last block's memory is made of.
    pub(super) fn set_page_bytes(&mut self, bytes: u64) -> Result<(), StreamErrorKind> {
        if bytes == MAPPED_RAM {
            return Err(StreamErrorKind::MappedRam);
        }
        let Some(block) = self.blocks.last_mut() else { return Ok(()) };
        if !bytes.is_power_of_two() || bytes < self.page_size.bytes() as u64 {
            return Err(StreamErrorKind::BlockPageSize { name: block.name.clone(), bytes });
        }
        block.page_bytes = Some(bytes);
        Ok(())
    }

    /// Where the last block is in a mapped-ram file, by its header, which ends at `at` there.
    pub(super) fn last_mapped(
        &self,
        header: &[u8; mapped_ram::HEADER],
        at: u64,
    ) -> Result<MappedBlock, StreamErrorKind> {
        let last =
            self.blocks.last().cloned().ok_or(StreamErrorKind::Misuse("there is no block"))?;
        MappedBlock::parse(last, self.page_size, header, at)
    }

    /// Bytes of all blocks.
    pub(super) fn total(&self) -> Result<u64, StreamErrorKind> {
        let mut sizes = self.blocks.iter().map(|block| block.bytes);
        let total = sizes.try_fold(0, u64::checked_add).filter(|&total| total > 0);
        total.ok_or(StreamErrorKind::Misuse("there is no RAM, or more than 2^64 bytes"))
    }

    /// Appends the words of the list to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), StreamErrorKind> {
        let total = self.total()?;
        out.extend_from_slice(&Word::MemSize { total }.to_bytes());
        for block in &self.blocks {
            put_block_name(out, &block.name);
            out.extend_from_slice(&block.bytes.to_be_bytes());
            if let Some(bytes) = block.page_bytes {
                out.extend_from_slice(&bytes.to_be_bytes());
            }
        }
        Ok(())
    }

    /// The index of the block with this name.
    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        self.blocks.iter().position(|block| block.name.as_str().as_bytes() == name)
    }

    /// The block by its index, if it has a page at `offset`, a multiple of the page size.
    pub(super) fn page(&self, block: usize, offset: u64) -> Result<&BlockInfo, StreamErrorKind> {
        let Some(block) = self.blocks.get(block) else {
            return Err(StreamErrorKind::Misuse("a page is in a RAM block that was not listed"));
        };
        // Both are multiples of the page size, so a page that starts inside also ends inside.
        if offset < block.bytes {
            return Ok(block);
        }
        Err(StreamErrorKind::PageOutsideBlock {
            block: block.name.clone(),
            offset,
            bytes: block.bytes,
        })
    }
}

/// Appends a length byte, which every block's name has room in, and the name.
pub(super) fn put_block_name(out: &mut Vec<u8>, name: &BlockName) {
    out.push(name.as_str().len() as u8);
    out.extend_from_slice(name.as_str().as_bytes());
}

const ZERO: u64 = 0x002;
const MEM_SIZE: u64 = 0x004;
const PAGE: u64 = 0x008;
const EOS: u64 = 0x010;
const CONTINUE: u64 = 0x020;
const XBZRLE: u64 = 0x040;
const HOOK: u64 = 0x080;
const MULTIFD_FLUSH: u64 = 0x200;

const ZERO_CONTINUE: u64 = ZERO | CONTINUE;
const PAGE_CONTINUE: u64 = PAGE | CONTINUE;
const KNOWN: u64 = ZERO | MEM_SIZE | PAGE | EOS | CONTINUE | XBZRLE | HOOK | MULTIFD_FLUSH;

/// A word of the `ram` section: an address, a multiple of the page size, with flags in the low
/// bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A page that is all zero; its block's name follows unless it is the last one's.
    ZeroPage { offset: u64, same_block: bool },
    /// A page whose bytes follow, after its block's name unless it is the last one's.
    Page { offset: u64, same_block: bool },
    /// The bytes of all RAM blocks; their list follows.
    MemSize { total: u64 },
    /// The end of the body.
    EndOfSection,
    /// Wait for all channels.
    Flush,
}

impl Word {
    pub(super) fn parse(word: u64, page_size: PageSize) -> Result<Self, StreamErrorKind> {
        let flags = word & (page_size.bytes() as u64 - 1);
        let address = word - flags;
        match (flags, address) {
            (ZERO | ZERO_CONTINUE, offset) => {
                Ok(Self::ZeroPage { offset, same_block: flags & CONTINUE != 0 })
            }
            (PAGE | PAGE_CONTINUE, offset) => {
                Ok(Self::Page { offset, same_block: flags & CONTINUE != 0 })
            }
            (MEM_SIZE, total) => Ok(Self::MemSize { total }),
            (EOS, 0) => Ok(Self::EndOfSection),
            (MULTIFD_FLUSH, 0) => Ok(Self::Flush),
            _ => Err(refusal(word, flags)),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; 8] {
        let again = |same_block| if same_block { CONTINUE } else { 0 };
        let word = match self {
            Self::ZeroPage { offset, same_block } => offset | ZERO | again(same_block),
            Self::Page { offset, same_block } => offset | PAGE | again(same_block),
            Self::MemSize { total } => total | MEM_SIZE,
            Self::EndOfSection => EOS,
            Self::Flush => MULTIFD_FLUSH,
        };
        word.to_be_bytes()
    }
}

/// Why a word with these flags is refused.
fn refusal(word: u64, flags: u64) -> StreamErrorKind {
    if flags & !KNOWN != 0 {
        StreamErrorKind::UnknownFlags(flags & !KNOWN)
    } else if flags & XBZRLE != 0 {
        StreamErrorKind::UnsupportedFlag {
            name: "XBZRLE",
            remedy: "multifd excludes it, so turn the xbzrle capability off on the source",
        }
    } else if flags & HOOK != 0 {
        StreamErrorKind::UnsupportedFlag {
            name: "HOOK",
            remedy: "it is RDMA's, so migrate over tcp: or unix: instead",
        }
    } else {
        StreamErrorKind::Word(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_parsed_as_it_was_written() {
        let words = [
            Word::ZeroPage { offset: 0, same_block: false },
            Word::ZeroPage { offset: 0x1f_0000, same_block: true },
            Word::Page { offset: 0x1f_0000, same_block: false },
            Word::Page { offset: 0, same_block: true },
            Word::MemSize { total: u64::MAX << 16 },
            Word::EndOfSection,
            Word::Flush,
        ];
        for page_size in PageSize::ALL {
            for word in words {
                let bytes = u64::from_be_bytes(word.to_bytes());
                assert_eq!(Word::parse(bytes, page_size).unwrap(), word);
            }
        }
    }

    #[test]
    fn a_4_kib_address_is_no_address_of_a_64_kib_page() {
        assert!(matches!(
            Word::parse(0x1000 | ZERO, PageSize::Kib64),
            Err(StreamErrorKind::UnknownFlags(0x1000))
        ));
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        for flags in [0, CONTINUE, ZERO | PAGE, EOS | CONTINUE, MEM_SIZE | EOS, EOS | MULTIFD_FLUSH]
        {
            assert!(
                matches!(Word::parse(flags, PageSize::Kib4), Err(StreamErrorKind::Word(_))),
                "{flags:#x}"
            );
        }
    }

    #[test]
    fn an_address_beside_a_flag_that_has_none_is_refused() {
        for flags in [EOS, MULTIFD_FLUSH] {
            let word = Word::parse(0x1000 | flags, PageSize::Kib4);
            assert!(matches!(word, Err(StreamErrorKind::Word(_))), "{flags:#x}");
        }
    }
}
