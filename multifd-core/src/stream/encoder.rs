//! The main channel, from what it is to say to its bytes.

use std::borrow::Cow;

use super::described_digests::with_digests;
use super::device_state::{self, Collector};
use super::early::{self, Place};
use super::mapped_ram::{self, MappedBlock};
use super::ram::{BlockList, Word, put_block_name};
use super::wire::{self, command, section};
use super::{BlockInfo, Configuration, PostcopyAdvise, StreamError, StreamErrorKind, SyncForm};
use crate::PageSize;
use crate::ram::BlockDigest;

/// Encodes the main channel as QEMU writes it.
///
/// The order is [`header`](Self::header), [`ram_start`](Self::ram_start), bodies, the last of them
/// by [`end_begin`](Self::end_begin) or [`ram_end`](Self::ram_end), then
/// [`device_state`](Self::device_state) or [`no_device_state`](Self::no_device_state). Commands go
/// between any two of them. Anything else is a [`StreamErrorKind::Misuse`] and adds nothing to the
/// bytes.
///
/// [`bytes`](Self::bytes) are what is to be written next, and [`written`](Self::written) takes note
/// of what was. The other side may have to act on every call but [`zero_page`](Self::zero_page),
/// [`page`](Self::page) and those that begin a body: what is there after it has to be written.
#[derive(Debug)]
pub struct MainEncoder {
    /// What was encoded, from `start` on not yet written.
    bytes: Vec<u8>,
    start: usize,
    /// Where the bytes start in the stream.
    base: u64,
    page_size: PageSize,
    footers: bool,
    state: State,
    section_id: u32,
    sync: SyncForm,
    blocks: BlockList,
    /// The block of the last page in this body.
    last_block: Option<usize>,
    /// What may be the end of the device state, of one that comes in pieces.
    collector: Option<Collector>,
    /// It has ended in a VMDESCRIPTION.
    described: bool,
    /// What the VMDESCRIPTION is to say of the RAM.
    digests: Vec<BlockDigest>,
}

/// Bytes of a device state that are looked at together.
const PIECE: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Setup,
    /// In the list of RAM blocks of a mapped-ram file, at the block of this index.
    MappedList(usize),
    Ram,
    Body {
        last: bool,
    },
    RamEnded,
    End,
}

impl Default for MainEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl MainEncoder {
    /// An encoder of a stream with 4 KiB pages and a FOOTER after each section, as QEMU's are.
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            base: 0,
            page_size: PageSize::default(),
            footers: true,
            state: State::Header,
            section_id: 0,
            sync: SyncForm::default(),
            blocks: BlockList::new(PageSize::default()),
            last_block: None,
            collector: None,
            described: false,
            digests: Vec::new(),
        }
    }

    /// Sets the page size, before the header. What a CONFIGURATION says
    /// ([`Configuration::page_size`]) goes before it.
    #[must_use]
    pub fn with_page_size(self, page_size: PageSize) -> Self {
        Self { page_size, ..self }
    }

    /// Sets, before the header, whether each section ends in a FOOTER. A QEMU wants that as its
    /// machine type says, so a stream that is given back needs what
    /// [`MainDecoder::footers`](super::MainDecoder::footers) said.
    #[must_use]
    pub fn with_footers(self, footers: bool) -> Self {
        Self { footers, ..self }
    }

    /// Starts the stream.
    ///
    /// # Errors
    ///
    /// A configuration that could not be read back; misuse.
    pub fn header(&mut self, configuration: &Configuration) -> Result<(), StreamError> {
        self.expect(self.state == State::Header, "the header comes once, at the start")?;
        self.put_whole(|out| {
            out.extend_from_slice(&wire::MAGIC);
            out.extend_from_slice(&wire::VERSION.to_be_bytes());
            configuration.write(out)
        })?;
        self.page_size = configuration.page_size().unwrap_or(self.page_size);
        self.state = State::Setup;
        Ok(())
    }

    /// Says that the source waits for answers on the return path.
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn open_return_path(&mut self) -> Result<(), StreamError> {
        self.command(command::OPEN_RETURN_PATH, 0, &[])
    }

    /// Asks for a [`Pong`](super::ReturnMessage::Pong) with the same number.
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn ping(&mut self, number: u32) -> Result<(), StreamError> {
        self.command(command::PING, 4, &number.to_be_bytes())
    }

    /// Says that the source may want to switch to postcopy later, or that dirty-bitmaps is on.
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn postcopy_advise(&mut self, advise: PostcopyAdvise) -> Result<(), StreamError> {
        let data = advise.to_bytes();
        self.command(command::POSTCOPY_ADVISE, data.len() as u16, &data)
    }

    /// Writes state that comes before the pages, directly before START or behind it: whole sections
    /// as [`MainEvent::EarlyState`](super::MainEvent::EarlyState) gave them.
    ///
    /// # Errors
    ///
    /// Misuse, which bytes are too in which a destination would not find the ends of the sections.
    pub fn early_state(&mut self, sections: &[u8]) -> Result<(), StreamError> {
        let place = match self.state {
            State::Setup => Place::BeforeStart,
            State::Ram => Place::InRam(self.section_id),
            _ => {
                return Err(self.error(StreamErrorKind::Misuse(
                    "early state comes between the header and the END of ram",
                )));
            }
        };
        early::check(sections, place, self.footers).map_err(|kind| self.error(kind))?;
        self.put(sections);
        Ok(())
    }

    /// Says that the guest has stopped. Only for machine types that know it, those of QEMU 10.0 on.
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn switchover_start(&mut self) -> Result<(), StreamError> {
        self.command(command::SWITCHOVER_START, 0, &[])
    }

    fn command(&mut self, number: u16, length: u16, data: &[u8]) -> Result<(), StreamError> {
        self.expect(
            matches!(self.state, State::Setup | State::Ram | State::RamEnded),
            "a command comes between two sections",
        )?;
        self.put(&[section::COMMAND]);
        self.put(&number.to_be_bytes());
        self.put(&length.to_be_bytes());
        self.put(data);
        Ok(())
    }

    /// Writes START: the list of RAM blocks and the first sync, to which the first SYNC packet of
    /// each channel belongs.
    ///
    /// # Errors
    ///
    /// A list that could not be read back; misuse.
    pub fn ram_start(
        &mut self,
        section_id: u32,
        instance_id: u32,
        blocks: &[BlockInfo],
        sync: SyncForm,
    ) -> Result<(), StreamError> {
        self.expect(self.state == State::Setup, "START comes once, after the header")?;
        let list = self.block_list(blocks)?;
        self.put_whole(|out| {
            put_start(out, section_id, instance_id)?;
            list.write(out)
        })?;
        (self.section_id, self.sync, self.blocks) = (section_id, sync, list);
        self.put_sync();
        self.put_end_of_body();
        self.state = State::Ram;
        Ok(())
    }

    /// Begins the START of a mapped-ram file, whose list of RAM blocks is written
    /// [block by block](Self::mapped_block). What is in the file before the stream is to be known by then:
    /// [`continue_at`](Self::continue_at).
    ///
    /// # Errors
    ///
    /// A list that could not be read back, or of huge pages' sizes, for which there is no place; misuse.
    pub fn mapped_ram_start(
        &mut self,
        section_id: u32,
        instance_id: u32,
        blocks: &[BlockInfo],
    ) -> Result<(), StreamError> {
        self.expect(self.state == State::Setup, "START comes once, after the header")?;
        let list = self.block_list(blocks)?;
        let has_page_bytes = blocks.iter().any(|block| block.page_bytes.is_some());
        self.expect(!has_page_bytes, "a mapped-ram file does not say what memory is made of")?;
        self.put_whole(|out| {
            put_start(out, section_id, instance_id)?;
            out.extend_from_slice(&Word::MemSize { total: list.total()? }.to_bytes());
            Ok(())
        })?;
        (self.section_id, self.sync, self.blocks) = (section_id, SyncForm::EachSection, list);
        self.state = State::MappedList(0);
        Ok(())
    }

    /// Writes the next block of the list, and says where its parts are to be in the file; behind the last one, the end of START.
    /// The [`bytes`](Self::bytes) are to be written, and then the stream goes [on](Self::continue_at) at the block's
    /// [`end`](MappedBlock::end).
    ///
    /// # Errors
    ///
    /// A block that passes the end of all files; misuse.
    pub fn mapped_block(&mut self) -> Result<Option<MappedBlock>, StreamError> {
        let State::MappedList(index) = self.state else {
            return Err(self.error(StreamErrorKind::Misuse("no mapped START has begun")));
        };
        let Some(info) = self.blocks.as_slice().get(index).cloned() else {
            self.put_end_of_body();
            self.state = State::Ram;
            return Ok(None);
        };
        let (base, page_size) = (self.base, self.page_size);
        let block = self.put_whole(|out| {
            put_block_name(out, &info.name);
            out.extend_from_slice(&info.bytes.to_be_bytes());
            let bitmap_offset = base + (out.len() + mapped_ram::HEADER) as u64;
            let block = MappedBlock::laid_out(info, page_size, bitmap_offset)?;
            out.extend_from_slice(&block.header(page_size));
            Ok(block)
        })?;
        self.state = State::MappedList(index + 1);
        Ok(Some(block))
    }

    /// Has the stream go on at `offset` in the file: where it begins, and behind each
    /// [mapped block](Self::mapped_block).
    ///
    /// # Errors
    ///
    /// There are bytes that are to be written before: misuse.
    pub fn continue_at(&mut self, offset: u64) -> Result<(), StreamError> {
        let unwritten = !self.bytes().is_empty();
        self.expect(!unwritten, "bytes are still to be written where the stream was")?;
        self.base = offset;
        Ok(())
    }

    fn block_list(&self, blocks: &[BlockInfo]) -> Result<BlockList, StreamError> {
        let mut list = BlockList::new(self.page_size);
        for block in blocks {
            list.push(block.clone()).map_err(|kind| self.error(kind))?;
        }
        Ok(list)
    }

    /// Begins a PART: a round, or a piece of one.
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn part_begin(&mut self) -> Result<(), StreamError> {
        self.body_begin(section::PART, false)
    }

    /// Begins END, in which the last round ends.
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn end_begin(&mut self) -> Result<(), StreamError> {
        self.body_begin(section::END, true)
    }

    fn body_begin(&mut self, kind: u8, last: bool) -> Result<(), StreamError> {
        self.expect(self.state == State::Ram, "a body comes after START and before END")?;
        self.put(&[kind]);
        self.put(&self.section_id.to_be_bytes());
        // Every body names its first block, whatever a receiver remembers of the body before.
        self.last_block = None;
        self.state = State::Body { last };
        Ok(())
    }

    /// Writes a zero page into the body. `block` is an index into the list of
    /// [`ram_start`](Self::ram_start), `offset` the page's in it.
    ///
    /// # Errors
    ///
    /// A page that the list has not; misuse.
    pub fn zero_page(&mut self, block: usize, offset: u64) -> Result<(), StreamError> {
        let same_block = self.last_block == Some(block);
        self.put_page(block, offset, Word::ZeroPage { offset, same_block })?;
        self.put(&[0]);
        Ok(())
    }

    /// Writes a page with its bytes into the body. With multifd they go over the channels instead.
    ///
    /// # Errors
    ///
    /// A page that the list has not or of another size; misuse.
    pub fn page(&mut self, block: usize, offset: u64, data: &[u8]) -> Result<(), StreamError> {
        self.expect(data.len() == self.page_size.bytes(), "a page has to be of the page size")?;
        let same_block = self.last_block == Some(block);
        self.put_page(block, offset, Word::Page { offset, same_block })?;
        self.put(data);
        Ok(())
    }

    fn put_page(&mut self, block: usize, offset: u64, word: Word) -> Result<(), StreamError> {
        self.expect_body()?;
        self.expect(self.page_size.is_aligned(offset), "a page is at a multiple of the page size")?;
        let name = match self.blocks.page(block, offset) {
            Ok(block) => &block.name,
            Err(kind) => return Err(self.error(kind)),
        };
        self.bytes.extend_from_slice(&word.to_bytes());
        if self.last_block != Some(block) {
            put_block_name(&mut self.bytes, name);
        }
        self.last_block = Some(block);
        Ok(())
    }

    /// Ends a round, inside a body. Each channel sends a SYNC for it.
    ///
    /// With [`SyncForm::EachSection`] this writes nothing: there the end of the body is the sync,
    /// so every body needs exactly one, directly before [`body_end`](Self::body_end).
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn sync(&mut self) -> Result<(), StreamError> {
        self.expect_body()?;
        self.put_sync();
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn body_end(&mut self) -> Result<(), StreamError> {
        let last = self.expect_body()?;
        self.put_end_of_body();
        self.state = if last { State::RamEnded } else { State::Ram };
        Ok(())
    }

    /// Writes an END that has a sync and nothing else.
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn ram_end(&mut self) -> Result<(), StreamError> {
        self.end_begin()?;
        self.sync()?;
        self.body_end()
    }

    /// Has the VMDESCRIPTION of the device state say what the RAM holds: the digest of each block, in
    /// the order of the blocks. A device state without a VMDESCRIPTION does not say it.
    pub fn set_digests(&mut self, digests: Vec<BlockDigest>) {
        self.digests = digests;
    }

    /// Writes a device state as [`MainEvent::DeviceState`](super::MainEvent::DeviceState) gave it. It
    /// completes the stream.
    ///
    /// # Errors
    ///
    /// Misuse, which bytes without the end of a device state are too.
    pub fn device_state(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let (sections, end) = self.end_with(bytes)?;
        self.put(sections);
        self.put(&end);
        Ok(())
    }

    /// As [`device_state`](Self::device_state), for a caller that writes its sections, which are
    /// returned, itself: a device state may be large, and is not copied then. All of
    /// [`bytes`](Self::bytes) must have been written before; then they are what comes behind the sections.
    ///
    /// # Errors
    ///
    /// As [`device_state`](Self::device_state).
    pub fn device_state_apart<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], StreamError> {
        let unwritten = !self.bytes().is_empty();
        self.expect(!unwritten, "bytes are still to be written before the device state")?;
        let (sections, end) = self.end_with(bytes)?;
        self.base += sections.len() as u64;
        self.put(&end);
        Ok(sections)
    }

    /// Takes a piece of the device state, of any size. What cannot be part of its end is to be written
    /// then; the rest is kept until [`device_state_end`](Self::device_state_end).
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn device_state_piece(&mut self, piece: &[u8]) -> Result<(), StreamError> {
        self.expect(self.state == State::RamEnded, "the device state comes after the END of ram")?;
        for piece in piece.chunks(PIECE) {
            // What a destination would not take in any more.
            let goes_on = self.described;
            let footers = self.footers;
            let collector = self.collector.get_or_insert_with(|| Collector::new(false, footers));
            let end = collector.push_to_end(piece);
            self.described = end.is_some();
            if goes_on || end.is_some_and(|end| end < piece.len()) {
                return Err(
                    self.error(StreamErrorKind::Misuse("the device state goes on behind its end"))
                );
            }
            self.bytes.extend(collector.take_behind());
        }
        Ok(())
    }

    /// Writes the end of a device state that came in pieces. It completes the stream.
    ///
    /// # Errors
    ///
    /// Misuse, which pieces are too that do not make up a whole device state: the stream then has no
    /// end, and a destination takes it for one that was cut off.
    pub fn device_state_end(&mut self) -> Result<(), StreamError> {
        let end = self.collector.take().unwrap_or_default().into_bytes();
        self.device_state(&end)
    }

    /// Completes the stream with the device state `bytes`. Returns its sections, and what comes behind
    /// them: EOF and VMDESCRIPTION.
    fn end_with<'a>(&mut self, bytes: &'a [u8]) -> Result<(&'a [u8], Cow<'a, [u8]>), StreamError> {
        self.expect(self.state == State::RamEnded, "the device state comes after the END of ram")?;
        let whole = device_state::is_whole(bytes, self.footers);
        self.expect(whole, "the device state is not whole")?;
        self.state = State::End;
        let Some((sections, json)) = device_state::split_description(bytes) else {
            let (sections, end) = bytes.split_at(bytes.len() - 1);
            return Ok((sections, end.into()));
        };
        if self.digests.is_empty() {
            return Ok((sections, (&bytes[sections.len()..]).into()));
        }
        let described = device_state::with_json(&with_digests(json, &self.digests));
        Ok((sections, described.into()))
    }

    /// Writes a device state without devices, for a stream that is only RAM. It completes the
    /// stream.
    ///
    /// # Errors
    ///
    /// Misuse.
    pub fn no_device_state(&mut self) -> Result<(), StreamError> {
        self.device_state(&device_state::without_devices(self.page_size))
    }

    /// What is to be written next.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Takes note that the first `count` of the [`bytes`](Self::bytes) were written.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn written(&mut self, count: usize) {
        assert!(count <= self.bytes().len(), "no more was written than there was");
        self.start += count;
        // So that what is never wholly written does not grow for ever.
        if self.start > self.bytes.len() / 2 || self.start == self.bytes.len() {
            self.base += self.start as u64;
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Where the stream ends so far, in bytes: those that are still to be written are counted.
    pub fn offset(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Where what belongs together is built, so that an error in it leaves nothing behind.
    fn put_whole<R>(
        &mut self,
        build: impl FnOnce(&mut Vec<u8>) -> Result<R, StreamErrorKind>,
    ) -> Result<R, StreamError> {
        let whole = self.bytes.len();
        build(&mut self.bytes).map_err(|kind| {
            self.bytes.truncate(whole);
            self.error(kind)
        })
    }

    fn error(&self, kind: StreamErrorKind) -> StreamError {
        StreamError { offset: self.offset(), kind }
    }

    fn put_sync(&mut self) {
        if self.sync == SyncForm::Flush {
            self.put(&Word::Flush.to_bytes());
        }
    }

    fn put_end_of_body(&mut self) {
        self.put(&Word::EndOfSection.to_bytes());
        if self.footers {
            self.put(&[section::FOOTER]);
            self.put(&self.section_id.to_be_bytes());
        }
    }

    /// Errs unless a body is open; says whether it is END's.
    fn expect_body(&self) -> Result<bool, StreamError> {
        match self.state {
            State::Body { last } => Ok(last),
            _ => Err(self.error(StreamErrorKind::Misuse("no body has begun"))),
        }
    }

    fn expect(&self, right: bool, otherwise: &'static str) -> Result<(), StreamError> {
        if right { Ok(()) } else { Err(self.error(StreamErrorKind::Misuse(otherwise))) }
    }
}

/// Appends the head of ram's START.
fn put_start(out: &mut Vec<u8>, section_id: u32, instance_id: u32) -> Result<(), StreamErrorKind> {
    out.push(section::START);
    out.extend_from_slice(&section_id.to_be_bytes());
    wire::put_name(out, wire::RAM, "a section")?;
    out.extend_from_slice(&instance_id.to_be_bytes());
    out.extend_from_slice(&wire::RAM_VERSION.to_be_bytes());
    Ok(())
}
