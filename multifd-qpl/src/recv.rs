//! The decompressing side of one channel.

use async_trait::async_trait;
use multifd_core::codec::{Chunk, Chunks};
use multifd_core::io::ChannelReader;
use multifd_core::ram::GuestPages;
use multifd_core::wire::RamPacket;
use multifd_core::{ChannelConfig, Error, MAX_PAYLOAD, MethodStats, RecvMethod};
use qpl_sys::Operation;

use crate::counts::Counts;
use crate::hardware::{Hardware, Outcome, Submitted};
use crate::inflate;
use crate::options::Options;
use crate::path::Engine;

pub(crate) struct Receiver {
    hardware: Option<Hardware>,
    inflate: inflate::Decompressor,
    counts: Counts,
    payload: Box<[u8]>,
    /// Room for a page that the CPU restores.
    page: Box<[u8]>,
    /// Which of the packet's pages a device has.
    submitted: Vec<bool>,
}

impl Receiver {
    pub(crate) fn new(
        engine: &Engine,
        options: &Options,
        config: &ChannelConfig,
    ) -> Result<Self, Error> {
        Ok(Self {
            hardware: Hardware::of(engine, config.page_size, options)?,
            // libqpl in software is not asked: see there.
            inflate: inflate::Decompressor::new(config)?,
            counts: Counts::default(),
            payload: vec![0; MAX_PAYLOAD].into(),
            page: vec![0; config.page_size.bytes()].into(),
            submitted: Vec::with_capacity(config.page_size.page_count()),
        })
    }
}

#[async_trait]
impl RecvMethod for Receiver {
    async fn recv(
        &mut self,
        packet: &RamPacket<'_>,
        reader: &mut dyn ChannelReader,
        pages: GuestPages<'_>,
    ) -> Result<(), Error> {
        let Self { hardware, inflate, counts, payload, page, submitted } = self;
        let payload = &mut payload[..packet.payload_bytes];
        reader.read_exact(payload).await.map_err(Error::reading)?;
        let chunks = Chunks::parse(payload, pages.len(), pages.page_size())?;
        let mut packet = Packet { inflate, counts, page, pages };
        match hardware {
            None => packet.on_cpu(chunks),
            Some(hardware) => {
                packet.submit(hardware, submitted, chunks.clone()).await?;
                packet.collect(hardware, submitted, chunks).await
            }
        }
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        Ok(self.counts.stats(self.hardware.as_ref(), "portable pages"))
    }
}

/// A packet whose pages are restored.
struct Packet<'a> {
    inflate: &'a mut inflate::Decompressor,
    counts: &'a mut Counts,
    page: &'a mut [u8],
    pages: GuestPages<'a>,
}

impl Packet<'_> {
    fn on_cpu(&mut self, chunks: Chunks<'_>) -> Result<(), Error> {
        for (index, chunk) in chunks.enumerate() {
            match chunk {
                Chunk::Raw(page) => self.write_raw(index, page),
                Chunk::Compressed(chunk) => {
                    self.inflate(index, chunk)?;
                    self.counts.cpu += 1;
                }
            }
        }
        Ok(())
    }

    /// Submits every chunk. One that the devices do not take is inflated at once, which gives them
    /// the time to have room for the next.
    async fn submit(
        &mut self,
        hardware: &mut Hardware,
        submitted: &mut Vec<bool>,
        chunks: Chunks<'_>,
    ) -> Result<(), Error> {
        hardware.settle().await;
        submitted.clear();
        submitted.resize(self.pages.len(), false);
        let page_bytes = self.page.len();
        for (index, chunk) in chunks.enumerate() {
            let chunk = match chunk {
                Chunk::Raw(page) => {
                    self.write_raw(index, page);
                    continue;
                }
                Chunk::Compressed(chunk) => chunk,
            };
            match hardware.submit(index, Operation::Decompress, chunk, page_bytes) {
                Submitted::Yes => submitted[index] = true,
                Submitted::Busy => {
                    self.inflate(index, chunk)?;
                    self.counts.busy += 1;
                }
                Submitted::No => {
                    self.inflate(index, chunk)?;
                    self.counts.fault += 1;
                }
            }
        }
        Ok(())
    }

    /// Writes the pages that the devices have, each as its job ends.
    async fn collect(
        &mut self,
        hardware: &mut Hardware,
        submitted: &[bool],
        chunks: Chunks<'_>,
    ) -> Result<(), Error> {
        for (index, chunk) in chunks.enumerate() {
            let (true, Chunk::Compressed(chunk)) = (submitted[index], chunk) else { continue };
            let whole = (chunk.len(), self.page.len());
            match hardware.ended(index, |ended| (ended.read, ended.written) == whole).await {
                Outcome::Done(_) => {
                    self.pages.write(index, hardware.output(index));
                    self.counts.hardware += 1;
                }
                // A device that failed, or found the data wrong: the CPU says which, and what.
                Outcome::DoesNotFit | Outcome::Refused | Outcome::Failed => {
                    self.inflate(index, chunk)?;
                    self.counts.fault += 1;
                }
            }
        }
        Ok(())
    }

    fn inflate(&mut self, index: usize, chunk: &[u8]) -> Result<(), Error> {
        self.inflate.decompress(chunk, self.page).map_err(|error| error.at_page(index))?;
        self.pages.write(index, self.page);
        Ok(())
    }

    fn write_raw(&mut self, index: usize, page: &[u8]) {
        self.pages.write(index, page);
        self.counts.raw += 1;
    }
}
