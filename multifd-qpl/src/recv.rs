//! The decompressing side of one channel.

use std::ops::Range;

use async_trait::async_trait;
use multifd_core::codec::{Chunk, Chunks};
use multifd_core::ram::{GuestPages, PageMemory};
use multifd_core::{ChannelConfig, Error, MethodCounters, RecvMethod};
use qpl_sys::Operation;

use crate::counts::{self, Counted, Counts};
use crate::engine::Engine;
use crate::hardware::{Hardware, Page, Submitted};
use crate::inflate::{Decompressor, Rest};
use crate::job::Ended;
use crate::options::Options;

pub(crate) struct Receiver {
    hardware: Option<Devices>,
    inflate: Inflate,
    counts: Counts,
}

/// The devices, and what they have of a packet.
struct Devices {
    hardware: Hardware,
    /// The packet's compressed chunks: a payload is lent for a call, and a device may take longer. As
    /// large as the largest packet has needed.
    input: PageMemory,
    /// Where each page's chunk is in it; empty for a raw one.
    ranges: Vec<Range<usize>>,
}

/// The CPU's inflate, with room for a page.
struct Inflate {
    inflate: Decompressor,
    config: ChannelConfig,
    page: Box<[u8]>,
    /// Which of a packet's pages are compressed.
    compressed: Vec<usize>,
}

impl Receiver {
    pub(crate) fn new(
        engine: &Engine,
        options: &Options,
        config: &ChannelConfig,
    ) -> Result<Self, Error> {
        let (hardware, counts) = Hardware::of(engine, options, config)?.unzip();
        let page = vec![0; config.page_size.bytes()].into();
        let rest = match engine {
            Engine::Hardware(_) => Rest::Ignored,
            Engine::Software { .. } | Engine::Portable { .. } => Rest::Refused,
        };
        Ok(Self {
            hardware: hardware.map(|hardware| Devices {
                hardware,
                input: PageMemory::new(0),
                ranges: Vec::with_capacity(config.page_size.page_count()),
            }),
            inflate: Inflate {
                inflate: Decompressor::new(config, rest),
                config: *config,
                page,
                compressed: Vec::with_capacity(config.page_size.page_count()),
            },
            // libqpl in software does not decompress: see there.
            counts: counts.unwrap_or_else(|| Counts::new(counts::PORTABLE)),
        })
    }
}

#[async_trait]
impl RecvMethod for Receiver {
    fn counters(&self) -> MethodCounters {
        self.counts.counters()
    }

    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error> {
        let Self { hardware, inflate, counts } = self;
        let chunks = Chunks::parse(payload, pages.len(), pages.page_size())?;
        counts.begin();
        match hardware {
            None => inflate.write_all(chunks, pages, counts)?,
            Some(devices) => {
                if !devices.have_begun(chunks.clone()) {
                    devices.hardware.settle().await;
                    devices.submit(chunks.clone(), inflate);
                }
                devices.collect(chunks, pages, inflate, counts).await?;
                devices.hardware.end();
            }
        }
        counts.commit();
        Ok(())
    }

    async fn recv_cleanup(mut self: Box<Self>) -> Result<(), Error> {
        if let Some(devices) = &mut self.hardware {
            devices.hardware.settle().await;
        }
        Ok(())
    }
}

impl Devices {
    /// Whether a packet with these chunks was begun and not ended: one that was given up half-way.
    fn have_begun(&self, chunks: Chunks<'_>) -> bool {
        let input = self.input.as_slice();
        let same = |(chunk, range): (Chunk<'_>, &Range<usize>)| match chunk {
            Chunk::Raw(_) => range.is_empty(),
            Chunk::Compressed(chunk) => input[range.clone()] == *chunk,
        };
        self.hardware.has_begun(&self.input, chunks.clone().count())
            && chunks.zip(&self.ranges).all(same)
    }

    /// Copies the chunks that are compressed to where the devices read them.
    fn take(&mut self, chunks: Chunks<'_>) {
        let compressed = |chunk| match chunk {
            Chunk::Raw(_) => 0,
            Chunk::Compressed(chunk) => chunk.len(),
        };
        let bytes: usize = chunks.clone().map(compressed).sum();
        if self.input.as_slice().len() < bytes {
            self.input = PageMemory::new(bytes.next_power_of_two());
        }
        let input = self.input.get_mut_or_new();
        self.ranges.clear();
        let mut end = 0;
        for chunk in chunks {
            let start = end;
            if let Chunk::Compressed(chunk) = chunk {
                end += chunk.len();
                input[start..end].copy_from_slice(chunk);
            }
            self.ranges.push(start..end);
        }
    }

    /// Submits every chunk that is compressed. One that finds the queues full is inflated at once,
    /// which gives the devices the time to have room for the next.
    fn submit(&mut self, chunks: Chunks<'_>, inflate: &mut Inflate) {
        self.take(chunks.clone());
        self.hardware.begin(&self.input);
        let page_bytes = inflate.page.len();
        for (index, chunk) in chunks.enumerate() {
            let Chunk::Compressed(chunk) = chunk else {
                self.hardware.push(Some(Page::Raw));
                continue;
            };
            let input = self.ranges[index].clone();
            let page = match self.hardware.submit(index, Operation::Decompress, input, page_bytes) {
                Submitted::Yes => None,
                Submitted::No => Some(Page::Left),
                Submitted::Busy => {
                    let inflated = inflate.into(chunk, index, self.hardware.output_mut(index));
                    // What is wrong is said when it is the page's turn: one before it may be wrong, too, and
                    // which of them is named must not hang on how full the queues are.
                    Some(if inflated.is_ok() { Page::Busy(page_bytes) } else { Page::Left })
                }
            };
            self.hardware.push(page);
        }
    }

    /// Writes the pages, each as its job ends.
    async fn collect(
        &mut self,
        chunks: Chunks<'_>,
        pages: GuestPages<'_>,
        inflate: &mut Inflate,
        counts: &mut Counts,
    ) -> Result<(), Error> {
        let page_bytes = pages.page_size().bytes();
        for (index, chunk) in chunks.enumerate() {
            let chunk = match chunk {
                Chunk::Raw(page) => {
                    pages.write(index, page);
                    counts.page(Counted::Raw);
                    continue;
                }
                Chunk::Compressed(chunk) => chunk,
            };
            // What libqpl says was read is the chunk, whatever the device has read of it.
            let good = |ended: Ended| ended.written == page_bytes;
            // The CPU looks again at what a device refuses, and says what is wrong.
            let counted = match self.hardware.resolved(index, good, Page::Left).await {
                Page::Done(_) => Counted::Engine,
                Page::Busy(_) => Counted::Busy,
                Page::Left | Page::Raw => {
                    inflate.write(chunk, index, pages)?;
                    counts.page(Counted::Fault);
                    continue;
                }
            };
            pages.write(index, &self.hardware.output(index).as_slice()[..page_bytes]);
            counts.page(counted);
        }
        Ok(())
    }
}

impl Inflate {
    /// Restores the page with the index `index` from `chunk` in `page`.
    fn into(&mut self, chunk: &[u8], index: usize, page: &mut [u8]) -> Result<(), Error> {
        self.config.fill_scratch(page);
        self.inflate.decompress(chunk, page).map_err(|error| error.at_page(index))
    }

    /// Restores a page, and writes it.
    fn write(&mut self, chunk: &[u8], index: usize, pages: GuestPages<'_>) -> Result<(), Error> {
        self.config.fill_scratch(&mut self.page);
        let inflated = self.inflate.decompress(chunk, &mut self.page);
        inflated.map_err(|error| error.at_page(index))?;
        pages.write(index, &self.page);
        Ok(())
    }

    /// Restores and writes all pages.
    fn write_all(
        &mut self,
        chunks: Chunks<'_>,
        pages: GuestPages<'_>,
        counts: &mut Counts,
    ) -> Result<(), Error> {
        self.compressed.clear();
        for (index, chunk) in chunks.clone().enumerate() {
            match chunk {
                Chunk::Raw(page) => {
                    pages.write(index, page);
                    counts.page(Counted::Raw);
                }
                Chunk::Compressed(_) => {
                    self.compressed.push(index);
                    counts.page(Counted::Engine);
                }
            }
        }
        let compressed = chunks.filter_map(|chunk| match chunk {
            Chunk::Raw(_) => None,
            Chunk::Compressed(chunk) => Some(chunk),
        });
        let inflated = self.inflate.decompress_each(compressed, |index, page| {
            pages.write(self.compressed[index], page);
        });
        inflated.map_err(|(index, error)| error.at_page(self.compressed[index]))
    }
}
