//! The sending side of one channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ChannelCounters, ChannelStats, PacketBuffer};
use crate::codec::Payload;
use crate::error::{Error, UsageError};
use crate::method::{ChannelConfig, MultiFdMethods, PageAccess, SendMethod};
use crate::page_size::{PACKET_BYTES, PageSize};
use crate::ram::{
    GuestPages, GuestSlices, NormalPages, PageBatch, PageHashes, PageMemory, RamDigests, SentPages,
    copy_unless_zero, is_zero,
};
use crate::wire::{Compression, InitialPacket, RamPacketBuilder, Uuid};

/// What a sending channel needs to know beyond its codec's set-up.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct SendConfig {
    /// The codec's set-up.
    pub channel: ChannelConfig,
    /// The VM's UUID, all zero where it has none.
    pub uuid: Uuid,
    /// Whether the channel looks for zero pages and sends them as such. QEMU before 9.0 does not
    /// understand that.
    pub detect_zero_pages: bool,
    /// The packet counter that all channels of a migration share.
    pub packet_num: Arc<AtomicU64>,
    /// Where the channel counts what it carries.
    pub counters: Arc<ChannelCounters>,
    /// Whether the channel says that the digests of the RAM come at the end of the main channel.
    pub announce_digests: bool,
    /// Where the channel notes the hash of each page of a batch.
    pub digests: Option<Arc<RamDigests>>,
    /// Where all channels note the pages that they send with data, which then are not sent as zero.
    pub sent: Option<Arc<SentPages>>,
}

impl SendConfig {
    /// A channel of a VM without a UUID that looks for zero pages and shares no counter.
    pub fn new(channel: ChannelConfig) -> Self {
        let (packet_num, counters) = Default::default();
        Self {
            channel,
            uuid: Uuid::default(),
            detect_zero_pages: true,
            packet_num,
            counters,
            announce_digests: false,
            digests: None,
            sent: None,
        }
    }

    /// The VM's UUID.
    #[must_use]
    pub fn with_uuid(self, uuid: Uuid) -> Self {
        Self { uuid, ..self }
    }

    /// Whether the channel looks for zero pages.
    #[must_use]
    pub fn with_detect_zero_pages(self, detect_zero_pages: bool) -> Self {
        Self { detect_zero_pages, ..self }
    }

    /// The packet counter that all channels of the migration share.
    #[must_use]
    pub fn with_packet_num(self, packet_num: Arc<AtomicU64>) -> Self {
        Self { packet_num, ..self }
    }

    /// Where the channel counts what it carries.
    #[must_use]
    pub fn with_counters(self, counters: Arc<ChannelCounters>) -> Self {
        Self { counters, ..self }
    }

    /// Whether the channel says that the digests of the RAM come at the end of the main channel, as
    /// for a relay of a source that does.
    #[must_use]
    pub fn with_announced_digests(self, announce_digests: bool) -> Self {
        Self { announce_digests, ..self }
    }

    /// Where the channel notes the hash of each page of a batch, which it announces then.
    #[must_use]
    pub fn with_digests(self, digests: Option<Arc<RamDigests>>) -> Self {
        Self { announce_digests: digests.is_some(), digests, ..self }
    }

    /// Where all channels of the migration note the pages that they send with data: for a codec
    /// [without zero after data](crate::MethodDescriptor::without_zero_after_data). A page that is there
    /// is sent with data, even if it is zero or known to be.
    #[must_use]
    pub fn with_sent_pages(self, sent: Option<Arc<SentPages>>) -> Self {
        Self { sent, ..self }
    }
}

/// The sending side of one channel: a machine.
///
/// ```text
/// machine.pages(batch)? │ buffer(buffer)? │ sync()?      while idle
/// loop { match machine.next()? {
///     Encode       → encode().await
///     Write(parts) → write some of them → sent(count)
///     Idle         → everything is sent
/// } }
/// ```
///
/// It begins with the initial packet to be written. Partial progress at any byte is normal, and so
/// is to ask `next` again without having done what it said. After an error of its own the machine can
/// only be dropped, and says so.
#[allow(missing_debug_implementations, reason = "a method need not be Debug")]
pub struct SendMachine {
    config: SendConfig,
    compression: Compression,
    method: Box<dyn SendMethod>,
    work: Work,
    state: State,
    batch: PartitionedBatch,
    payload: Payload,
    packet: RamPacketBuilder,
    /// The number of the last packet; `None` before the first.
    packet_num: Option<u64>,
}

/// What is being sent.
#[derive(Debug)]
enum Work {
    Initial([u8; InitialPacket::BYTES]),
    Pages(PageBatch),
    Buffer(PacketBuffer),
    Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// The work's pages have been looked at and wait for the codec.
    Encode,
    /// This much is written, of `total` bytes.
    Write {
        sent: usize,
        total: usize,
    },
    Failed,
}

/// What is to be done next.
#[allow(clippy::exhaustive_enums, reason = "a driver has to do each")]
#[derive(Debug)]
pub enum SendNext<'a> {
    /// Await [`SendMachine::encode`].
    Encode,
    /// Write these, or a part of them, then [`SendMachine::sent`].
    Write(Parts<'a>),
    /// Nothing: give it pages or a SYNC.
    Idle,
}

/// A part of what is written at once.
#[allow(clippy::exhaustive_enums, reason = "a driver has to write each")]
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes of ours.
    Bytes(&'a [u8]),
    /// Pages of guest memory, as they are when they are written.
    Guest(GuestSlices<'a>),
}

impl<'a> Part<'a> {
    /// How many bytes it has; at least one.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Guest(pages) => pages.bytes(),
        }
    }

    /// Copies the part's first bytes, as many as `out` has room for. Returns how many.
    pub fn copy_to(&self, out: &mut [u8]) -> usize {
        match self {
            Self::Bytes(bytes) => {
                let count = bytes.len().min(out.len());
                out[..count].copy_from_slice(&bytes[..count]);
                count
            }
            Self::Guest(slices) => slices.copy_to(out),
        }
    }
    /// What is left behind the first `count` bytes.
    fn skip(self, count: usize) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(&bytes[count..]),
            Self::Guest(slices) => Self::Guest(slices.skip(count)),
        }
    }
}

/// What is still to be written of a packet, in order; none of the parts is empty.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    head: &'a [u8],
    payload: Option<(&'a Payload, NormalPages<'a>)>,
    /// The part that comes next: the head, then those of the payload.
    next: usize,
    /// Bytes that have been written of what comes.
    written: usize,
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        loop {
            let part = match self.next.checked_sub(1) {
                None => Part::Bytes(self.head),
                Some(index) => {
                    let (payload, pages) = self.payload?;
                    payload.part(index, &pages)?
                }
            };
            self.next += 1;
            let skip = self.written.min(part.bytes());
            self.written -= skip;
            if skip < part.bytes() {
                return Some(part.skip(skip));
            }
        }
    }
}

impl SendMachine {
    /// Sets up the codec. The initial packet is what is to be written first.
    ///
    /// # Errors
    /// Where the codec cannot be set up.
    pub async fn new(methods: &dyn MultiFdMethods, config: SendConfig) -> Result<Self, Error> {
        let compression = methods.compression();
        let channel = config.channel.channel;
        let method = methods.send_setup(&config.channel).await;
        let method = method.map_err(|error| error.on_channel(channel).with_method(compression))?;
        config.counters.set_method(method.counters());
        let initial = InitialPacket::new(config.uuid, channel);
        let initial = initial.with_digests(config.announce_digests).to_bytes();
        Ok(Self {
            compression,
            work: Work::Initial(initial),
            state: State::Write { sent: 0, total: initial.len() },
            // What is hashed has to be what is sent.
            batch: PartitionedBatch::new(match config.digests {
                Some(_) => PageAccess::PrivateCopy,
                None => method.access(),
            }),
            method,
            payload: Payload::new(),
            packet: RamPacketBuilder::new(config.channel.page_size),
            packet_num: None,
            config,
        })
    }

    /// Takes the pages of `batch` to be sent as one packet: those found zero behind the others, as
    /// offsets alone. The pages are looked at, and copied for a codec that reads copies, here; those
    /// of a batch that is [known to be zero](PageBatch::known_zero) are not.
    ///
    /// # Errors
    /// The machine is busy or has failed.
    pub fn pages(&mut self, batch: PageBatch) -> Result<(), Error> {
        self.expect_idle("SendMachine::pages")?;
        let pages = batch.pages();
        let (block, sent) = (pages.block().name(), self.config.sent.as_deref());
        let is_normal = |offset| sent.is_some_and(|sent| sent.may_have(block, offset));
        if batch.is_known_zero() {
            self.batch.set_zero(pages, is_normal);
        } else {
            self.batch.partition(pages, self.config.detect_zero_pages, is_normal);
        }
        if let Some(sent) = sent {
            sent.note(block, &self.batch.normal);
        }
        if let Some(hashes) = self.config.digests.as_ref().and_then(|all| all.of(pages.block())) {
            self.batch.note(pages.page_size(), hashes);
        }
        self.work = Work::Pages(batch);
        self.begin_packet();
        Ok(())
    }

    /// Takes the pages that `buffer` holds to be sent as one packet, as they came: normal pages as
    /// normal ones, even if they are zero, and zero pages as such, but for those that must not be
    /// ([`SendConfig::sent`]). Without a page nothing is sent.
    ///
    /// # Errors
    /// The machine is busy or has failed.
    pub fn buffer(&mut self, mut buffer: PacketBuffer) -> Result<(), Error> {
        self.expect_idle("SendMachine::buffer")?;
        let is_empty = buffer.is_empty();
        if let Some(sent) = &self.config.sent {
            buffer.take_zero_as_normal(|block, offset| sent.may_have(block, offset));
            if let Some(block) = buffer.block() {
                sent.note(block, buffer.offsets()[0]);
            }
        }
        self.batch.partition(buffer.normal_pages(), false, |_| false);
        self.work = Work::Buffer(buffer);
        if !is_empty {
            self.begin_packet();
        }
        Ok(())
    }

    /// Ends a round on this channel: a SYNC packet is to be sent.
    ///
    /// # Errors
    /// The machine is busy or has failed.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.expect_idle("SendMachine::sync")?;
        self.work = Work::Sync;
        let packet_num = self.number_packet();
        let total = self.packet.sync(packet_num).len();
        self.state = State::Write { sent: 0, total };
        Ok(())
    }

    fn expect_idle(&self, call: &'static str) -> Result<(), UsageError> {
        match self.state {
            State::Idle => Ok(()),
            State::Failed => Err(UsageError::ChannelFailed),
            State::Encode | State::Write { .. } => Err(UsageError::OutOfTurn { call }),
        }
    }

    fn begin_packet(&mut self) {
        self.number_packet();
        self.payload.clear();
        self.state = State::Encode;
        if self.batch.normal.is_empty() {
            self.finish_packet();
        }
    }

    fn number_packet(&mut self) -> u64 {
        *self.packet_num.insert(self.config.packet_num.fetch_add(1, Ordering::Relaxed))
    }

    /// What is to be done next.
    ///
    /// # Errors
    /// The machine has failed before.
    #[allow(clippy::should_implement_trait, reason = "it lends, which an iterator cannot")]
    pub fn next(&mut self) -> Result<SendNext<'_>, Error> {
        match self.state {
            State::Idle => Ok(SendNext::Idle),
            State::Encode => Ok(SendNext::Encode),
            State::Write { sent, .. } => Ok(SendNext::Write(self.parts(sent))),
            State::Failed => Err(UsageError::ChannelFailed.into()),
        }
    }

    fn parts(&self, written: usize) -> Parts<'_> {
        let (head, payload) = match &self.work {
            Work::Initial(bytes) => (&bytes[..], None),
            Work::Sync => (self.packet.bytes(), None),
            Work::Pages(_) | Work::Buffer(_) => {
                (self.packet.bytes(), self.normal_pages().map(|pages| (&self.payload, pages)))
            }
        };
        Parts { head, payload, next: 0, written }
    }

    /// Has the codec make the payload. Dropped before it is ready, it starts over when it is called
    /// again.
    ///
    /// # Errors
    /// Where the codec fails.
    pub async fn encode(&mut self) -> Result<(), Error> {
        match self.state {
            State::Encode => {}
            State::Failed => return Err(UsageError::ChannelFailed.into()),
            _ => return Err(UsageError::OutOfTurn { call: "SendMachine::encode" }.into()),
        }
        self.payload.clear();
        let Some(pages) = normal_pages(&self.work, &self.batch) else { return Ok(()) };
        let made = self.method.send_prepare(&pages, &mut self.payload).await;
        if let Err(error) = made.and_then(|()| self.check_payload()) {
            self.state = State::Failed;
            return Err(self.locate(error.with_method(self.compression)));
        }
        self.finish_packet();
        Ok(())
    }

    /// A receiver would refuse a payload outside its bounds: better to fail here, by name.
    fn check_payload(&self) -> Result<(), Error> {
        let (pages, page_bytes) = (self.batch.normal.len(), self.config.channel.page_size.bytes());
        let (least, most) = self.compression.payload_bounds(pages, page_bytes);
        let made = self.payload.len();
        if (least..=most).contains(&made) {
            return Ok(());
        }
        let what = format!("the codec made a payload of {made} bytes, not of {least} to {most}");
        Err(Error::backend(what))
    }

    /// Makes the packet before the payload.
    fn finish_packet(&mut self) {
        let (block, offsets) = match &self.work {
            Work::Pages(batch) => {
                (batch.pages().block().name(), [&self.batch.normal[..], &self.batch.zero[..]])
            }
            Work::Buffer(buffer) => match buffer.block() {
                Some(block) => (block, buffer.offsets()),
                None => return,
            },
            Work::Initial(_) | Work::Sync => return,
        };
        let (num, payload) = (self.packet_num.unwrap_or_default(), self.payload.len());
        let head = self.packet.pages(self.compression, num, block, offsets, payload);
        self.state = State::Write { sent: 0, total: head.len() + payload };
    }

    /// Takes note that `count` bytes of the parts have been written.
    ///
    /// # Panics
    /// With more bytes than there were.
    pub fn sent(&mut self, count: usize) {
        let State::Write { sent, total } = self.state else {
            assert!(count == 0, "more bytes than there were to send");
            return;
        };
        let sent = sent + count;
        assert!(sent <= total, "more bytes than there were to send");
        self.state = State::Write { sent, total };
        if sent == total {
            self.complete(total);
        }
    }

    fn complete(&mut self, wire_bytes: usize) {
        let wire_bytes = wire_bytes as u64;
        let nothing = ChannelStats { wire_bytes, ..ChannelStats::default() };
        let zero_pages = match &self.work {
            Work::Buffer(buffer) => buffer.offsets()[1].len(),
            _ => self.batch.zero.len(),
        };
        self.config.counters.add(match self.work {
            Work::Initial(_) => nothing,
            Work::Sync => ChannelStats { packets: 1, ..nothing },
            Work::Pages(_) | Work::Buffer(_) => ChannelStats {
                packets: 1,
                normal_pages: self.batch.normal.len() as u64,
                zero_pages: zero_pages as u64,
                payload_bytes: self.payload.len() as u64,
                ..nothing
            },
        });
        // A device's memory, and the guest's, are let go as soon as they have been sent.
        self.payload.clear();
        if !matches!(self.work, Work::Buffer(_)) {
            self.work = Work::Sync;
        }
        self.state = State::Idle;
    }

    /// The buffer whose packet has been sent.
    #[must_use = "a buffer is meant to be used again"]
    pub fn take_buffer(&mut self) -> Option<PacketBuffer> {
        if self.state != State::Idle {
            return None;
        }
        match std::mem::replace(&mut self.work, Work::Sync) {
            Work::Buffer(buffer) => Some(buffer),
            Work::Initial(_) | Work::Pages(_) | Work::Sync => None,
        }
    }

    /// Ends the channel. The stream is then to be closed.
    ///
    /// # Errors
    /// Where the codec fails.
    pub async fn finish(self) -> Result<(), Error> {
        let channel = self.config.channel.channel;
        let ended = self.method.send_cleanup().await;
        ended.map_err(|error| error.on_channel(channel).with_method(self.compression))
    }

    /// The same error with the channel and, as far as it is known, the packet that was being sent
    /// when the stream failed.
    pub fn locate(&self, error: Error) -> Error {
        let error = error.on_channel(self.config.channel.channel);
        match self.packet_num {
            Some(packet_num) => error.in_packet(packet_num),
            None => error,
        }
    }

    fn normal_pages(&self) -> Option<NormalPages<'_>> {
        normal_pages(&self.work, &self.batch)
    }
}

/// The pages with data of what is being sent, after the scan.
fn normal_pages<'a>(work: &'a Work, batch: &'a PartitionedBatch) -> Option<NormalPages<'a>> {
    let pages = match work {
        Work::Pages(batch) => batch.pages(),
        Work::Buffer(buffer) => buffer.normal_pages(),
        Work::Initial(_) | Work::Sync => return None,
    };
    let guest = GuestPages::found(pages.block(), pages.page_size(), &batch.normal);
    Some(NormalPages::new(guest, batch.private.as_ref()))
}

/// The pages of one packet after the scan: which have data, with their private copies, and which
/// are zero.
struct PartitionedBatch {
    normal: Vec<u64>,
    zero: Vec<u64>,
    /// Room for the copies of a whole packet; `None` for a method that reads in place.
    private: Option<PageMemory>,
}

impl PartitionedBatch {
    fn new(access: PageAccess) -> Self {
        let private = match access {
            PageAccess::PrivateCopy => Some(PageMemory::new(PACKET_BYTES)),
            PageAccess::InPlace => None,
        };
        Self { normal: Vec::new(), zero: Vec::new(), private }
    }

    /// Takes pages that are known to be zero, of which those go as normal ones that `is_normal` says.
    fn set_zero(&mut self, pages: GuestPages<'_>, is_normal: impl Fn(u64) -> bool) {
        self.normal.clear();
        self.zero.clear();
        for &offset in pages.offsets() {
            let list = if is_normal(offset) { &mut self.normal } else { &mut self.zero };
            list.push(offset);
        }
        if let Some(private) = &mut self.private {
            let bytes = self.normal.len() * pages.page_size().bytes();
            private.get_mut_or_new()[..bytes].fill(0);
        }
    }

    /// Takes pages by what they hold. Zero pages go as normal ones where `is_normal` says so.
    fn partition(
        &mut self,
        pages: GuestPages<'_>,
        detect_zero_pages: bool,
        is_normal: impl Fn(u64) -> bool,
    ) {
        self.normal.clear();
        self.zero.clear();
        let page_bytes = pages.page_size().bytes();
        let mut private = self.private.as_mut().map(PageMemory::get_mut_or_new);
        for (slice, &offset) in pages.slices().zip(pages.offsets()) {
            let has_data = match &mut private {
                None => !detect_zero_pages || !is_zero(slice) || is_normal(offset),
                Some(private) => {
                    let at = self.normal.len() * page_bytes;
                    let copy = &mut private[at..at + page_bytes];
                    if detect_zero_pages {
                        copy_unless_zero(slice, copy)
                            || is_normal(offset) && {
                                copy.fill(0);
                                true
                            }
                    } else {
                        slice.copy_to(copy);
                        true
                    }
                }
            };
            if has_data { self.normal.push(offset) } else { self.zero.push(offset) }
        }
    }

    /// Notes the hashes of the pages, which have been partitioned: of the private copies, which are sent.
    /// A page in guest memory may change until it is sent, and never be sent again, if the guest frees it.
    fn note(&self, page_size: PageSize, hashes: &PageHashes) {
        self.zero.iter().for_each(|&offset| hashes.note_zero(offset));
        let copies = self
            .private
            .iter()
            .flat_map(|private| private.as_slice().chunks_exact(page_size.bytes()));
        copies.zip(&self.normal).for_each(|(copy, &offset)| hashes.note(offset, copy));
    }
}
