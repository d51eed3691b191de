//! Decoding what comes after START: the bodies of PART and END.

use super::input::{Input, Stop};
use super::ram::{BlockList, Word};
use super::{MainEvent, StreamErrorKind, SyncForm};

/// The ram section, from the end of its START on.
#[derive(Debug)]
pub(super) struct RamSection {
    section_id: u32,
    sync: SyncForm,
    blocks: BlockList,
    state: State,
    last_block: Option<usize>,
    /// Whether the body being read has had a flush.
    flushed: bool,
    /// END has begun.
    ended: bool,
    /// The pages are in a mapped-ram file, and none comes in a body.
    is_mapped: bool,
}

impl RamSection {
    /// How many blocks the RAM has.
    pub(super) fn block_count(&self) -> usize {
        self.blocks.as_slice().len()
    }
}

/// What comes next in a body.
#[derive(Clone, Copy, Debug)]
enum State {
    Word,
    /// The name of a page's block.
    Name(Page),
    /// What fills a zero page.
    Fill {
        block: usize,
        offset: u64,
    },
    Data {
        block: usize,
        offset: u64,
    },
}

/// A page whose word has come.
#[derive(Clone, Copy, Debug)]
struct Page {
    offset: u64,
    is_zero: bool,
}

/// What a body says.
#[derive(Debug)]
pub(super) enum InBody {
    Event(MainEvent),
    /// The end of the body, which is a sync as well in a stream of [`SyncForm::EachSection`].
    End(SyncForm),
}

impl RamSection {
    pub(super) fn new(section_id: u32, blocks: BlockList, sync: SyncForm, is_mapped: bool) -> Self {
        Self {
            section_id,
            sync,
            blocks,
            state: State::Word,
            last_block: None,
            flushed: false,
            ended: false,
            is_mapped,
        }
    }

    pub(super) fn section_id(&self) -> u32 {
        self.section_id
    }

    pub(super) fn sync(&self) -> SyncForm {
        self.sync
    }

    /// Whether END has begun.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn check_id(&self, what: &'static str, found: u32) -> Result<(), StreamErrorKind> {
        let expected = self.section_id;
        if found == expected {
            Ok(())
        } else {
            Err(StreamErrorKind::SectionId { what, found, expected })
        }
    }

    /// Begins a PART, or, with `last`, the END.
    pub(super) fn begin(&mut self, last: bool) -> Result<(), StreamErrorKind> {
        if self.ended {
            return Err(StreamErrorKind::Misplaced("the ram section goes on after its END"));
        }
        self.ended = last;
        self.flushed = false;
        Ok(())
    }

    /// What the body says next.
    pub(super) fn next(&mut self, input: &mut Input, bytes: &mut &[u8]) -> Result<InBody, Stop> {
        loop {
            match self.state {
                State::Word => {
                    let word = input.word(bytes, self.blocks.page_size())?;
                    if let Some(said) = self.word(word)? {
                        return Ok(said);
                    }
                }
                State::Name(page) => {
                    let name = input.short(bytes, "the name of a page's RAM block")?;
                    let block = self.blocks.find(name).ok_or_else(|| {
                        StreamErrorKind::UnknownBlock(String::from_utf8_lossy(name).into_owned())
                    })?;
                    self.last_block = Some(block);
                    self.page(block, page)?;
                }
                State::Fill { block, offset } => match input.u8(bytes, "a zero page")? {
                    0 => {
                        self.state = State::Word;
                        return Ok(InBody::Event(MainEvent::ZeroPage { block, offset }));
                    }
                    fill => return Err(StreamErrorKind::Fill(fill).into()),
                },
                State::Data { block, offset } => {
                    let data = input.owned(bytes, self.blocks.page_size().bytes(), "a page")?;
                    self.state = State::Word;
                    return Ok(InBody::Event(MainEvent::Page { block, offset, data }));
                }
            }
        }
    }

    fn word(&mut self, word: Word) -> Result<Option<InBody>, StreamErrorKind> {
        let (page, same_block) = match (word, self.sync) {
            (Word::ZeroPage { .. } | Word::Page { .. }, _) if self.is_mapped => {
                return Err(StreamErrorKind::Misplaced(
                    "there is a page in the stream of a mapped-ram file, which has them in a place of their own",
                ));
            }
            (Word::ZeroPage { offset, same_block }, _) => {
                (Page { offset, is_zero: true }, same_block)
            }
            (Word::Page { offset, same_block }, _) => (Page { offset, is_zero: false }, same_block),
            (Word::Flush, SyncForm::Flush) => {
                self.flushed = true;
                return Ok(Some(InBody::Event(MainEvent::Sync)));
            }
            (Word::Flush, SyncForm::EachSection) => {
                return Err(StreamErrorKind::Misplaced(
                    "there is a MULTIFD_FLUSH, but none was in the START of ram",
                ));
            }
            (Word::EndOfSection, SyncForm::Flush) if self.ended && !self.flushed => {
                return Err(StreamErrorKind::Misplaced("the END of ram has no MULTIFD_FLUSH"));
            }
            (Word::EndOfSection, sync) => return Ok(Some(InBody::End(sync))),
            (Word::MemSize { .. }, _) => {
                return Err(StreamErrorKind::Misplaced(
                    "there is a list of RAM blocks outside the START of ram",
                ));
            }
        };
        if same_block {
            self.page(self.last_block.ok_or(StreamErrorKind::NoLastBlock)?, page)?;
        } else {
            self.state = State::Name(page);
        }
        Ok(None)
    }

    /// Goes on with `page`, which must be in its block.
    fn page(&mut self, block: usize, page: Page) -> Result<(), StreamErrorKind> {
        let Page { offset, is_zero } = page;
        self.blocks.page(block, offset)?;
        self.state =
            if is_zero { State::Fill { block, offset } } else { State::Data { block, offset } };
        Ok(())
    }
}
