//! The receiving side of one channel.

use std::sync::Arc;

use super::{ChannelCounters, ChannelStats};
use crate::compression::Compression;
use crate::error::{Error, PeerError};
use crate::io::ChannelReader;
use crate::method::{ChannelConfig, MethodStats, MultiFdMethods, RecvMethod};
use crate::ram::Ram;
use crate::wire::{DeviceStatePacket, InitialPacket, MAGIC, PacketFlags, PacketHeader, RamPacket};

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
/// be dropped: what is in guest memory then may be part of a packet.
#[allow(missing_debug_implementations, reason = "neither stream nor method need be Debug")]
pub struct RecvChannel<R> {
    reader: R,
    method: Box<dyn RecvMethod>,
    compression: Compression,
    config: ChannelConfig,
    ram: Arc<Ram>,
    counters: Arc<ChannelCounters>,
    packet: Box<[u8]>,
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
        let config = ChannelConfig::new(channel, ram.page_size(), 0);
        let compression = methods.compression();
        let method = methods.recv_setup(&config).await;
        let method = method.map_err(|error| error.on_channel(channel).with_method(compression))?;
        let packet_bytes =
            RamPacket::bytes(ram.page_size().page_count()).max(DeviceStatePacket::BYTES);
        let wire_bytes = InitialPacket::BYTES as u64;
        counters.add(ChannelStats { wire_bytes, ..ChannelStats::default() });
        Ok(Self {
            reader,
            method,
            compression,
            config,
            ram,
            counters,
            packet: vec![0; packet_bytes].into(),
            offsets: Vec::new(),
        })
    }

    /// Reads the next packet and puts its pages in place.
    ///
    /// # Errors
    /// Whatever the peer must not send, a stream that fails or ends inside a packet, and a codec
    /// that fails: each with the channel and, from there on, the packet and the codec.
    pub async fn next(&mut self) -> Result<Received, Error> {
        match self.next_header().await? {
            Some(header) => self.receive(header).await,
            None => Ok(Received::End),
        }
    }

    /// Waits for the next packet and reads its header; `None` at the end of the stream. The first
    /// half of [`next`](Self::next), for a caller that has to know before memory is written.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_header(&mut self) -> Result<Option<PacketHeader>, Error> {
        self.read_header().await.map_err(|error| error.on_channel(self.config.channel))
    }

    /// Reads the packet that `header`, just read, begins, and puts its pages in place.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn receive(&mut self, header: PacketHeader) -> Result<Received, Error> {
        self.read_packet(header).await.map_err(|error| error.on_channel(self.config.channel))
    }

    async fn read_packet(&mut self, header: PacketHeader) -> Result<Received, Error> {
        let page_size = self.config.page_size;
        let rest = header.following_bytes(page_size.page_count());
        let packet = &mut self.packet[..PacketHeader::BYTES + rest];
        let rest = &mut packet[PacketHeader::BYTES..];
        self.reader.read_exact(rest).await.map_err(Error::reading)?;
        if header.flags.contains(PacketFlags::DEVICE_STATE) {
            return Err(refuse_device_state(packet));
        }
        let packet = RamPacket::parse(packet, page_size)?;
        let in_packet = |error: Error| error.in_packet(packet.packet_num);
        let zero_pages = match packet.pages {
            None => 0,
            Some(pages) => {
                check_method(self.compression, &packet).map_err(|error| in_packet(error.into()))?;
                let found = self.ram.pages(&pages, &mut self.offsets);
                let [normal, zero] = found.map_err(|error| in_packet(error.into()))?;
                if !normal.is_empty() {
                    let received = self.method.recv(&packet, &mut self.reader, normal).await;
                    received.map_err(|error| in_packet(error).with_method(self.compression))?;
                }
                for &offset in normal.offsets() {
                    normal.block().mark_received(offset);
                }
                for &offset in zero.offsets() {
                    zero.block().receive_zero(offset, page_size.bytes());
                }
                zero.len()
            }
        };
        self.counters.add(ChannelStats {
            packets: 1,
            normal_pages: packet.normal_pages() as u64,
            zero_pages: zero_pages as u64,
            payload_bytes: packet.payload_bytes as u64,
            wire_bytes: (RamPacket::bytes(page_size.page_count()) + packet.payload_bytes) as u64,
        });
        Ok(if packet.is_sync() { Received::Sync } else { Received::Pages })
    }

    /// Reads the header of the next packet; `None` where the stream ends before it.
    async fn read_header(&mut self) -> Result<Option<PacketHeader>, Error> {
        let (header, _) = self
            .packet
            .split_first_chunk_mut::<{ PacketHeader::BYTES }>()
            .expect("the buffer holds a packet");
        let count = self.reader.read(header).await.map_err(Error::reading)?;
        if count == 0 {
            return Ok(None);
        }
        self.reader.read_exact(&mut header[count..]).await.map_err(Error::reading)?;
        Ok(Some(PacketHeader::parse(header)?))
    }

    /// Ends the channel. The stream is handed back.
    ///
    /// # Errors
    /// Where the codec fails.
    pub async fn finish(self) -> Result<(R, MethodStats), Error> {
        let (channel, compression) = (self.config.channel, self.compression);
        let stats = self.method.recv_cleanup().await;
        let stats = stats.map_err(|error| error.on_channel(channel).with_method(compression))?;
        Ok((self.reader, stats))
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
