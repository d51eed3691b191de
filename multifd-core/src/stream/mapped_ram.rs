//! The RAM of a mapped-ram file: where in the file each block's pages are.

use super::{BlockInfo, StreamErrorKind};
use crate::PageSize;

/// The version of a block's header.
const VERSION: u32 = 1;

/// Bytes of a block's header: version, page size, where the bitmap is, where the pages are.
pub(super) const HEADER: usize = 4 + 3 * 8;

/// What pages begin at a multiple of, so that they can be written past the page cache.
const ALIGNMENT: u64 = 1 << 20;

/// What a source lists among its capabilities.
pub(super) const CAPABILITY: &str = "mapped-ram";

/// Where in a mapped-ram file a RAM block is. Offsets are in bytes from the start of the file. Bitmap and pages lie behind
/// the block's entry in the stream and apart from each other, and the stream goes on at their [`end`](Self::end).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedBlock {
    /// Name and size.
    pub info: BlockInfo,
    /// Where the bitmap is: bit i mod 8 of byte i / 8 is set if page i has anything in the file; other pages are zero, whatever
    /// the file has in their place.
    pub bitmap_offset: u64,
    /// Bytes of the bitmap: whole words of 8.
    pub bitmap_bytes: u64,
    /// Where page 0 is: a multiple of the page size.
    pub pages_offset: u64,
}

impl MappedBlock {
    /// The block whose header ends at `bitmap_offset`, as QEMU puts it into a file.
    pub(super) fn laid_out(
        info: BlockInfo,
        page_size: PageSize,
        bitmap_offset: u64,
    ) -> Result<Self, StreamErrorKind> {
        let bitmap_bytes = bitmap_bytes(info.bytes, page_size);
        let pages_offset = bitmap_offset
            .checked_add(bitmap_bytes)
            .and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
        Self { info, bitmap_offset, bitmap_bytes, pages_offset: pages_offset.unwrap_or(u64::MAX) }
            .checked(page_size, bitmap_offset)
    }

    /// Parses the header of a block, which ends at `at` in the file.
    pub(super) fn parse(
        info: BlockInfo,
        page_size: PageSize,
        header: &[u8; HEADER],
        at: u64,
    ) -> Result<Self, StreamErrorKind> {
        let number = |from: usize| {
            header[from..from + 8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
        };
        let version = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        if version != VERSION {
            return Err(StreamErrorKind::MappedRamVersion(version));
        }
        let [pages, bitmap_offset, pages_offset] = [4, 12, 20].map(number);
        if pages != page_size.bytes() as u64 {
            return Err(StreamErrorKind::MappedRamPageSize { found: pages, expected: page_size });
        }
        let bitmap_bytes = bitmap_bytes(info.bytes, page_size);
        Self { info, bitmap_offset, bitmap_bytes, pages_offset }.checked(page_size, at)
    }

    pub(super) fn header(&self, page_size: PageSize) -> Vec<u8> {
        let numbers = [page_size.bytes() as u64, self.bitmap_offset, self.pages_offset];
        let numbers = numbers.into_iter().flat_map(u64::to_be_bytes);
        VERSION.to_be_bytes().into_iter().chain(numbers).collect()
    }

    /// The block, if its parts are in order behind `at`, where its header ends.
    fn checked(self, page_size: PageSize, at: u64) -> Result<Self, StreamErrorKind> {
        let bitmap_end = self.bitmap_offset.checked_add(self.bitmap_bytes);
        let in_order = self.bitmap_offset >= at
            && bitmap_end.is_some_and(|end| end <= self.pages_offset)
            // Offsets of files are signed.
            && self.pages_offset.checked_add(self.info.bytes).is_some_and(|end| i64::try_from(end).is_ok())
            && page_size.is_aligned(self.pages_offset);
        match in_order {
            true => Ok(self),
            false => {
                let Self { info: BlockInfo { name, .. }, bitmap_offset, pages_offset, .. } = self;
                Err(StreamErrorKind::MappedRamPlace { name, bitmap_offset, pages_offset })
            }
        }
    }

    /// Where the pages end, and the stream goes on.
    pub fn end(&self) -> u64 {
        // It has been checked that there is such a place.
        self.pages_offset + self.info.bytes
    }
}

/// A bit for each page, in whole words.
fn bitmap_bytes(bytes: u64, page_size: PageSize) -> u64 {
    (bytes / page_size.bytes() as u64).div_ceil(64) * 8
}

#[cfg(test)]
mod tests {
    use super::super::{Configuration, Limits, MainDecoder, MainEncoder, MainEvent};
    use super::*;
    use crate::wire::BlockName;

    fn block(name: &str, bytes: u64) -> BlockInfo {
        BlockInfo::new(BlockName::new(name).unwrap(), bytes)
    }

    /// The pieces of a stream of two blocks that begins at `offset`, each with where it is in the file.
    fn pieces(offset: u64) -> Vec<(u64, Vec<u8>)> {
        let mut encoder = MainEncoder::new();
        encoder.continue_at(offset).unwrap();
        encoder.header(&Configuration::new("pc").with_mapped_ram()).unwrap();
        encoder.mapped_ram_start(2, 0, &[block("pc.ram", 1 << 20), block("rom", 4096)]).unwrap();
        let mut pieces = Vec::new();
        let mut take = |encoder: &mut MainEncoder| {
            let bytes = encoder.bytes().to_vec();
            pieces.push((encoder.offset() - bytes.len() as u64, bytes));
            encoder.written(encoder.bytes().len());
        };
        while let Some(block) = encoder.mapped_block().unwrap() {
            encoder.continue_at(block.end()).unwrap_err();
            take(&mut encoder);
            encoder.continue_at(block.end()).unwrap();
        }
        encoder.ram_end().unwrap();
        encoder.no_device_state().unwrap();
        take(&mut encoder);
        pieces
    }

    /// What a decoder says, to which the pieces are given in parts of `most` bytes.
    fn events(offset: u64, most: usize) -> Vec<(u64, MainEvent)> {
        let mut decoder = MainDecoder::new(Limits::default()).of_mapped_ram(offset);
        let mut events = Vec::new();
        for (at, piece) in pieces(offset) {
            decoder.continue_at(at);
            for mut part in piece.chunks(most) {
                while let Some(event) = decoder.next(&mut part).unwrap() {
                    events.push((decoder.offset(), event));
                }
                assert!(part.is_empty());
            }
        }
        let last = decoder.finish().unwrap().unwrap();
        events.push((decoder.offset(), last));
        events
    }

    #[test]
    fn a_stream_says_the_same_however_it_is_split_and_jumps_over_the_pages() {
        for offset in [0, 7, 1 << 20] {
            let whole = events(offset, usize::MAX);
            for most in 1..60 {
                assert_eq!(events(offset, most), whole);
            }
            let blocks: Vec<_> = whole
                .iter()
                .filter_map(|(at, event)| match event {
                    MainEvent::MappedBlock(block) => Some((*at, block)),
                    _ => None,
                })
                .collect();
            let first = (offset + 1).next_multiple_of(1 << 20);
            assert_eq!(blocks.len(), 2);
            for (at, block) in &blocks {
                assert_eq!(block.bitmap_offset, *at);
            }
            assert_eq!(blocks[0].1.pages_offset, first);
            assert_eq!(blocks[0].1.bitmap_bytes, 32);
            assert_eq!(blocks[1].1.pages_offset, first + (2 << 20));
            assert!(matches!(whole.last(), Some((_, MainEvent::DeviceState(_)))));
        }
    }

    #[test]
    fn a_block_that_no_file_has_room_for_is_refused() {
        let mut encoder = MainEncoder::new();
        encoder.continue_at(i64::MAX as u64 - 4096).unwrap();
        encoder.header(&Configuration::new("pc").with_mapped_ram()).unwrap();
        encoder.mapped_ram_start(2, 0, &[block("pc.ram", 1 << 20)]).unwrap();
        let error = encoder.mapped_block().unwrap_err();
        assert!(matches!(error.kind, StreamErrorKind::MappedRamPlace { .. }), "{error}");
    }

    #[test]
    fn the_capability_is_added_once_and_taken_away_alone() {
        use super::super::{Subsection, SubsectionData};

        let names = |names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            Subsection::new(SubsectionData::Capabilities(names))
        };
        let with = |parts: &[Subsection]| {
            let mut configuration = Configuration::new("pc");
            configuration.subsections = parts.to_vec();
            configuration
        };
        let size = Subsection::new(SubsectionData::PageSize(PageSize::Kib4));
        let uuid = Subsection::new(SubsectionData::Uuid(crate::wire::Uuid([1; 16])));
        let before = with(&[size.clone(), uuid.clone()]);
        let after = with(&[size.clone(), names(&["mapped-ram"]), uuid.clone()]);
        assert_eq!(before.with_mapped_ram(), after);
        assert_eq!(after.with_mapped_ram(), after);
        assert_eq!(after.without_mapped_ram(), before);
        let others = with(&[uuid.clone(), names(&["xbzrle", "mapped-ram", "multifd"])]);
        assert_eq!(others.without_mapped_ram(), with(&[uuid, names(&["xbzrle", "multifd"])]));
    }
}
