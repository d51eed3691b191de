//! Reading the main channel.

use std::fmt;
use std::io::Read;

use super::device_state::{self, Collector};
use super::input::{Input, SHORT};
use super::ram::{BlockList, Word};
use super::wire::{self, command, section};
use super::{BlockInfo, Configuration, Event, Limits, StreamError, StreamErrorKind, SyncForm};

const BUFFER: usize = 64 << 10;

/// Reads the main channel and says what it says, event by event.
///
/// What it gives has been checked against the format, so a caller need only ask whether it has RAM
/// blocks like these. It reads ahead by up to 64 KiB, but never waits for bytes that the next event
/// does not need. An error ends it.
///
/// A source with a return path does not close the stream at its end, so there
/// [`Event::DeviceState`] comes as soon as a whole VMDESCRIPTION has arrived; such a source must
/// not suppress it (QEMU's machine option `suppress-vmdesc`).
pub struct MainReader<R> {
    input: Input<R>,
    limits: Limits,
    page_size: u64,
    state: State,
    ram: Option<Ram>,
    return_path: bool,
    footers: bool,
    pass_device_state: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    /// Between sections; after a section's body, its FOOTER may be next.
    Sections {
        footer: bool,
    },
    /// The list in START was read, and with [`SyncForm::EachSection`] the EOS.
    StartSync,
    StartEnd,
    Body {
        last: bool,
    },
    /// After the EOS of a PART or END.
    BodyEnd {
        last: bool,
    },
    End,
    Failed,
}

/// What START said, and how far its section has come.
#[derive(Debug)]
struct Ram {
    section_id: u32,
    sync: SyncForm,
    blocks: BlockList,
    last_block: Option<usize>,
    /// Whether the body being read has had a flush.
    flushed: bool,
    ended: bool,
}

impl<R: Read> MainReader<R> {
    /// A reader of a stream from its first byte on, the `Q` of `QEVM`.
    pub fn new(reader: R, limits: Limits) -> Self {
        Self {
            input: Input::new(reader, BUFFER),
            page_size: limits.page_size.unwrap_or(wire::DEFAULT_PAGE_SIZE),
            limits,
            state: State::Header,
            ram: None,
            return_path: false,
            footers: false,
            pass_device_state: false,
        }
    }

    /// The same reader, which looks for the end of the device state and keeps none of it: the
    /// bytes of its [`Event::DeviceState`] are the last ones, and the limit is none.
    pub(crate) fn passing_device_state(self) -> Self {
        Self { pass_device_state: true, ..self }
    }

    /// What the stream says next. Waits for it where it has not arrived.
    ///
    /// # Errors
    ///
    /// A stream that is not as the format wants it, that is too short, that has something
    /// unsupported in it, or that cannot be read. The reader is then at its end.
    pub fn next_event(&mut self) -> Result<Event, StreamError> {
        loop {
            match self.step() {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(kind) => {
                    self.state = State::Failed;
                    return Err(self.input.error(kind));
                }
            }
        }
    }

    /// The bytes read so far, up to the last event.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// The page size in bytes. Certain from [`Event::Configuration`] on.
    pub fn page_size(&self) -> u64 {
        self.page_size
    }

    /// Whether the sections end in a FOOTER. Known at [`Event::End`].
    pub fn footers(&self) -> bool {
        self.footers
    }

    fn step(&mut self) -> Result<Option<Event>, StreamErrorKind> {
        match self.state {
            State::Header => self.header().map(Some),
            State::Sections { footer } => self.section(footer),
            State::StartSync => self.start_sync().map(Some),
            State::StartEnd => self.start_end(),
            State::Body { last } => self.word(last),
            State::BodyEnd { last } => {
                self.state = State::Sections { footer: true };
                Ok(Some(Event::BodyEnd { last }))
            }
            State::End => Ok(Some(Event::End)),
            State::Failed => Err(StreamErrorKind::Misuse("the stream was read on after an error")),
        }
    }

    fn header(&mut self) -> Result<Event, StreamErrorKind> {
        if !wire::is_page_size(self.page_size) {
            return Err(StreamErrorKind::Misuse(
                "the page size to expect has to be 4096, 16384 or 65536",
            ));
        }
        let magic = self.input.array("the header")?;
        if magic != wire::MAGIC {
            return Err(StreamErrorKind::Magic(magic));
        }
        let version = self.input.u32("the header")?;
        if version != wire::VERSION {
            return Err(StreamErrorKind::Version(version));
        }
        self.input.begin_item();
        let configuration = Configuration::read(&mut self.input)?;
        if let Some(bits) = configuration.page_bits() {
            let found = 1 << bits;
            if let Some(expected) = self.limits.page_size.filter(|&expected| expected != found) {
                return Err(StreamErrorKind::PageSizeMismatch { expected, found });
            }
            self.page_size = found;
        }
        if configuration.capabilities().iter().any(|name| name == "x-ignore-shared") {
            return Err(StreamErrorKind::UnsupportedCapability("x-ignore-shared"));
        }
        self.state = State::Sections { footer: false };
        Ok(Event::Configuration(configuration))
    }

    fn section(&mut self, footer: bool) -> Result<Option<Event>, StreamErrorKind> {
        self.input.begin_item();
        self.state = State::Sections { footer: false };
        let kind = self.input.peek("a section")?;
        if matches!(kind, section::FULL | section::EOF) {
            return self.device_state().map(Some);
        }
        self.input.u8("a section")?;
        match kind {
            section::START => self.start().map(Some),
            section::PART => self.body("a PART", false),
            section::END => self.body("an END", true),
            section::COMMAND => self.command().map(Some),
            section::FOOTER if footer => self.footer(),
            section::FOOTER => Err(StreamErrorKind::Misplaced("a FOOTER comes after no section")),
            section::CONFIGURATION => {
                Err(StreamErrorKind::Misplaced("a CONFIGURATION comes after the first section"))
            }
            section::DESCRIPTION => {
                Err(StreamErrorKind::Misplaced("a VMDESCRIPTION comes before the EOF"))
            }
            _ => Err(StreamErrorKind::UnknownSection(kind)),
        }
    }

    fn command(&mut self) -> Result<Event, StreamErrorKind> {
        let what = "a COMMAND";
        let number = self.input.u16(what)?;
        let length = self.input.u16(what)?;
        match (number, length) {
            (command::OPEN_RETURN_PATH, 0) => {
                self.return_path = true;
                Ok(Event::OpenReturnPath)
            }
            (command::PING, 4) => Ok(Event::Ping(self.input.u32("a PING")?)),
            (command::SWITCHOVER_START, 0) => Ok(Event::SwitchoverStart),
            _ => Err(command::refusal(number, length)),
        }
    }

    fn footer(&mut self) -> Result<Option<Event>, StreamErrorKind> {
        let found = self.input.u32("a FOOTER")?;
        started(&mut self.ram)?.check_id("a FOOTER", found)?;
        self.footers = true;
        Ok(None)
    }

    /// START up to where the form of its sync is known.
    fn start(&mut self) -> Result<Event, StreamErrorKind> {
        let what = "a START";
        let section_id = self.input.u32(what)?;
        let mut idstr = [0; SHORT];
        let idstr = self.input.short(&mut idstr, what)?;
        if idstr != wire::RAM.as_bytes() {
            let name = String::from_utf8_lossy(idstr).into_owned();
            return Err(StreamErrorKind::ForeignSection(name));
        }
        if self.ram.is_some() {
            return Err(StreamErrorKind::Misplaced("the ram section has a second START"));
        }
        let instance_id = self.input.u32(what)?;
        let version = self.input.u32(what)?;
        if version != wire::RAM_VERSION {
            return Err(StreamErrorKind::RamVersion(version));
        }
        let blocks = self.block_list()?;
        let sync = match self.next_word()? {
            Word::Flush => SyncForm::Flush,
            Word::EndOfSection => SyncForm::EachSection,
            _ => return Err(ONLY_THE_LIST),
        };
        let event =
            Event::RamStart { section_id, instance_id, blocks: blocks.as_slice().to_vec(), sync };
        self.ram =
            Some(Ram { section_id, sync, blocks, last_block: None, flushed: false, ended: false });
        self.state = State::StartSync;
        Ok(event)
    }

    fn block_list(&mut self) -> Result<BlockList, StreamErrorKind> {
        let Word::MemSize { total } = self.next_word()? else { return Err(ONLY_THE_LIST) };
        let mut blocks = BlockList::new(self.page_size);
        let mut left = total;
        while left > 0 {
            self.input.begin_item();
            let name = self.input.name("the name of a RAM block")?;
            let bytes = self.input.u64("the list of RAM blocks")?;
            let Some(rest) = left.checked_sub(bytes) else {
                return Err(StreamErrorKind::BlockTotal { name, total });
            };
            blocks.push(BlockInfo { name, bytes })?;
            left = rest;
        }
        if blocks.as_slice().is_empty() {
            return Err(StreamErrorKind::Misplaced("the list of RAM blocks is empty"));
        }
        Ok(blocks)
    }

    fn start_sync(&mut self) -> Result<Event, StreamErrorKind> {
        self.state = match started(&mut self.ram)?.sync {
            SyncForm::Flush => State::StartEnd,
            SyncForm::EachSection => State::Sections { footer: true },
        };
        Ok(Event::Sync)
    }

    fn start_end(&mut self) -> Result<Option<Event>, StreamErrorKind> {
        match self.next_word()? {
            Word::EndOfSection => self.state = State::Sections { footer: true },
            _ => return Err(ONLY_THE_LIST),
        }
        Ok(None)
    }

    fn body(&mut self, what: &'static str, last: bool) -> Result<Option<Event>, StreamErrorKind> {
        let found = self.input.u32(what)?;
        let ram = started(&mut self.ram)?;
        ram.check_id(what, found)?;
        if ram.ended {
            return Err(StreamErrorKind::Misplaced("the ram section goes on after its END"));
        }
        ram.ended = last;
        ram.flushed = false;
        self.state = State::Body { last };
        Ok(None)
    }

    fn word(&mut self, last: bool) -> Result<Option<Event>, StreamErrorKind> {
        let word = self.next_word()?;
        let ram = started(&mut self.ram)?;
        match (word, ram.sync) {
            (Word::ZeroPage { offset, same_block }, _) => {
                let block = ram.block_of_page(&mut self.input, offset, same_block)?;
                match self.input.u8("a zero page")? {
                    0 => Ok(Some(Event::ZeroPage { block, offset })),
                    fill => Err(StreamErrorKind::Fill(fill)),
                }
            }
            (Word::Page { offset, same_block }, _) => {
                let block = ram.block_of_page(&mut self.input, offset, same_block)?;
                let mut data = vec![0; self.page_size as usize].into_boxed_slice();
                self.input.exact(&mut data, "a page")?;
                Ok(Some(Event::Page { block, offset, data }))
            }
            (Word::Flush, SyncForm::Flush) => {
                ram.flushed = true;
                Ok(Some(Event::Sync))
            }
            (Word::Flush, SyncForm::EachSection) => Err(StreamErrorKind::Misplaced(
                "there is a MULTIFD_FLUSH, but none was in the START of ram",
            )),
            (Word::EndOfSection, SyncForm::Flush) if last && !ram.flushed => {
                Err(StreamErrorKind::Misplaced("the END of ram has no MULTIFD_FLUSH"))
            }
            (Word::EndOfSection, sync) => {
                self.state = State::BodyEnd { last };
                Ok((sync == SyncForm::EachSection).then_some(Event::Sync))
            }
            (Word::MemSize { .. }, _) => Err(StreamErrorKind::Misplaced(
                "there is a list of RAM blocks outside the START of ram",
            )),
        }
    }

    fn next_word(&mut self) -> Result<Word, StreamErrorKind> {
        self.input.begin_item();
        Word::parse(self.input.u64("the ram section")?, self.page_size)
    }

    /// Everything up to the end of the stream.
    fn device_state(&mut self) -> Result<Event, StreamErrorKind> {
        let what = "the device state";
        if !self.ram.as_ref().is_some_and(|ram| ram.ended) {
            return Err(StreamErrorKind::Misplaced(
                "the device state or the EOF comes before the END of ram",
            ));
        }
        let mut collector = Collector::new(self.pass_device_state);
        let limit = self.limits.device_state;
        // Asking for more would wait forever where all has come and the source waits for an answer.
        while !(self.return_path && collector.is_described()) {
            let Some(chunk) = self.input.chunk(what)? else { break };
            if !self.pass_device_state && chunk.len() > limit - collector.len() {
                return Err(StreamErrorKind::DeviceStateTooLarge { limit });
            }
            collector.push(chunk);
        }
        let bytes = collector.into_bytes();
        if !device_state::is_whole(&bytes, self.footers) {
            return Err(match device_state::trailing(&bytes) {
                Some(bytes) => StreamErrorKind::Trailing { bytes },
                None => StreamErrorKind::Truncated { what },
            });
        }
        self.state = State::End;
        Ok(Event::DeviceState(bytes))
    }
}

impl Ram {
    fn check_id(&self, what: &'static str, found: u32) -> Result<(), StreamErrorKind> {
        let expected = self.section_id;
        if found == expected {
            Ok(())
        } else {
            Err(StreamErrorKind::SectionId { what, found, expected })
        }
    }

    /// The block that a page at `offset` is in. A source sends millions of these, most of them in
    /// the same block as the one before.
    fn block_of_page<R: Read>(
        &mut self,
        input: &mut Input<R>,
        offset: u64,
        same_block: bool,
    ) -> Result<usize, StreamErrorKind> {
        if !same_block {
            let mut name = [0; SHORT];
            let name = input.short(&mut name, "the name of a page's RAM block")?;
            let block = self.blocks.find(name).ok_or_else(|| {
                StreamErrorKind::UnknownBlock(String::from_utf8_lossy(name).into_owned())
            })?;
            self.last_block = Some(block);
        }
        let block = self.last_block.ok_or(StreamErrorKind::NoLastBlock)?;
        self.blocks.page(block, offset)?;
        Ok(block)
    }
}

const ONLY_THE_LIST: StreamErrorKind = StreamErrorKind::Misplaced(
    "the START of ram has something in it other than the list of RAM blocks and one MULTIFD_FLUSH",
);

fn started(ram: &mut Option<Ram>) -> Result<&mut Ram, StreamErrorKind> {
    ram.as_mut().ok_or(StreamErrorKind::Misplaced("the ram section goes on before its START"))
}

impl<R> fmt::Debug for MainReader<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MainReader")
            .field("input", &self.input)
            .field("state", &self.state)
            .field("ram", &self.ram)
            .finish_non_exhaustive()
    }
}
