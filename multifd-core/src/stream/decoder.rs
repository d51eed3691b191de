//! The main channel, from its bytes to what they say.

use std::mem;

use super::body::{InBody, RamSection};
use super::configuration_decoder::ConfigurationDecoder;
use super::described_digests::{digests, without_digests};
use super::device_state::{self, Collector};
use super::early::{self, EarlySection, Ended, Place};
use super::input::{Input, Stop};
use super::mapped_ram;
use super::ram::Word;
use super::start::{ONLY_THE_LIST, Start, StartDecoder, StartPlace, Started};
use super::wire::{self, command, section};
use super::{
    AFTER_AN_ERROR, Configuration, Limits, MainEvent, PostcopyAdvise, StreamError, StreamErrorKind,
    SyncForm,
};
use crate::PageSize;
use crate::ram::BlockDigest;

/// Decodes the main channel: it is given the bytes as they come and says what they say, event by
/// event.
///
/// What it says has been checked against the format, so a caller need only ask whether it has RAM
/// blocks like these. How the bytes are split changes neither the events nor where they end nor what
/// is refused. No bytes are kept but those of the field that has not wholly come (64 KiB at most),
/// of an early section and of the device state. An error ends it.
///
/// A source with a return path does not close the stream at its end, so there
/// [`MainEvent::DeviceState`] comes with the first bytes that are a whole EOF and VMDESCRIPTION,
/// behind a FOOTER where the stream has these; such a source must not suppress it (QEMU's machine
/// option `suppress-vmdesc`). Bytes behind it are for the caller to refuse: see
/// [`expect_end`](Self::expect_end). All other streams end where they are
/// closed: [`finish`](Self::finish) gives their device state.
///
/// ```
/// use multifd_core::stream::{Limits, MainDecoder, StreamError};
///
/// # fn example(stream: &[u8]) -> Result<(), StreamError> {
/// let mut decoder = MainDecoder::new(Limits::default());
/// for mut bytes in stream.chunks(1000) {
///     while let Some(event) = decoder.next(&mut bytes)? {
///         println!("{event:?} ends at byte {} of the stream", decoder.offset());
///     }
/// }
/// if let Some(event) = decoder.finish()? {
///     println!("{event:?} ends with the stream");
/// }
/// # Ok(())
/// # }
/// # example(b"QEVM").unwrap_err();
/// ```
#[derive(Debug)]
pub struct MainDecoder {
    input: Input,
    limits: Limits,
    page_size: PageSize,
    next: Next,
    /// There from the end of START's list on.
    ram: Option<RamSection>,
    return_path: bool,
    footers: bool,
    pass_device_state: bool,
    device_state_in_pieces: bool,
    /// Bytes of it that have come.
    device_state: usize,
    pass_postcopy: bool,
    is_mapped: bool,
    /// Bytes of early state so far.
    early_state: usize,
    /// What came behind an early section before its end showed, and is still to be decoded. Less
    /// than the head of another section.
    replay: Vec<u8>,
    digests: Option<Vec<BlockDigest>>,
    described: bool,
}

/// What comes next.
#[derive(Debug)]
enum Next {
    Magic,
    Version,
    Configuration(ConfigurationDecoder),
    /// The start of a section; or, after a section's body, its FOOTER.
    Section {
        footer: bool,
    },
    Command,
    Ping,
    Advise,
    Early(EarlySection),
    Footer,
    Start(StartDecoder),
    /// The FOOTER of a dirty-bitmap section that ends in its START, without bitmaps.
    NoBitmapsFooter {
        section_id: u32,
        instance_id: u32,
    },
    /// The list in START has been read, and with [`SyncForm::EachSection`] the EOS.
    StartSync,
    StartEnd,
    BodyId {
        last: bool,
    },
    Body,
    /// After the EOS of a PART or END.
    BodyEnd,
    DeviceState(Collector),
    /// The source has switched to postcopy: whatever comes is passed over, to the end.
    Postcopy,
    /// The last piece of the device state has been given.
    DeviceStateEnd,
    /// The stream is complete.
    Over,
    Failed,
}

impl MainDecoder {
    /// A decoder of a stream from its first byte on, the `Q` of `QEVM`.
    pub fn new(limits: Limits) -> Self {
        Self {
            input: Input::new(),
            page_size: limits.page_size.unwrap_or_default(),
            limits,
            next: Next::Magic,
            ram: None,
            return_path: false,
            footers: false,
            pass_device_state: false,
            device_state_in_pieces: false,
            device_state: 0,
            pass_postcopy: false,
            is_mapped: false,
            early_state: 0,
            replay: Vec::new(),
            digests: None,
            described: false,
        }
    }

    /// The same decoder, which only looks for the end of the device state and does not keep it: its
    /// [`MainEvent::DeviceState`] has the last bytes alone, and the size is not limited.
    #[must_use]
    pub fn passing_device_state(self) -> Self {
        Self { pass_device_state: true, ..self }
    }

    /// The same decoder, which gives the device state as it comes, in
    /// [`MainEvent::DeviceStatePiece`]s of any size. What may be its end is held back until it is known.
    /// Its [`MainEvent::DeviceState`] is empty. The size is limited all the same.
    #[must_use]
    pub fn giving_device_state_in_pieces(self) -> Self {
        Self { device_state_in_pieces: true, ..self }
    }

    /// The same decoder, which goes along with a source that switches to postcopy: it says
    /// [`MainEvent::Postcopy`] then, and passes over all that comes after it.
    #[must_use]
    pub fn passing_postcopy(self) -> Self {
        Self { pass_postcopy: true, ..self }
    }

    /// The same decoder, of the stream in a mapped-ram file: its RAM blocks are given as
    /// [`MainEvent::MappedBlock`]s, and a stream of another kind is refused. In such a stream nobody waits for an answer, and
    /// its syncs mean nothing. `offset` is where in the file it begins.
    #[must_use]
    pub fn of_mapped_ram(self, offset: u64) -> Self {
        let mut decoder = Self { is_mapped: true, ..self };
        decoder.continue_at(offset);
        decoder
    }

    /// Has the stream go on at `offset` in the file, behind the pages of a [`MainEvent::MappedBlock`]: the bytes that come next
    /// are those.
    pub fn continue_at(&mut self, offset: u64) {
        self.input.continue_at(offset);
    }

    /// Takes bytes off the front of `bytes`, up to the end of the next event, and gives this. `None`
    /// means that all were taken and that it needs more to say something; or, after
    /// [`MainEvent::DeviceState`], that the stream is complete and what is left in `bytes` is not of
    /// it. Where an event has ended in earlier bytes, which only these show, none of them are taken.
    ///
    /// # Errors
    ///
    /// A stream that is against the format, or that has something unsupported in it. Every later
    /// call is an error then.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, StreamError> {
        if !self.replay.is_empty() {
            let replay = mem::take(&mut self.replay);
            let mut rest = &replay[..];
            let event = self.next_of(&mut rest)?;
            // Behind what another early section may have put there.
            self.replay.extend_from_slice(rest);
            if event.is_some() {
                return Ok(event);
            }
        }
        self.next_of(bytes)
    }

    fn next_of(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, StreamError> {
        loop {
            match self.step(bytes) {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(Stop::Wait) => return Ok(None),
                Err(Stop::Refused(kind)) => return Err(self.refuse(kind)),
            }
        }
    }

    /// Takes note that the stream has ended, once [`next`](Self::next) has given `None`. The device
    /// state of a source without a return path ends there, and is given; call again where that was in
    /// pieces. `None` where it has been given before.
    ///
    /// # Errors
    ///
    /// A stream that is cut off, or that has something behind its VMDESCRIPTION. Every later call is
    /// an error then.
    pub fn finish(&mut self) -> Result<Option<MainEvent>, StreamError> {
        match &mut self.next {
            Next::Over => Ok(None),
            Next::DeviceStateEnd => {
                self.next = Next::Over;
                Ok(Some(MainEvent::DeviceState(Vec::new())))
            }
            Next::Postcopy => {
                self.next = Next::Over;
                Ok(None)
            }
            Next::Failed => Err(self.refuse(AFTER_AN_ERROR)),
            Next::DeviceState(collector) => {
                let bytes = mem::take(collector).into_bytes();
                if device_state::is_whole(&bytes, self.footers) {
                    let event = self.device_state_ended(bytes);
                    return event.map(Some).map_err(|kind| self.refuse(kind));
                }
                Err(self.refuse(match device_state::trailing(&bytes) {
                    Some(bytes) => StreamErrorKind::Trailing { bytes },
                    None => self.input.truncated(),
                }))
            }
            _ => Err(self.refuse(self.input.truncated())),
        }
    }

    /// The bytes of the stream that were taken so far: where the last event ends, once one is given.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// The page size. Certain from [`MainEvent::Configuration`] on.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// What the source says its RAM holds, a digest for each block in the order of `RamStart`; `None`
    /// where it does not, as a QEMU. Known at [`MainEvent::DeviceState`], and not to a decoder that does
    /// not keep the device state.
    pub fn digests(&self) -> Option<&[BlockDigest]> {
        self.digests.as_deref()
    }

    /// Whether the device state has a VMDESCRIPTION, which is where [`digests`](Self::digests) are. Known
    /// as they are.
    pub fn is_described(&self) -> bool {
        self.described
    }

    /// Whether the sections end in a FOOTER. Known at [`MainEvent::DeviceState`].
    pub fn footers(&self) -> bool {
        self.footers
    }

    /// Checks that nothing follows a stream that is complete: `rest` is what has come behind it.
    ///
    /// # Errors
    ///
    /// [`StreamErrorKind::Trailing`]: what was taken for the end was a device's own state, or the
    /// source says more than the format allows.
    pub fn expect_end(&self, rest: &[u8]) -> Result<(), StreamError> {
        match rest.len() {
            0 => Ok(()),
            bytes => Err(StreamError {
                offset: self.offset(),
                kind: StreamErrorKind::Trailing { bytes },
            }),
        }
    }

    /// Whether the stream is complete: [`MainEvent::DeviceState`] has been given.
    pub fn is_over(&self) -> bool {
        matches!(self.next, Next::Over)
    }

    fn refuse(&mut self, kind: StreamErrorKind) -> StreamError {
        self.next = Next::Failed;
        self.input.error(kind)
    }

    /// Takes one field, or what has come of it. `None` where that says nothing yet.
    fn step(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, Stop> {
        match &mut self.next {
            Next::Magic => self.magic(bytes),
            Next::Version => self.version(bytes),
            Next::Configuration(decoder) => {
                let configuration = decoder.next(&mut self.input, bytes)?;
                self.configured(configuration)
            }
            &mut Next::Section { footer } => self.section(bytes, footer),
            Next::Command => self.command(bytes),
            Next::Ping => {
                let number = self.input.u32(bytes, "a PING")?;
                Ok(self.between_sections(MainEvent::Ping(number)))
            }
            Next::Advise => {
                let data = self.input.array(bytes, "a POSTCOPY_ADVISE")?;
                let advise = PostcopyAdvise::of_ram(data);
                Ok(self.between_sections(MainEvent::PostcopyAdvise(advise)))
            }
            Next::Early(_) => self.early(bytes),
            Next::Footer => self.footer(bytes),
            Next::Start(decoder) => match decoder.next(&mut self.input, bytes)? {
                Started::Ram(start) => Ok(self.started(start)),
                Started::Mapped(block) => Ok(Some(MainEvent::MappedBlock(block))),
                Started::NoBitmaps { section_id, instance_id } => {
                    self.next = Next::NoBitmapsFooter { section_id, instance_id };
                    Ok(None)
                }
            },
            &mut Next::NoBitmapsFooter { section_id, instance_id } => {
                self.no_bitmaps_footer(bytes, section_id, instance_id)
            }
            Next::StartSync => self.start_sync(),
            Next::StartEnd => self.start_end(bytes),
            &mut Next::BodyId { last } => self.body_id(bytes, last),
            Next::Body => self.body(bytes),
            Next::BodyEnd => self.body_end(),
            Next::DeviceState(_) => self.device_state(bytes),
            Next::Postcopy => {
                self.input.skip(bytes, bytes.len());
                Err(Stop::Wait)
            }
            Next::DeviceStateEnd => {
                self.next = Next::Over;
                Ok(Some(MainEvent::DeviceState(Vec::new())))
            }
            Next::Over => Err(Stop::Wait),
            Next::Failed => Err(AFTER_AN_ERROR.into()),
        }
    }

    fn magic(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, Stop> {
        let magic = self.input.array(bytes, "the header")?;
        if magic != wire::MAGIC {
            return Err(StreamErrorKind::Magic(magic).into());
        }
        self.next = Next::Version;
        Ok(None)
    }

    fn version(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, Stop> {
        let version = self.input.u32(bytes, "the header")?;
        if version != wire::VERSION {
            return Err(StreamErrorKind::Version(version).into());
        }
        self.input.begin_item();
        self.next = Next::Configuration(ConfigurationDecoder::default());
        Ok(None)
    }

    fn configured(&mut self, configuration: Configuration) -> Result<Option<MainEvent>, Stop> {
        if let Some(found) = configuration.page_size() {
            if let Some(expected) = self.limits.page_size.filter(|&expected| expected != found) {
                return Err(StreamErrorKind::PageSizeMismatch { expected, found }.into());
            }
            self.page_size = found;
        }
        let is_mapped =
            configuration.capabilities().iter().any(|name| name == mapped_ram::CAPABILITY);
        match (is_mapped, self.is_mapped) {
            (true, false) => return Err(StreamErrorKind::MappedRam.into()),
            (false, true) => return Err(StreamErrorKind::NotMappedRam.into()),
            (true, true) | (false, false) => {}
        }
        if configuration.capabilities().iter().any(|name| name == "x-ignore-shared") {
            return Err(StreamErrorKind::UnsupportedCapability("x-ignore-shared").into());
        }
        Ok(self.between_sections(MainEvent::Configuration(configuration)))
    }

    fn between_sections(&mut self, event: MainEvent) -> Option<MainEvent> {
        self.next = Next::Section { footer: false };
        Some(event)
    }

    fn section(&mut self, bytes: &mut &[u8], footer: bool) -> Result<Option<MainEvent>, Stop> {
        self.input.begin_item();
        let kind = self.input.peek(bytes, "a section")?;
        let misplaced = |what| Err(StreamErrorKind::Misplaced(what).into());
        self.next = match kind {
            section::FULL if !self.is_ram_ended() => {
                // This byte is part of it.
                self.next = Next::Early(self.early_section()?);
                return Ok(None);
            }
            section::FULL | section::EOF => {
                if !self.is_ram_ended() {
                    return misplaced("the EOF comes before the END of ram");
                }
                // This byte is part of it.
                let collector = Collector::new(self.pass_device_state, self.footers);
                self.next = Next::DeviceState(collector);
                return Ok(None);
            }
            section::START => self.start(),
            section::PART => Next::BodyId { last: false },
            section::END => Next::BodyId { last: true },
            section::COMMAND => Next::Command,
            section::FOOTER if footer => Next::Footer,
            section::FOOTER => return misplaced("a FOOTER comes after no section"),
            section::CONFIGURATION => {
                return misplaced("a CONFIGURATION comes after the first section");
            }
            section::DESCRIPTION => return misplaced("a VMDESCRIPTION comes before the EOF"),
            _ => return Err(StreamErrorKind::UnknownSection(kind).into()),
        };
        self.input.skip(bytes, 1);
        Ok(None)
    }

    fn command(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, Stop> {
        let [a, b, c, d] = self.input.array(bytes, "a COMMAND")?;
        match (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])) {
            (command::OPEN_RETURN_PATH, 0) => {
                self.return_path = !self.is_mapped;
                Ok(self.between_sections(MainEvent::OpenReturnPath))
            }
            (command::PING, 4) => {
                self.next = Next::Ping;
                Ok(None)
            }
            (command::POSTCOPY_ADVISE, 0) => {
                let advise = PostcopyAdvise::DirtyBitmaps;
                Ok(self.between_sections(MainEvent::PostcopyAdvise(advise)))
            }
            (command::POSTCOPY_ADVISE, 16) => {
                self.next = Next::Advise;
                Ok(None)
            }
            (command::SWITCHOVER_START, 0) => Ok(self.between_sections(MainEvent::SwitchoverStart)),
            (number, _) if self.pass_postcopy && command::starts_postcopy(number) => {
                self.next = Next::Postcopy;
                Ok(Some(MainEvent::Postcopy))
            }
            (number, length) => Err(command::refusal(number, length).into()),
        }
    }

    fn is_ram_ended(&self) -> bool {
        self.ram.as_ref().is_some_and(RamSection::is_ended)
    }

    fn start(&self) -> Next {
        let place = self.start_place();
        let is_mapped = self.is_mapped && place == StartPlace::First;
        Next::Start(StartDecoder::new(self.page_size, place, is_mapped))
    }

    fn start_place(&self) -> StartPlace {
        match &self.ram {
            None => StartPlace::First,
            Some(ram) if ram.is_ended() => StartPlace::BehindEnd,
            Some(_) => StartPlace::BehindStart,
        }
    }

    fn early_section(&self) -> Result<EarlySection, StreamErrorKind> {
        match &self.ram {
            None => Ok(EarlySection::new(Place::BeforeStart)),
            Some(_) if !self.footers => Err(early::NO_FOOTERS),
            Some(ram) => Ok(EarlySection::new(Place::InRam(ram.section_id()))),
        }
    }

    fn early(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, Stop> {
        self.input.peek(bytes, "the state of a device before the RAM")?;
        let Next::Early(section) = &mut self.next else { return Ok(None) };
        let limit = self.limits.early_state;
        let allowed = limit - self.early_state;
        // Behind the section there may be what tells that it has ended.
        let most = allowed.saturating_add(early::MOST_BEHIND);
        let accepted = &bytes[..bytes.len().min(most - section.len())];
        let Some(Ended { section, behind, taken }) = section.push(accepted)? else {
            self.input.skip(bytes, accepted.len());
            if section.len() < most {
                return Err(Stop::Wait);
            }
            return Err(StreamErrorKind::EarlyStateTooLarge { limit }.into());
        };
        self.input.skip(bytes, taken);
        self.input.put_back(behind.len());
        self.replay = behind;
        self.early_state(section)
    }

    /// Gives a section whose last byte has been taken.
    fn early_state(&mut self, section: Vec<u8>) -> Result<Option<MainEvent>, Stop> {
        let limit = self.limits.early_state;
        if section.len() > limit - self.early_state {
            return Err(StreamErrorKind::EarlyStateTooLarge { limit }.into());
        }
        self.early_state += section.len();
        Ok(self.between_sections(MainEvent::EarlyState(section)))
    }

    fn no_bitmaps_footer(
        &mut self,
        bytes: &mut &[u8],
        section_id: u32,
        instance_id: u32,
    ) -> Result<Option<MainEvent>, Stop> {
        const WHAT: &str = "the FOOTER of the dirty-bitmap section";
        if self.footers {
            let [kind, a, b, c, d] = self.input.array(bytes, WHAT)?;
            let found = u32::from_be_bytes([a, b, c, d]);
            if kind != section::FOOTER {
                return Err(StreamErrorKind::UnknownSection(kind).into());
            }
            if found != section_id {
                return Err(
                    StreamErrorKind::SectionId { what: WHAT, found, expected: section_id }.into()
                );
            }
        }
        self.early_state(early::no_bitmaps(section_id, instance_id, self.footers))
    }

    fn footer(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, Stop> {
        let found = self.input.u32(bytes, "a FOOTER")?;
        ram(&mut self.ram)?.check_id("a FOOTER", found)?;
        self.footers = true;
        self.next = Next::Section { footer: false };
        Ok(None)
    }

    fn started(&mut self, start: Start) -> Option<MainEvent> {
        let Start { section_id, instance_id, blocks, sync } = start;
        let list = blocks.as_slice().to_vec();
        self.ram = Some(RamSection::new(section_id, blocks, sync, self.is_mapped));
        self.next = Next::StartSync;
        Some(MainEvent::RamStart { section_id, instance_id, blocks: list, sync })
    }

    fn start_sync(&mut self) -> Result<Option<MainEvent>, Stop> {
        self.next = match ram(&mut self.ram)?.sync() {
            SyncForm::Flush => Next::StartEnd,
            SyncForm::EachSection => Next::Section { footer: true },
        };
        Ok(Some(MainEvent::Sync))
    }

    fn start_end(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, Stop> {
        match self.input.word(bytes, self.page_size)? {
            Word::EndOfSection => self.next = Next::Section { footer: true },
            _ => return Err(ONLY_THE_LIST.into()),
        }
        Ok(None)
    }

    fn body_id(&mut self, bytes: &mut &[u8], last: bool) -> Result<Option<MainEvent>, Stop> {
        let what = if last { "an END" } else { "a PART" };
        let found = self.input.u32(bytes, what)?;
        let ram = ram(&mut self.ram)?;
        ram.check_id(what, found)?;
        ram.begin(last)?;
        self.next = Next::Body;
        Ok(None)
    }

    fn body(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, Stop> {
        match ram(&mut self.ram)?.next(&mut self.input, bytes)? {
            InBody::Event(event) => Ok(Some(event)),
            InBody::End(sync) => {
                self.next = Next::BodyEnd;
                Ok((sync == SyncForm::EachSection).then_some(MainEvent::Sync))
            }
        }
    }

    fn body_end(&mut self) -> Result<Option<MainEvent>, Stop> {
        self.next = Next::Section { footer: true };
        Ok(Some(MainEvent::BodyEnd { last: ram(&mut self.ram)?.is_ended() }))
    }

    fn device_state(&mut self, bytes: &mut &[u8]) -> Result<Option<MainEvent>, Stop> {
        self.input.peek(bytes, "the device state")?;
        let Next::DeviceState(collector) = &mut self.next else { return Ok(None) };
        let limit = if self.pass_device_state { usize::MAX } else { self.limits.device_state };
        let accepted = &bytes[..bytes.len().min(limit - self.device_state)];
        let end = if self.return_path {
            // The source waits for an answer then and does not close the stream.
            collector.push_to_end(accepted)
        } else {
            collector.push(accepted);
            None
        };
        let count = end.unwrap_or(accepted.len());
        let all = end.is_some().then(|| mem::take(collector).into_bytes());
        let piece = if self.device_state_in_pieces { collector.take_behind() } else { Vec::new() };
        let refused = count < bytes.len() && end.is_none();
        self.input.skip(bytes, count);
        self.device_state += count;
        match all {
            Some(bytes) => Ok(Some(self.device_state_ended(bytes)?)),
            None if refused => Err(StreamErrorKind::DeviceStateTooLarge { limit }.into()),
            None if !piece.is_empty() => Ok(Some(MainEvent::DeviceStatePiece(piece))),
            None => Err(Stop::Wait),
        }
    }

    /// The device state ends in `bytes`, which are all that has not been given in pieces. What the
    /// source has put into them of its RAM is noted, for whoever has that RAM, and taken out.
    fn device_state_ended(&mut self, mut bytes: Vec<u8>) -> Result<MainEvent, StreamErrorKind> {
        if self.pass_device_state {
            self.next = Next::Over;
            return Ok(MainEvent::DeviceState(bytes));
        }
        if let Some((sections, json)) = device_state::split_description(&bytes) {
            self.described = true;
            if let Some(digests) = digests(json)? {
                if Some(digests.len()) != self.ram.as_ref().map(RamSection::block_count) {
                    return Err(StreamErrorKind::Digests);
                }
                // The sections, which may be much, stay in place.
                let (eof, end) = (sections.len(), device_state::with_json(&without_digests(json)));
                bytes.truncate(eof);
                bytes.extend_from_slice(&end);
                self.digests = Some(digests);
            }
        }
        if self.device_state_in_pieces {
            self.next = Next::DeviceStateEnd;
            Ok(MainEvent::DeviceStatePiece(bytes))
        } else {
            self.next = Next::Over;
            Ok(MainEvent::DeviceState(bytes))
        }
    }
}

/// The ram section, which must have started.
fn ram(ram: &mut Option<RamSection>) -> Result<&mut RamSection, StreamErrorKind> {
    ram.as_mut().ok_or(StreamErrorKind::Misplaced("the ram section goes on before its START"))
}
