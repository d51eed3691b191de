//! The compressing side of one channel.

use async_trait::async_trait;
use multifd_core::codec::ChunkWriter;
use multifd_core::ram::NormalPages;
use multifd_core::{ChannelConfig, Error, MethodCounters, Payload, SendMethod};
use page_deflate::Encoder;
use qpl_sys::Operation;

use crate::counts::{self, Counted, Counts};
use crate::engine::Engine;
use crate::hardware::{Hardware, Page, Submitted};
use crate::job::Ended;
use crate::options::Options;
use crate::{WINDOW, software};

pub(crate) struct Sender {
    hardware: Option<Hardware>,
    cpu: Cpu,
    counts: Counts,
}

/// What compresses on the CPU, in a device's place too.
enum Cpu {
    Software(software::Compressor),
    Portable(Encoder),
}

impl Sender {
    pub(crate) fn new(
        engine: Engine,
        options: &Options,
        config: &ChannelConfig,
    ) -> Result<Self, Error> {
        let (hardware, counts) = Hardware::of(&engine, options, config)?.unzip();
        let counts = counts.unwrap_or_else(|| {
            Counts::new(match engine {
                Engine::Hardware(_) | Engine::Software { .. } => counts::SOFTWARE,
                Engine::Portable { .. } => counts::PORTABLE,
            })
        });
        let cpu = match engine {
            Engine::Hardware(library) | Engine::Software { library, .. } => {
                Cpu::Software(software::Compressor::new(&library)?)
            }
            Engine::Portable { .. } => {
                let page_bytes = config.page_size.bytes();
                Cpu::Portable(Encoder::with_level(options.level, page_bytes, WINDOW))
            }
        };
        Ok(Self { hardware, cpu, counts })
    }
}

#[async_trait]
impl SendMethod for Sender {
    fn counters(&self) -> MethodCounters {
        self.counts.counters()
    }

    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        let Self { hardware, cpu, counts } = self;
        counts.begin();
        let mut chunks = ChunkWriter::new(payload, pages);
        if let Some(hardware) = hardware {
            let mut packet = Packet { hardware, cpu, counts, pages };
            if !packet.hardware.has_begun(pages.private_memory(), pages.len()) {
                packet.hardware.settle().await;
                packet.submit();
            }
            packet.collect(&mut chunks).await;
            packet.hardware.end();
        } else {
            cpu.compress_all(pages, &mut chunks, counts);
        }
        counts.commit();
        Ok(())
    }

    async fn send_cleanup(mut self: Box<Self>) -> Result<(), Error> {
        if let Some(hardware) = &mut self.hardware {
            hardware.settle().await;
        }
        Ok(())
    }
}

/// A packet on the hardware path.
struct Packet<'a> {
    hardware: &'a mut Hardware,
    cpu: &'a mut Cpu,
    counts: &'a mut Counts,
    pages: &'a NormalPages<'a>,
}

impl Packet<'_> {
    /// Submits every page. One that finds the queues full is compressed at once, which gives the
    /// devices the time to have room for the next.
    fn submit(&mut self) {
        self.hardware.begin(self.pages.private_memory());
        let page_bytes = self.pages.page_size().bytes();
        let most = page_bytes - 1;
        for (index, page) in self.pages.private().chunks_exact(page_bytes).enumerate() {
            let range = index * page_bytes..(index + 1) * page_bytes;
            let state = match self.hardware.submit(index, Operation::Compress, range, most) {
                Submitted::Yes => None,
                Submitted::No => Some(Page::Left),
                Submitted::Busy => {
                    let chunk = &mut self.hardware.output_mut(index)[..most];
                    let compressed = self.cpu.compress(page, chunk);
                    Some(compressed.map_or(Page::Raw, Page::Busy))
                }
            };
            self.hardware.push(state);
        }
    }

    /// Writes the chunks, each as its job ends.
    async fn collect(&mut self, chunks: &mut ChunkWriter<'_>) {
        let page_bytes = self.pages.page_size().bytes();
        let good =
            |ended: Ended| ended.read == page_bytes && (1..page_bytes).contains(&ended.written);
        for index in 0..self.pages.len() {
            let counted = match self.hardware.resolved(index, good, Page::Raw).await {
                Page::Done(count) => self.push_output(index, count, Counted::Engine, chunks),
                Page::Busy(count) => self.push_output(index, count, Counted::Busy, chunks),
                Page::Left => self.compress(index, chunks),
                Page::Raw => {
                    chunks.push_raw();
                    Counted::Raw
                }
            };
            self.counts.page(counted);
        }
    }

    /// Sends the slot's output from where it is.
    fn push_output(
        &self,
        index: usize,
        count: usize,
        counted: Counted,
        chunks: &mut ChunkWriter<'_>,
    ) -> Counted {
        chunks.push_part(self.hardware.output(index), 0..count);
        counted
    }

    /// Has the CPU do what the devices have not.
    fn compress(&mut self, index: usize, chunks: &mut ChunkWriter<'_>) -> Counted {
        let page_bytes = self.pages.page_size().bytes();
        let page = &self.pages.private()[index * page_bytes..][..page_bytes];
        self.cpu.write(page, chunks, Counted::Fault)
    }
}

impl Cpu {
    /// Compresses `page` into `chunk`. Returns the bytes written; `None` where it does not get
    /// shorter.
    fn compress(&mut self, page: &[u8], chunk: &mut [u8]) -> Option<usize> {
        match self {
            Self::Software(engine) => engine.compress(page, chunk),
            Self::Portable(engine) => engine.encode(page, chunk),
        }
    }

    /// Writes the chunk of the next page. Returns what it counts as: `shorter`, if it got so.
    fn write(&mut self, page: &[u8], chunks: &mut ChunkWriter<'_>, shorter: Counted) -> Counted {
        match self.compress(page, chunks.spare()) {
            Some(count) => {
                chunks.advance(count);
                shorter
            }
            None => {
                chunks.push_raw();
                Counted::Raw
            }
        }
    }

    /// Writes the chunks of all pages.
    fn compress_all(
        &mut self,
        pages: &NormalPages<'_>,
        chunks: &mut ChunkWriter<'_>,
        counts: &mut Counts,
    ) {
        for page in pages.private().chunks_exact(pages.page_size().bytes()) {
            counts.page(self.write(page, chunks, Counted::Engine));
        }
    }
}
