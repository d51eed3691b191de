//! The receiving side of one channel.

use std::io::ErrorKind;
use std::sync::Arc;

use super::{ChannelCounters, ChannelStats, PacketBuffer};
use crate::compression::Compression;
use crate::error::{Error, PeerError};
use crate::io::ChannelReader;
use crate::method::{ChannelConfig, MethodStats, MultiFdMethods, RecvMethod};
use crate::ram::Ram;
use crate::wire::{
    DeviceStatePacket, InitialPacket, MAGIC, PacketFlags, PacketHeader, Pages, RamPacket,
};

/// Reads the initial packet of a channel, which says whose it is, after its first four bytes
/// `magic`: by these a destination tells a multifd channel from the main channel.
///
/// # Errors
/// A malformed packet, or a stream that ends or fails.
pub async fn read_initial(
    magic: [u8; 4],
    reader: &mut dyn ChannelReader,
) -> Result<InitialPacket, Error> {
    let mut bytes = [0; InitialPacket::BYTES];
    let (head, rest) = bytes.split_at_mut(magic.len());
    head.copy_from_slice(&magic);
    // What is no channel at all is said before waiting for more of it.
    if magic != MAGIC.to_be_bytes() {
        return Err(PeerError::Magic { found: u32::from_be_bytes(magic) }.into());
    }
    reader.read_exact(rest).await.map_err(Error::reading)?;
    Ok(InitialPacket::parse(&bytes)?)
}

/// What came next on a channel.
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

/// The receiving side of one channel, from behind its initial packet. After an error it can only
/// be finished or dropped: what is in guest memory then may be part of a packet.
#[allow(missing_debug_implementations, reason = "neither stream nor method need be Debug")]
pub struct RecvChannel<R> {
    channel: u8,
    packet: Box<[u8]>,
    placement: Placement<R>,
    counters: Arc<ChannelCounters>,
}

/// What puts a packet's pages in place.
struct Placement<R> {
    reader: R,
    method: Box<dyn RecvMethod>,
    compression: Compression,
    ram: Arc<Ram>,
    offsets: Vec<u64>,
}

impl<R: ChannelReader> RecvChannel<R> {
    /// Sets up the codec for a channel into `ram`. The page size is that of `ram`.
    ///
    /// # Errors
    /// Where the codec cannot be set up.
    pub async fn new(
        reader: R,
        methods: &dyn MultiFdMethods,
        channel: u8,
        ram: Arc<Ram>,
        counters: Arc<ChannelCounters>,
    ) -> Result<Self, Error> {
        let page_size = ram.page_size();
        let compression = methods.compression();
        let method = methods.recv_setup(&ChannelConfig::new(channel, page_size, 0)).await;
        let method = method.map_err(|error| error.on_channel(channel).with_method(compression))?;
        let packet_bytes = RamPacket::bytes(page_size.page_count()).max(DeviceStatePacket::BYTES);
        let wire_bytes = InitialPacket::BYTES as u64;
        counters.add(ChannelStats { wire_bytes, ..ChannelStats::default() });
        let placement = Placement { reader, method, compression, ram, offsets: Vec::new() };
        Ok(Self { channel, packet: vec![0; packet_bytes].into(), placement, counters })
    }

    /// Reads the next packet and puts its pages in place.
    ///
    /// # Errors
    /// Whatever the peer must not send, a stream that fails or ends inside a packet, and a codec
    /// that fails: each with the channel and, from there on, the packet and the codec.
    pub async fn next(&mut self) -> Result<Received, Error> {
        self.next_if(|_| Ok(())).await
    }

    /// As [`next`](Self::next), for a caller that has to know, and may refuse, what comes before
    /// memory is written: `admit` is asked when a packet has been parsed.
    ///
    /// # Errors
    /// As [`next`](Self::next), and what `admit` says.
    pub async fn next_if<E: From<Error>>(
        &mut self,
        admit: impl FnOnce(&RamPacket<'_>) -> Result<(), E>,
    ) -> Result<Received, E> {
        self.next_to(None, admit).await
    }

    /// As [`next_if`](Self::next_if), but the pages are put into `buffer`, whatever it held, and
    /// the RAM is asked for nothing but its page size. After an error the buffer's pages are none.
    ///
    /// Neither block nor offsets are checked against any RAM: that is for `admit` to do, or for
    /// whoever gets the pages in the end.
    ///
    /// # Errors
    /// As [`next_if`](Self::next_if).
    pub async fn next_into<E: From<Error>>(
        &mut self,
        buffer: &mut PacketBuffer,
        admit: impl FnOnce(&RamPacket<'_>) -> Result<(), E>,
    ) -> Result<Received, E> {
        buffer.clear();
        let received = self.next_to(Some(buffer), admit).await;
        if received.is_err() {
            buffer.clear();
        }
        received
    }

    /// Reads the next packet. Its pages go into `buffer`, or into the RAM.
    async fn next_to<E: From<Error>>(
        &mut self,
        buffer: Option<&mut PacketBuffer>,
        admit: impl FnOnce(&RamPacket<'_>) -> Result<(), E>,
    ) -> Result<Received, E> {
        let channel = self.channel;
        let on_channel = |error: Error| error.on_channel(channel);
        let Some(bytes) = self.read_packet().await.map_err(on_channel)? else {
            return Ok(Received::End);
        };
        let page_size = self.placement.ram.page_size();
        let bytes = &self.packet[..bytes];
        let packet = RamPacket::parse(bytes, page_size).map_err(|error| {
            let error = on_channel(error.into());
            match RamPacket::claimed_num(bytes) {
                Some(packet_num) => error.in_packet(packet_num),
                None => error,
            }
        })?;
        admit(&packet)?;
        let placed = self.placement.place(&packet, buffer).await;
        placed.map_err(|error| on_channel(error.in_packet(packet.packet_num)))?;
        self.counters.add(ChannelStats {
            packets: 1,
            normal_pages: packet.pages.map_or(0, |pages| pages.normal.len()) as u64,
            zero_pages: packet.pages.map_or(0, |pages| pages.zero.len()) as u64,
            payload_bytes: packet.payload_bytes as u64,
            wire_bytes: (bytes.len() + packet.payload_bytes) as u64,
        });
        Ok(if packet.is_sync() { Received::Sync } else { Received::Pages })
    }

    /// Reads the next packet without its payload. Returns its size in bytes; `None` where the
    /// stream ends before it.
    async fn read_packet(&mut self) -> Result<Option<usize>, Error> {
        let Self { packet, placement: Placement { reader, ram, .. }, .. } = self;
        let (header, rest) = packet
            .split_first_chunk_mut::<{ PacketHeader::BYTES }>()
            .expect("the buffer holds a packet");
        let count = match reader.read(header).await {
            Ok(0) => return Ok(None),
            // Between two packets, TLS may end without saying so.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            count => count.map_err(Error::reading)?,
        };
        reader.read_exact(&mut header[count..]).await.map_err(Error::reading)?;
        let header = PacketHeader::parse(header)?;
        let rest = &mut rest[..header.following_bytes(ram.page_size().page_count())];
        reader.read_exact(rest).await.map_err(Error::reading)?;
        let bytes = PacketHeader::BYTES + rest.len();
        if header.flags.contains(PacketFlags::DEVICE_STATE) {
            return Err(refuse_device_state(&packet[..bytes]));
        }
        Ok(Some(bytes))
    }

    /// Ends the channel. The stream is handed back.
    ///
    /// # Errors
    /// Where the codec fails.
    pub async fn finish(self) -> Result<(R, MethodStats), Error> {
        let Placement { reader, method, compression, .. } = self.placement;
        let stats = method.recv_cleanup().await;
        let stats =
            stats.map_err(|error| error.on_channel(self.channel).with_method(compression))?;
        Ok((reader, stats))
    }
}

impl<R: ChannelReader> Placement<R> {
    /// Reads the payload of `packet` and puts its pages where they belong.
    async fn place(
        &mut self,
        packet: &RamPacket<'_>,
        buffer: Option<&mut PacketBuffer>,
    ) -> Result<(), Error> {
        let Some(pages) = packet.pages else { return Ok(()) };
        check_method(self.compression, packet)?;
        match buffer {
            Some(buffer) => self.hold(packet, &pages, buffer).await,
            None => self.write(packet, &pages).await,
        }
    }

    /// Puts the pages into `buffer`.
    async fn hold(
        &mut self,
        packet: &RamPacket<'_>,
        pages: &Pages<'_>,
        buffer: &mut PacketBuffer,
    ) -> Result<(), Error> {
        buffer.set(pages)?;
        let normal = buffer.normal_pages()?;
        if normal.is_empty() {
            return Ok(());
        }
        let received = self.method.recv(packet, &mut self.reader, normal).await;
        received.map_err(|error| error.with_method(self.compression))
    }

    /// Writes the pages to the RAM.
    async fn write(&mut self, packet: &RamPacket<'_>, pages: &Pages<'_>) -> Result<(), Error> {
        let [normal, zero] = self.ram.pages(pages, &mut self.offsets)?;
        // Before they are written: a codec that fails half-way leaves them no longer fresh.
        for &offset in normal.offsets() {
            normal.block().mark_received(offset);
        }
        if !normal.is_empty() {
            let received = self.method.recv(packet, &mut self.reader, normal).await;
            received.map_err(|error| error.with_method(self.compression))?;
        }
        for &offset in zero.offsets() {
            zero.block().receive_zero(offset, self.ram.page_size().bytes());
        }
        Ok(())
    }
}

fn check_method(expected: Compression, packet: &RamPacket<'_>) -> Result<(), PeerError> {
    let found = packet.compression();
    if found == expected { Ok(()) } else { Err(PeerError::Method { expected, found }) }
}

/// Why a device-state packet is not taken: its own fault, or that nothing here takes device state.
fn refuse_device_state(packet: &[u8]) -> Error {
    let parsed = packet.try_into().map_err(|_| PeerError::Truncated);
    match parsed.and_then(DeviceStatePacket::parse) {
        Ok(DeviceStatePacket { device, .. }) => PeerError::DeviceStateRefused { device }.into(),
        Err(error) => error.into(),
    }
}
