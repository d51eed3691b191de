//! Writing the main channel.

use std::io::Write;

use super::device_state;
use super::output::Output;
use super::ram::{BlockList, Word};
use super::wire::{self, command, section};
use super::{BlockInfo, Configuration, StreamError, StreamErrorKind, SyncForm};

/// Writes the main channel as QEMU does.
///
/// The order is [`header`](Self::header), [`ram_start`](Self::ram_start), bodies, the last of them
/// by [`end_begin`](Self::end_begin) or [`ram_end`](Self::ram_end), then
/// [`device_state`](Self::device_state) or [`no_device_state`](Self::no_device_state). Commands go
/// between any two of them. Anything else is a [`StreamErrorKind::Misuse`] and writes nothing.
///
/// What was written is passed on to the inner writer, and that flushed, whenever the other side may
/// have to act on it: by every method except [`zero_page`](Self::zero_page), [`page`](Self::page)
/// and those that begin a body. An error of the inner writer is final. Dropping writes nothing.
#[derive(Debug)]
pub struct MainWriter<W> {
    output: Output<W>,
    page_size: u64,
    footers: bool,
    state: State,
    section_id: u32,
    sync: SyncForm,
    blocks: BlockList,
    /// The block of the last page in this body.
    last_block: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Setup,
    Ram,
    Body { last: bool },
    RamEnded,
    End,
}

impl<W: Write> MainWriter<W> {
    /// A writer of a stream with 4 KiB pages and a FOOTER after each section, as QEMU's are.
    pub fn new(writer: W) -> Self {
        Self {
            output: Output::new(writer),
            page_size: wire::DEFAULT_PAGE_SIZE,
            footers: true,
            state: State::Header,
            section_id: 0,
            sync: SyncForm::default(),
            blocks: BlockList::new(wire::DEFAULT_PAGE_SIZE),
            last_block: None,
        }
    }

    /// Sets the page size in bytes, before the header: 4096, 16384 or 65536. What a
    /// CONFIGURATION says ([`Configuration::page_bits`]) goes before it.
    #[must_use]
    pub fn with_page_size(self, page_size: u64) -> Self {
        Self { page_size, ..self }
    }

    /// Sets, before the header, whether each section ends in a FOOTER. A QEMU wants that as its
    /// machine type says, so a stream that is given back needs what
    /// [`MainReader::footers`](super::MainReader::footers) said.
    #[must_use]
    pub fn with_footers(self, footers: bool) -> Self {
        Self { footers, ..self }
    }

    /// Starts the stream.
    ///
    /// # Errors
    ///
    /// A configuration or a page size that could not be read back; misuse; the inner writer's.
    pub fn header(&mut self, configuration: &Configuration) -> Result<(), StreamError> {
        self.expect(self.state == State::Header, "the header comes once, at the start")?;
        let page_size = match configuration.page_bits() {
            Some(bits) => 1_u64.checked_shl(bits).unwrap_or(0),
            None => self.page_size,
        };
        self.expect(wire::is_page_size(page_size), "the page size has to be 4096, 16384 or 65536")?;
        self.output.put_whole(|out| {
            out.extend_from_slice(&wire::MAGIC);
            out.extend_from_slice(&wire::VERSION.to_be_bytes());
            configuration.write(out)
        })?;
        self.page_size = page_size;
        self.state = State::Setup;
        self.output.flush(&[])
    }

    /// Says that the source waits for answers on the return path.
    ///
    /// # Errors
    ///
    /// Misuse; the inner writer's.
    pub fn open_return_path(&mut self) -> Result<(), StreamError> {
        self.command(command::OPEN_RETURN_PATH, 0, &[])
    }

    /// Asks for a [`Pong`](super::ReturnMessage::Pong) with the same number.
    ///
    /// # Errors
    ///
    /// Misuse; the inner writer's.
    pub fn ping(&mut self, number: u32) -> Result<(), StreamError> {
        self.command(command::PING, 4, &number.to_be_bytes())
    }

    /// Says that the guest has stopped. Only for machine types that know it, those of QEMU 10.0 on.
    ///
    /// # Errors
    ///
    /// Misuse; the inner writer's.
    pub fn switchover_start(&mut self) -> Result<(), StreamError> {
        self.command(command::SWITCHOVER_START, 0, &[])
    }

    fn command(&mut self, number: u16, length: u16, data: &[u8]) -> Result<(), StreamError> {
        self.expect(
            matches!(self.state, State::Setup | State::Ram | State::RamEnded),
            "a command comes between two sections",
        )?;
        self.output.put(&[section::COMMAND]);
        self.output.put(&number.to_be_bytes());
        self.output.put(&length.to_be_bytes());
        self.output.flush(data)
    }

    /// Writes START: the list of RAM blocks and the first sync, to which the first SYNC packet of
    /// each channel belongs.
    ///
    /// # Errors
    ///
    /// A list that could not be read back; misuse; the inner writer's.
    pub fn ram_start(
        &mut self,
        section_id: u32,
        instance_id: u32,
        blocks: &[BlockInfo],
        sync: SyncForm,
    ) -> Result<(), StreamError> {
        self.expect(self.state == State::Setup, "START comes once, after the header")?;
        let list = self.block_list(blocks)?;
        self.output.put_whole(|out| {
            out.push(section::START);
            out.extend_from_slice(&section_id.to_be_bytes());
            wire::put_name(out, wire::RAM, "a section")?;
            out.extend_from_slice(&instance_id.to_be_bytes());
            out.extend_from_slice(&wire::RAM_VERSION.to_be_bytes());
            list.write(out)
        })?;
        (self.section_id, self.sync, self.blocks) = (section_id, sync, list);
        self.put_sync();
        self.put_end_of_body();
        self.state = State::Ram;
        self.output.flush(&[])
    }

    fn block_list(&self, blocks: &[BlockInfo]) -> Result<BlockList, StreamError> {
        let mut list = BlockList::new(self.page_size);
        for block in blocks {
            list.push(block.clone()).map_err(|kind| self.output.error(kind))?;
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
        self.output.put(&[kind]);
        self.output.put(&self.section_id.to_be_bytes());
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
    /// A page that the list has not; misuse; the inner writer's.
    pub fn zero_page(&mut self, block: usize, offset: u64) -> Result<(), StreamError> {
        let same_block = self.last_block == Some(block);
        self.put_page(block, offset, Word::ZeroPage { offset, same_block })?;
        self.output.put(&[0]);
        self.output.pass_on_if_much()
    }

    /// Writes a page with its bytes into the body. With multifd they go over the channels instead.
    ///
    /// # Errors
    ///
    /// A page that the list has not or of another size; misuse; the inner writer's.
    pub fn page(&mut self, block: usize, offset: u64, data: &[u8]) -> Result<(), StreamError> {
        self.expect(data.len() as u64 == self.page_size, "a page has to be of the page size")?;
        let same_block = self.last_block == Some(block);
        self.put_page(block, offset, Word::Page { offset, same_block })?;
        self.output.put(data);
        self.output.pass_on_if_much()
    }

    fn put_page(&mut self, block: usize, offset: u64, word: Word) -> Result<(), StreamError> {
        self.expect_body()?;
        self.expect(offset % self.page_size == 0, "a page is at a multiple of the page size")?;
        let name = match self.blocks.page(block, offset) {
            Ok(block) => &block.name,
            Err(kind) => return Err(self.output.error(kind)),
        };
        self.output.put_whole(|out| {
            out.extend_from_slice(&word.to_bytes());
            if self.last_block == Some(block) {
                return Ok(());
            }
            wire::put_name(out, name, "the name of a RAM block")
        })?;
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
    /// Misuse; the inner writer's.
    pub fn sync(&mut self) -> Result<(), StreamError> {
        self.expect_body()?;
        self.put_sync();
        self.output.flush(&[])
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// Misuse; the inner writer's.
    pub fn body_end(&mut self) -> Result<(), StreamError> {
        let last = self.expect_body()?;
        self.put_end_of_body();
        self.state = if last { State::RamEnded } else { State::Ram };
        self.output.flush(&[])
    }

    /// Writes an END that has a sync and nothing else.
    ///
    /// # Errors
    ///
    /// Misuse; the inner writer's.
    pub fn ram_end(&mut self) -> Result<(), StreamError> {
        self.end_begin()?;
        self.sync()?;
        self.body_end()
    }

    /// Writes a device state as [`Event::DeviceState`](super::Event::DeviceState) gave it. It
    /// completes the stream.
    ///
    /// # Errors
    ///
    /// Misuse, which bytes without the end of a device state are too; the inner writer's.
    pub fn device_state(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.expect(self.state == State::RamEnded, "the device state comes after the END of ram")?;
        let whole = device_state::is_whole(bytes, self.footers);
        self.expect(whole, "the device state is not whole")?;
        self.state = State::End;
        self.output.flush(bytes)
    }

    /// Writes a device state without devices, for a stream that is only RAM. It completes the
    /// stream.
    ///
    /// # Errors
    ///
    /// Misuse; the inner writer's.
    pub fn no_device_state(&mut self) -> Result<(), StreamError> {
        self.device_state(&device_state::without_devices(self.page_size))
    }

    /// The bytes written so far.
    pub fn offset(&self) -> u64 {
        self.output.offset()
    }

    /// The inner writer. What has not been passed on to it is lost.
    pub fn into_inner(self) -> W {
        self.output.into_inner()
    }

    fn put_sync(&mut self) {
        if self.sync == SyncForm::Flush {
            self.output.put(&Word::Flush.to_bytes());
        }
    }

    fn put_end_of_body(&mut self) {
        self.output.put(&Word::EndOfSection.to_bytes());
        if self.footers {
            self.output.put(&[section::FOOTER]);
            self.output.put(&self.section_id.to_be_bytes());
        }
    }

    /// Errs unless a body is open; says whether it is END's.
    fn expect_body(&self) -> Result<bool, StreamError> {
        match self.state {
            State::Body { last } => Ok(last),
            _ => Err(self.output.error(StreamErrorKind::Misuse("no body has begun"))),
        }
    }

    fn expect(&self, right: bool, otherwise: &'static str) -> Result<(), StreamError> {
        if right { Ok(()) } else { Err(self.output.error(StreamErrorKind::Misuse(otherwise))) }
    }
}
