//! The sending side of one channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ChannelCounters, ChannelStats, PacketBuffer};
use crate::compression::Compression;
use crate::error::Error;
use crate::io::{ChannelWriter, Part};
use crate::method::{ChannelConfig, MethodStats, MultiFdMethods, PageAccess, SendMethod};
use crate::page_size::PACKET_BYTES;
use crate::payload::Payload;
use crate::ram::{GuestPages, NormalPages, PageBatch, copy_unless_zero, is_zero};
use crate::wire::{BlockName, InitialPacket, RamPacketBuilder, Uuid};

/// What a sending channel needs to know beyond its codec's set-up.
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
}

/// The sending side of one channel. After an error it can only be finished or dropped.
#[allow(missing_debug_implementations, reason = "neither stream nor method need be Debug")]
pub struct SendChannel<W> {
    writer: W,
    method: Box<dyn SendMethod>,
    compression: Compression,
    config: SendConfig,
    batch: PartitionedBatch,
    payload: Payload,
    packet: RamPacketBuilder,
}

impl<W: ChannelWriter> SendChannel<W> {
    /// Sets up the codec and sends the initial packet.
    ///
    /// # Errors
    /// Where the codec cannot be set up or the stream fails.
    pub async fn open(
        mut writer: W,
        methods: &dyn MultiFdMethods,
        config: SendConfig,
    ) -> Result<Self, Error> {
        let compression = methods.compression();
        let channel = config.channel.channel;
        let place = |error: Error| error.on_channel(channel).with_method(compression);
        let method = methods.send_setup(&config.channel).await.map_err(place)?;
        let initial = InitialPacket { uuid: config.uuid, channel }.to_bytes();
        writer.write_parts(&[Part::Bytes(&initial)]).await.map_err(writing).map_err(place)?;
        let wire_bytes = initial.len() as u64;
        config.counters.add(ChannelStats { wire_bytes, ..ChannelStats::default() });
        Ok(Self {
            writer,
            batch: PartitionedBatch::new(method.access()),
            method,
            compression,
            packet: RamPacketBuilder::new(config.channel.page_size),
            payload: Payload::new(),
            config,
        })
    }

    /// Sends the pages of `batch` as one packet: those found zero behind the others, as offsets
    /// alone.
    ///
    /// # Errors
    /// Where the codec or the stream fails.
    pub async fn send_pages(&mut self, batch: &PageBatch) -> Result<(), Error> {
        self.send_numbered(batch.pages(), None).await
    }

    /// Sends the pages that `buffer` holds as one packet, as they came: normal pages as normal
    /// ones, even if they are zero, and zero pages as such. Without a page nothing is sent.
    ///
    /// # Errors
    /// Where the codec or the stream fails.
    pub async fn send_buffer(&mut self, buffer: &PacketBuffer) -> Result<(), Error> {
        let (Some(block), false) = (buffer.block(), buffer.is_empty()) else { return Ok(()) };
        let names = Names { block, offsets: buffer.offsets() };
        self.send_numbered(buffer.normal_pages()?, Some(names)).await
    }

    async fn send_numbered(
        &mut self,
        pages: GuestPages<'_>,
        names: Option<Names<'_>>,
    ) -> Result<(), Error> {
        let packet_num = self.next_packet_num();
        self.send_packet(pages, names, packet_num).await.map_err(|error| {
            error.in_packet(packet_num).on_channel(self.channel()).with_method(self.compression)
        })
    }

    /// Sends `pages` under the `names` that they go by on the wire: without, their own, and zero
    /// pages are looked for.
    async fn send_packet(
        &mut self,
        pages: GuestPages<'_>,
        names: Option<Names<'_>>,
        packet_num: u64,
    ) -> Result<(), Error> {
        self.batch.partition(pages, self.config.detect_zero_pages && names.is_none());
        self.payload.clear();
        let normal = self.batch.normal_pages(pages)?;
        if !normal.is_empty() {
            self.method.send_prepare(&normal, &mut self.payload).await?;
        }
        self.check_payload(&normal)?;
        let own = [&self.batch.normal[..], &self.batch.zero[..]];
        let Names { block, offsets } =
            names.unwrap_or(Names { block: pages.block().name(), offsets: own });
        let header =
            self.packet.pages(self.compression, packet_num, block, offsets, self.payload.len());
        let mut parts = vec![Part::Bytes(header)];
        parts.extend(self.payload.parts(&normal));
        self.writer.write_parts(&parts).await.map_err(writing)?;
        self.config.counters.add(ChannelStats {
            packets: 1,
            normal_pages: normal.len() as u64,
            zero_pages: offsets[1].len() as u64,
            payload_bytes: self.payload.len() as u64,
            wire_bytes: (header.len() + self.payload.len()) as u64,
        });
        Ok(())
    }

    /// A receiver would refuse a payload outside its bounds: better to fail here, by name.
    fn check_payload(&self, normal: &NormalPages<'_>) -> Result<(), Error> {
        let page_bytes = normal.page_size().bytes();
        let (least, most) = self.compression.payload_bounds(normal.len(), page_bytes);
        let made = self.payload.len();
        if (least..=most).contains(&made) {
            return Ok(());
        }
        let what = format!("the codec made a payload of {made} bytes, not of {least} to {most}");
        Err(Error::backend(what))
    }

    /// Ends a round on this channel.
    ///
    /// # Errors
    /// Where the stream fails.
    pub async fn send_sync(&mut self) -> Result<(), Error> {
        let packet_num = self.next_packet_num();
        let channel = self.channel();
        let packet = self.packet.sync(packet_num);
        let sent = self.writer.write_parts(&[Part::Bytes(packet)]).await;
        sent.map_err(|error| writing(error).in_packet(packet_num).on_channel(channel))?;
        let wire_bytes = packet.len() as u64;
        let stats = ChannelStats { packets: 1, wire_bytes, ..ChannelStats::default() };
        self.config.counters.add(stats);
        Ok(())
    }

    /// Ends the channel. The stream is handed back, to be closed.
    ///
    /// # Errors
    /// Where the codec fails.
    pub async fn finish(self) -> Result<(W, MethodStats), Error> {
        let (channel, compression) = (self.channel(), self.compression);
        let stats = self.method.send_cleanup().await;
        let stats = stats.map_err(|error| error.on_channel(channel).with_method(compression))?;
        Ok((self.writer, stats))
    }

    fn channel(&self) -> u8 {
        self.config.channel.channel
    }

    fn next_packet_num(&self) -> u64 {
        self.config.packet_num.fetch_add(1, Ordering::Relaxed)
    }
}

fn writing(source: std::io::Error) -> Error {
    Error::io("writing to the channel", source)
}

/// What the pages of a packet are called on the wire.
struct Names<'a> {
    block: &'a BlockName,
    /// The offsets of the normal pages, and of the zero pages.
    offsets: [&'a [u64]; 2],
}

/// The pages of one packet after the scan: which have data, with their private copies, and which
/// are zero.
struct PartitionedBatch {
    normal: Vec<u64>,
    zero: Vec<u64>,
    /// Room for the copies of a whole packet; `None` for a method that reads in place.
    private: Option<Box<[u8]>>,
}

impl PartitionedBatch {
    fn new(access: PageAccess) -> Self {
        let private = match access {
            PageAccess::PrivateCopy => Some(vec![0; PACKET_BYTES].into()),
            PageAccess::InPlace => None,
        };
        Self { normal: Vec::new(), zero: Vec::new(), private }
    }

    fn partition(&mut self, pages: GuestPages<'_>, detect_zero_pages: bool) {
        self.normal.clear();
        self.zero.clear();
        let page_bytes = pages.page_size().bytes();
        for (slice, &offset) in pages.slices().zip(pages.offsets()) {
            let has_data = match &mut self.private {
                None => !detect_zero_pages || !is_zero(slice),
                Some(private) => {
                    let at = self.normal.len() * page_bytes;
                    let copy = &mut private[at..at + page_bytes];
                    if detect_zero_pages {
                        copy_unless_zero(slice, copy)
                    } else {
                        slice.copy_to(copy);
                        true
                    }
                }
            };
            if has_data { self.normal.push(offset) } else { self.zero.push(offset) }
        }
    }

    fn normal_pages<'a>(&'a self, pages: GuestPages<'a>) -> Result<NormalPages<'a>, Error> {
        let guest = GuestPages::new(pages.block(), pages.page_size(), &self.normal)?;
        let private = self.private.as_ref().map(|private| &private[..guest.bytes()]);
        Ok(NormalPages::new(guest, private))
    }
}
