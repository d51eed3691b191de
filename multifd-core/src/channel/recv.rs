//! The receiving side of one channel.

use std::sync::Arc;

use super::{ChannelCounters, ChannelStats, Frame, Framing, PacketBuffer, Wanted};
use crate::error::{Error, PeerError, UsageError};
use crate::method::{ChannelConfig, MultiFdMethods, PageAccess, RecvMethod};
use crate::page_size::PageSize;
use crate::ram::{GuestPages, GuestSlices, Ram, RamBlock, RamDigests};
use crate::wire::{Compression, InitialPacket, MAX_PAYLOAD, RamPacket};

/// The receiving side of one channel, from behind its initial packet: a machine.
///
/// ```text
/// loop { match machine.next()? {
///     Read(bytes)        → read into bytes          → filled(count)
///     ReadGuest(memory)  → read into guest memory   → filled(count)
///     Admit(packet)      → may it come? where to?   → place(target)
///     Decode             → decode().await
///     Received(received) → a packet's pages are in place, or a SYNC or the end has come
/// } }
/// ```
///
/// Partial progress at any byte is normal, and so is to ask `next` again without having done what
/// it said. After an error of its own the machine can only be dropped, and says so: what is in guest
/// memory then may be part of a packet.
#[allow(missing_debug_implementations, reason = "a method need not be Debug")]
pub struct RecvMachine {
    channel: u8,
    compression: Compression,
    method: Box<dyn RecvMethod>,
    access: PageAccess,
    framing: Framing,
    /// Room for the current packet's payload; none where pages are read in place.
    payload: Box<[u8]>,
    /// What the current packet counts for, and whether it is a SYNC.
    packet: (ChannelStats, bool),
    placement: Placement,
    state: State,
    counters: Arc<ChannelCounters>,
    digests: Option<Digests>,
}

/// Where the hashes of pages are noted, and room for one of them.
#[derive(Debug)]
struct Digests {
    all: Arc<RamDigests>,
    scratch: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Packet,
    /// A packet is there and waits to be placed.
    Admit,
    /// This much of its payload is there.
    Payload {
        filled: usize,
    },
    /// This much of its payload is in the guest.
    Guest {
        filled: usize,
    },
    Decode,
    Received(Received),
    Ended,
    Failed,
}

/// What is to be done next.
#[allow(clippy::exhaustive_enums, reason = "a driver has to do each")]
#[derive(Debug)]
pub enum RecvNext<'a> {
    /// Read bytes of the stream into these, at least one, then [`RecvMachine::filled`].
    Read(&'a mut [u8]),
    /// Read bytes of the stream straight into guest memory, then [`RecvMachine::filled`].
    ReadGuest(GuestSlices<'a>),
    /// A packet has come: say by [`RecvMachine::place`] where its pages go, or drop the machine.
    /// No memory has been written yet.
    Admit(RamPacket<'a>),
    /// Await [`RecvMachine::decode`].
    Decode,
    /// This has come. It is said once, but for the end.
    Received(Received),
}

/// What has come on a channel.
#[allow(clippy::exhaustive_enums, reason = "the format has these, and a caller deals with each")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet; its pages are in place.
    Pages,
    /// The end of a round, and before it perhaps pages. Read no further before the main channel
    /// has reached the same point, and all other channels with it.
    Sync,
    /// The end of the stream, between two packets.
    End,
}

/// Where a packet's pages go.
#[allow(clippy::exhaustive_enums, reason = "there are a VM's RAM and a relay's buffer")]
#[derive(Debug)]
pub enum Target {
    /// Into the VM's RAM.
    Ram(Arc<Ram>),
    /// Into this buffer, whatever it holds, without a look at any RAM: whoever gets the pages in
    /// the end has to check block and offsets. Take it back by [`RecvMachine::take_buffer`].
    Buffer(PacketBuffer),
}

impl Target {
    fn page_size(&self) -> PageSize {
        match self {
            Self::Ram(ram) => ram.page_size(),
            Self::Buffer(buffer) => buffer.page_size(),
        }
    }
}

/// Where the pages of the current packet are.
#[derive(Debug)]
struct Placement {
    page_size: PageSize,
    place: Place,
    /// The offsets of the normal pages in the RAM, then of the zero pages.
    offsets: Vec<u64>,
    normal: usize,
}

#[derive(Debug)]
enum Place {
    Nowhere,
    Block(Arc<RamBlock>),
    Buffer(PacketBuffer),
}

impl RecvMachine {
    /// Sets up the codec for the channel with the number `channel`, in pages of `page_size`.
    ///
    /// # Errors
    /// Where the codec cannot be set up.
    pub async fn new(
        methods: &dyn MultiFdMethods,
        channel: u8,
        page_size: PageSize,
        counters: Arc<ChannelCounters>,
    ) -> Result<Self, Error> {
        Self::with_config(methods, &ChannelConfig::new(channel, page_size, 0), counters).await
    }

    /// As [`new`](Self::new), with all of a codec's set-up.
    ///
    /// # Errors
    /// Where the codec cannot be set up.
    pub async fn with_config(
        methods: &dyn MultiFdMethods,
        config: &ChannelConfig,
        counters: Arc<ChannelCounters>,
    ) -> Result<Self, Error> {
        let (channel, page_size, compression) =
            (config.channel, config.page_size, methods.compression());
        let method = methods.recv_setup(config).await;
        let method = method.map_err(|error| error.on_channel(channel).with_method(compression))?;
        let wire_bytes = InitialPacket::BYTES as u64;
        counters.add(ChannelStats { wire_bytes, ..ChannelStats::default() });
        counters.set_method(method.counters());
        let access = method.access();
        let payload = match access {
            PageAccess::InPlace => Box::default(),
            PageAccess::PrivateCopy => vec![0; MAX_PAYLOAD].into(),
        };
        let (place, offsets) = (Place::Nowhere, Vec::new());
        Ok(Self {
            channel,
            compression,
            method,
            access,
            framing: Framing::new(page_size),
            payload,
            packet: Default::default(),
            placement: Placement { page_size, place, offsets, normal: 0 },
            state: State::Packet,
            counters,
            digests: None,
        })
    }

    /// Notes the hash of each page, once it is in its RAM, in `digests`.
    #[must_use]
    pub fn with_digests(self, digests: Option<Arc<RamDigests>>) -> Self {
        Self { digests: digests.map(|all| Digests { all, scratch: Vec::new() }), ..self }
    }

    /// What is to be done next.
    ///
    /// # Errors
    /// The machine has failed before.
    #[allow(clippy::should_implement_trait, reason = "it lends, which an iterator cannot")]
    pub fn next(&mut self) -> Result<RecvNext<'_>, Error> {
        match self.state {
            State::Packet => match self.framing.want() {
                Wanted::Packet(room) => Ok(RecvNext::Read(room)),
                Wanted::Payload(_) | Wanted::Nothing => Err(UsageError::ChannelFailed.into()),
            },
            State::Admit => match self.framing.ram_packet() {
                Some(packet) => Ok(RecvNext::Admit(packet)),
                None => Err(UsageError::ChannelFailed.into()),
            },
            State::Payload { filled } => {
                let bytes = self.payload_bytes();
                Ok(RecvNext::Read(&mut self.payload[filled..bytes]))
            }
            State::Guest { filled } => {
                Ok(RecvNext::ReadGuest(GuestSlices::new(self.placement.normal_pages(), filled)))
            }
            State::Decode => Ok(RecvNext::Decode),
            State::Received(received) => {
                let ended = received == Received::End;
                self.state = if ended { State::Ended } else { State::Packet };
                Ok(RecvNext::Received(received))
            }
            State::Ended => Ok(RecvNext::Received(Received::End)),
            State::Failed => Err(UsageError::ChannelFailed.into()),
        }
    }

    /// Takes note that `count` bytes of the stream have come where they were wanted; 0 is the end
    /// of the stream.
    ///
    /// # Errors
    /// Whatever the peer must not send, and a stream that ends inside a packet: each with the
    /// channel and, from there on, the packet and the codec.
    ///
    /// # Panics
    /// With more bytes than were wanted.
    pub fn filled(&mut self, count: usize) -> Result<(), Error> {
        match self.state {
            State::Packet => self.packet_filled(count),
            State::Payload { filled } => self.payload_filled(count, filled),
            State::Guest { filled } => self.guest_filled(count, filled),
            State::Failed => Err(UsageError::ChannelFailed.into()),
            _ => Err(UsageError::OutOfTurn { call: "RecvMachine::filled" }.into()),
        }
    }

    fn packet_filled(&mut self, count: usize) -> Result<(), Error> {
        self.state = match self.framing.filled(count) {
            Ok(None) => return Ok(()),
            Ok(Some(Frame::Ram(packet))) => {
                self.packet = (stats(&packet, self.placement.page_size), packet.is_sync());
                State::Admit
            }
            Ok(Some(Frame::End)) => State::Received(Received::End),
            Ok(Some(Frame::DeviceState(packet))) => {
                let device = packet.device;
                return self.fail(PeerError::DeviceStateRefused { device }.into());
            }
            Err(error) => return self.fail(error.into()),
        };
        Ok(())
    }

    /// Says where the pages of the packet that [`RecvNext::Admit`] gave go.
    ///
    /// # Errors
    /// A packet of another codec; pages that the RAM does not have.
    pub fn place(&mut self, target: Target) -> Result<(), Error> {
        let (State::Admit, Some(packet)) = (self.state, self.framing.ram_packet()) else {
            return Err(UsageError::OutOfTurn { call: "RecvMachine::place" }.into());
        };
        let placed = check_method(self.compression, &packet)
            .map_err(Error::from)
            .and_then(|()| self.check_in_place(&packet))
            .and_then(|()| self.placement.set(&packet, target));
        if let Err(error) = placed {
            return self.fail(error);
        }
        if self.placement.normal == 0 {
            self.complete();
            return Ok(());
        }
        self.state = match self.access {
            PageAccess::InPlace => State::Guest { filled: 0 },
            PageAccess::PrivateCopy => State::Payload { filled: 0 },
        };
        Ok(())
    }

    /// Method none's payloads have the size of their pages by its bounds; a private method's need not.
    fn check_in_place(&self, packet: &RamPacket<'_>) -> Result<(), Error> {
        let normal = packet.pages.map_or(0, |pages| pages.normal.len());
        let pages = normal * self.placement.page_size.bytes();
        if self.access != PageAccess::InPlace || packet.payload_bytes == pages {
            return Ok(());
        }
        let found = packet.payload_bytes;
        let what = format!("it has {found} bytes, the packet's pages have {pages}");
        Err(Error::payload(what).with_method(self.compression))
    }

    fn payload_filled(&mut self, count: usize, filled: usize) -> Result<(), Error> {
        self.count_payload(count)?;
        let filled = filled + count;
        let whole = filled == self.payload_bytes();
        self.state = if whole { State::Decode } else { State::Payload { filled } };
        Ok(())
    }

    fn guest_filled(&mut self, count: usize, filled: usize) -> Result<(), Error> {
        self.count_payload(count)?;
        let end = filled + count;
        // Only now: what was dirty before the bytes came could be taken for clean again.
        self.placement.normal_pages().mark_dirty(filled..end);
        if end < self.payload_bytes() {
            self.state = State::Guest { filled: end };
        } else {
            self.complete();
        }
        Ok(())
    }

    fn count_payload(&mut self, count: usize) -> Result<(), Error> {
        match self.framing.filled(count) {
            Ok(_) => Ok(()),
            Err(error) => self.fail(error.into()),
        }
    }

    /// Has the codec restore the pages of the packet. Dropped before it is ready, it starts over
    /// when it is called again.
    ///
    /// # Errors
    /// A payload that is not the pages', and a codec that fails.
    pub async fn decode(&mut self) -> Result<(), Error> {
        match self.state {
            State::Decode => {}
            State::Failed => return Err(UsageError::ChannelFailed.into()),
            _ => return Err(UsageError::OutOfTurn { call: "RecvMachine::decode" }.into()),
        }
        let payload = &self.payload[..self.packet.0.payload_bytes as usize];
        let received = self.method.recv(payload, self.placement.normal_pages()).await;
        match received {
            Ok(()) => self.complete(),
            Err(error) => return self.fail(error.with_method(self.compression)),
        }
        Ok(())
    }

    /// The buffer that a packet was placed in, when the packet has been received. After an error
    /// it holds no page.
    #[must_use = "a buffer is meant to be used again"]
    pub fn take_buffer(&mut self) -> Option<PacketBuffer> {
        if matches!(self.state, State::Payload { .. } | State::Guest { .. } | State::Decode) {
            return None;
        }
        match std::mem::replace(&mut self.placement.place, Place::Nowhere) {
            Place::Buffer(buffer) => Some(buffer),
            Place::Block(_) | Place::Nowhere => None,
        }
    }

    /// Ends the channel.
    ///
    /// # Errors
    /// Where the codec fails.
    pub async fn finish(self) -> Result<(), Error> {
        let ended = self.method.recv_cleanup().await;
        ended.map_err(|error| error.on_channel(self.channel).with_method(self.compression))
    }

    /// The same error with the channel and, as far as it is known, the packet on which the stream
    /// failed.
    pub fn locate(&self, error: Error) -> Error {
        let error = error.on_channel(self.channel);
        match self.framing.claimed_num() {
            Some(packet_num) => error.in_packet(packet_num),
            None => error,
        }
    }

    fn payload_bytes(&self) -> usize {
        self.packet.0.payload_bytes as usize
    }

    /// The packet's pages are in place.
    fn complete(&mut self) {
        self.placement.zero_pages();
        if let Some(digests) = &mut self.digests {
            self.placement.note(digests);
        }
        let (stats, sync) = self.packet;
        self.counters.add(stats);
        self.state = State::Received(if sync { Received::Sync } else { Received::Pages });
    }

    fn fail(&mut self, error: Error) -> Result<(), Error> {
        self.state = State::Failed;
        if let Place::Buffer(buffer) = &mut self.placement.place {
            buffer.clear();
        }
        Err(self.locate(error))
    }
}

impl Placement {
    /// Takes the pages of `packet` to be placed in `target`.
    fn set(&mut self, packet: &RamPacket<'_>, target: Target) -> Result<(), Error> {
        let (channel, given) = (self.page_size, target.page_size());
        if channel != given {
            return Err(UsageError::TargetPageSize { channel, given }.into());
        }
        self.offsets.clear();
        self.normal = packet.pages.map_or(0, |pages| pages.normal.len());
        self.place = match (target, packet.pages) {
            (Target::Ram(_), None) => Place::Nowhere,
            (Target::Ram(ram), Some(pages)) => {
                let [normal, _] = ram.pages(&pages, &mut self.offsets)?;
                // Before they are written: a codec that fails half-way leaves them no longer fresh.
                // Their memory is made already here, too, which a source pays no payload for; it is the RAM's, and no more.
                for &offset in normal.offsets() {
                    normal.block().mark_received(offset);
                    normal.block().make_memory(offset, self.page_size.bytes());
                }
                ram.block(pages.block).map_or(Place::Nowhere, |block| Place::Block(block.clone()))
            }
            (Target::Buffer(mut buffer), pages) => {
                buffer.clear();
                pages.map_or(Ok(()), |pages| buffer.set(&pages))?;
                Place::Buffer(buffer)
            }
        };
        Ok(())
    }

    /// The memory of the normal pages of the packet that is placed.
    fn normal_pages(&self) -> GuestPages<'_> {
        match &self.place {
            Place::Block(block) => {
                GuestPages::found(block, self.page_size, &self.offsets[..self.normal])
            }
            Place::Buffer(buffer) => buffer.normal_pages(),
            Place::Nowhere => unreachable!("a packet with pages has been placed"),
        }
    }

    /// Notes the hashes of the pages of the packet, which are in place.
    fn note(&self, Digests { all, scratch }: &mut Digests) {
        let Place::Block(block) = &self.place else { return };
        let Some(hashes) = all.of(block) else { return };
        let (normal, zero) = self.offsets.split_at(self.normal);
        for &offset in normal {
            let page = block.slice(offset, self.page_size.bytes());
            hashes.note_guest(offset, page, scratch);
        }
        zero.iter().for_each(|&offset| hashes.note_zero(offset));
    }

    /// Takes in the zero pages of the packet that is placed.
    fn zero_pages(&self) {
        if let Place::Block(block) = &self.place {
            for &offset in &self.offsets[self.normal..] {
                block.receive_zero(offset, self.page_size.bytes());
            }
        }
    }
}

fn stats(packet: &RamPacket<'_>, page_size: PageSize) -> ChannelStats {
    let payload_bytes = packet.payload_bytes as u64;
    ChannelStats {
        packets: 1,
        normal_pages: packet.pages.map_or(0, |pages| pages.normal.len()) as u64,
        zero_pages: packet.pages.map_or(0, |pages| pages.zero.len()) as u64,
        payload_bytes,
        wire_bytes: RamPacket::bytes(page_size.page_count()) as u64 + payload_bytes,
    }
}

fn check_method(expected: Compression, packet: &RamPacket<'_>) -> Result<(), PeerError> {
    let found = packet.compression();
    if packet.pages.is_none() || found == expected {
        return Ok(());
    }
    Err(PeerError::Method { expected, found })
}
