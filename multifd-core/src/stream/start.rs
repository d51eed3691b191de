//! Decoding the START of the ram section: the list of RAM blocks and the first sync.

use std::mem;

use super::early;
use super::input::{Input, Stop, name};
use super::mapped_ram::{self, MappedBlock};
use super::ram::{BlockList, Word};
use super::wire;
use super::{BlockInfo, StreamErrorKind, SyncForm};
use crate::PageSize;
use crate::wire::BlockName;

/// What START says.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) section_id: u32,
    pub(super) instance_id: u32,
    pub(super) blocks: BlockList,
    pub(super) sync: SyncForm,
}

/// What a START was of.
#[derive(Debug)]
pub(super) enum Started {
    Ram(Start),
    /// A block of a mapped-ram file, of which the list goes on at its end.
    Mapped(MappedBlock),
    /// The dirty-bitmap section, which says that there are no bitmaps.
    NoBitmaps {
        section_id: u32,
        instance_id: u32,
    },
}

/// Where in the stream a START comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartPlace {
    /// It is the first: ram's.
    First,
    /// Between the START of ram and its END.
    BehindStart,
    BehindEnd,
}

/// Takes START in, up to where the form of its sync is known.
#[derive(Debug)]
pub(super) struct StartDecoder {
    state: State,
    place: StartPlace,
    /// The list is of a mapped-ram file: each block has a header.
    is_mapped: bool,
    section_id: u32,
    instance_id: u32,
    blocks: BlockList,
    total: u64,
    /// Bytes of the blocks that are still to be listed.
    left: u64,
}

/// What comes next.
#[derive(Debug)]
enum State {
    SectionId,
    Name,
    InstanceId,
    Version,
    BitmapsInstance,
    BitmapsVersion,
    Bitmaps,
    MemSize,
    Block,
    /// The header of the last block, in a mapped-ram file.
    MappedHeader,
    /// The next block, unless the size of the last one's pages comes first.
    BlockOrPageSize,
    PageSize,
    Sync,
}

impl StartDecoder {
    /// A decoder from behind the type byte.
    pub(super) fn new(page_size: PageSize, place: StartPlace, is_mapped: bool) -> Self {
        Self {
            state: State::SectionId,
            place,
            is_mapped,
            section_id: 0,
            instance_id: 0,
            blocks: BlockList::new(page_size),
            total: 0,
            left: 0,
        }
    }

    /// Takes in as much as there is. Gives what START says once it is known.
    pub(super) fn next(&mut self, input: &mut Input, bytes: &mut &[u8]) -> Result<Started, Stop> {
        const WHAT: &str = "a START";
        const LIST: &str = "the list of RAM blocks";
        loop {
            self.state = match self.state {
                State::SectionId => {
                    self.section_id = input.u32(bytes, WHAT)?;
                    State::Name
                }
                State::Name => behind_name(input.short(bytes, WHAT)?, self.place)?,
                State::InstanceId => {
                    self.instance_id = input.u32(bytes, WHAT)?;
                    State::Version
                }
                State::Version => {
                    let version = input.u32(bytes, WHAT)?;
                    if version != wire::RAM_VERSION {
                        return Err(StreamErrorKind::RamVersion(version).into());
                    }
                    State::MemSize
                }
                State::BitmapsInstance => {
                    self.instance_id = input.u32(bytes, WHAT)?;
                    State::BitmapsVersion
                }
                State::BitmapsVersion => match input.u32(bytes, WHAT)? {
                    early::DIRTY_BITMAP_VERSION => State::Bitmaps,
                    _ => return Err(foreign(early::DIRTY_BITMAP.as_bytes()).into()),
                },
                State::Bitmaps => match input.u8(bytes, WHAT)? {
                    early::NO_BITMAPS => {
                        let Self { section_id, instance_id, .. } = *self;
                        return Ok(Started::NoBitmaps { section_id, instance_id });
                    }
                    _ => return Err(foreign(early::DIRTY_BITMAP.as_bytes()).into()),
                },
                State::MemSize => match input.word(bytes, self.blocks.page_size())? {
                    Word::MemSize { total: 0 } => return Err(EMPTY.into()),
                    Word::MemSize { total } => {
                        (self.total, self.left) = (total, total);
                        State::Block
                    }
                    _ => return Err(ONLY_THE_LIST.into()),
                },
                State::Block => {
                    input.begin_item();
                    let (name, size) = input.entry(bytes, LIST)?;
                    self.push(name, size)?;
                    if self.is_mapped { State::MappedHeader } else { self.behind_block() }
                }
                State::MappedHeader => {
                    input.begin_item();
                    let header: [u8; mapped_ram::HEADER] = input.array(bytes, LIST)?;
                    let block = self.blocks.last_mapped(&header, input.offset())?;
                    self.state = if self.left > 0 { State::Block } else { State::Sync };
                    return Ok(Started::Mapped(block));
                }
                // A size starts with a zero byte, and no name is empty.
                State::BlockOrPageSize => match input.peek(bytes, LIST)? {
                    0 => State::PageSize,
                    _ => State::Block,
                },
                State::PageSize => {
                    input.begin_item();
                    self.blocks.set_page_bytes(input.u64(bytes, LIST)?)?;
                    State::Block
                }
                State::Sync => {
                    input.begin_item();
                    let word = input.u64(bytes, "the ram section")?;
                    // A word without any flag, where there is none: the size of the last block's pages.
                    if !self.is_mapped && self.blocks.may_be_page_bytes(word) {
                        self.blocks.set_page_bytes(word)?;
                        State::Sync
                    } else {
                        match Word::parse(word, self.blocks.page_size())? {
                            Word::Flush if !self.is_mapped => {
                                return Ok(self.start(SyncForm::Flush));
                            }
                            Word::EndOfSection => return Ok(self.start(SyncForm::EachSection)),
                            _ => return Err(ONLY_THE_LIST.into()),
                        }
                    }
                }
            };
        }
    }

    /// What comes behind a block.
    fn behind_block(&self) -> State {
        if self.left > 0 { State::BlockOrPageSize } else { State::Sync }
    }

    fn push(&mut self, bytes: &[u8], size: u64) -> Result<(), StreamErrorKind> {
        let what = "the name of a RAM block";
        let name = BlockName::new(name(bytes, what)?);
        let name = name.map_err(|_| StreamErrorKind::Name { what })?;
        let Some(left) = self.left.checked_sub(size) else {
            return Err(StreamErrorKind::BlockTotal { name, total: self.total });
        };
        self.blocks.push(BlockInfo::new(name, size))?;
        self.left = left;
        Ok(())
    }

    fn start(&mut self, sync: SyncForm) -> Started {
        let empty = BlockList::new(self.blocks.page_size());
        let blocks = mem::replace(&mut self.blocks, empty);
        let Self { section_id, instance_id, .. } = *self;
        Started::Ram(Start { section_id, instance_id, blocks, sync })
    }
}

const EMPTY: StreamErrorKind = StreamErrorKind::Misplaced("the list of RAM blocks is empty");

pub(super) const ONLY_THE_LIST: StreamErrorKind = StreamErrorKind::Misplaced(
    "the START of ram has something in it other than the list of RAM blocks and one MULTIFD_FLUSH",
);

fn foreign(name: &[u8]) -> StreamErrorKind {
    StreamErrorKind::ForeignSection(String::from_utf8_lossy(name).into_owned())
}

/// What comes behind the name of the section, which has to be one that may start here.
fn behind_name(name: &[u8], place: StartPlace) -> Result<State, StreamErrorKind> {
    const SECOND: StreamErrorKind =
        StreamErrorKind::Misplaced("the ram section has a second START");
    const LATE: StreamErrorKind =
        StreamErrorKind::Misplaced("the dirty-bitmap section starts behind the END of ram");
    let (is_ram, is_bitmaps) =
        (name == wire::RAM.as_bytes(), name == early::DIRTY_BITMAP.as_bytes());
    match place {
        StartPlace::First if is_ram => Ok(State::InstanceId),
        StartPlace::BehindStart | StartPlace::BehindEnd if is_ram => Err(SECOND),
        StartPlace::BehindStart if is_bitmaps => Ok(State::BitmapsInstance),
        StartPlace::BehindEnd if is_bitmaps => Err(LATE),
        _ => Err(foreign(name)),
    }
}
