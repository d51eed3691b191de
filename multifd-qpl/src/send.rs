//! The compressing side of one channel.

use async_trait::async_trait;
use multifd_core::codec::ChunkWriter;
use multifd_core::ram::NormalPages;
use multifd_core::{ChannelConfig, Error, MethodStats, Payload, SendMethod};
use qpl_sys::Operation;

use crate::counts::Counts;
use crate::hardware::{Hardware, Outcome, Submitted};
use crate::job::Ended;
use crate::options::Options;
use crate::path::Engine;
use crate::{portable, software};

pub(crate) struct Sender {
    hardware: Option<Hardware>,
    cpu: Cpu,
    counts: Counts,
    /// What became of the packet's pages so far, in their order.
    pages: Vec<Page>,
}

/// What compresses on the CPU, be it in a device's place.
enum Cpu {
    Software(software::Compressor),
    Portable(portable::Compressor),
}

/// What becomes of a page on the hardware path.
#[derive(Clone, Copy)]
enum Page {
    /// A device has it.
    Submitted,
    /// The CPU has made it so short, in the slot's output.
    Compressed(usize),
    /// It does not get shorter.
    Raw,
    /// It is still to be compressed, by the CPU.
    Left,
}

impl Sender {
    pub(crate) fn new(
        engine: Engine,
        options: &Options,
        config: &ChannelConfig,
    ) -> Result<Self, Error> {
        let hardware = Hardware::of(&engine, config.page_size, options)?;
        let cpu = match engine {
            Engine::Hardware(library) | Engine::Software { library, .. } => {
                Cpu::Software(software::Compressor::new(&library)?)
            }
            Engine::Portable { .. } => Cpu::Portable(portable::Compressor::new(config)),
        };
        let pages = Vec::with_capacity(config.page_size.page_count());
        Ok(Self { hardware, cpu, counts: Counts::default(), pages })
    }

    /// Compresses all pages on the CPU.
    fn on_cpu(&mut self, pages: &NormalPages<'_>, chunks: &mut ChunkWriter<'_>) {
        for page in pages.private().chunks_exact(pages.page_size().bytes()) {
            let compressed = self.cpu.compress(page, chunks.spare());
            match compressed {
                Some(count) => chunks.advance(count),
                None => chunks.push_raw(),
            }
            self.counts.cpu += u64::from(compressed.is_some());
            self.counts.raw += u64::from(compressed.is_none());
        }
    }
}

#[async_trait]
impl SendMethod for Sender {
    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        let mut chunks = ChunkWriter::new(payload, pages);
        let Self { hardware: Some(hardware), cpu, counts, pages: states } = self else {
            self.on_cpu(pages, &mut chunks);
            return Ok(());
        };
        let mut packet = Packet { hardware, cpu, counts, pages, states };
        packet.submit().await;
        packet.collect(&mut chunks).await;
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        let cpu = match self.cpu {
            Cpu::Software(_) => "software pages",
            Cpu::Portable(_) => "portable pages",
        };
        Ok(self.counts.stats(self.hardware.as_ref(), cpu))
    }
}

/// A packet on the hardware path.
struct Packet<'a> {
    hardware: &'a mut Hardware,
    cpu: &'a mut Cpu,
    counts: &'a mut Counts,
    pages: &'a NormalPages<'a>,
    states: &'a mut Vec<Page>,
}

impl Packet<'_> {
    /// Submits every page. One that finds the queues full is compressed at once, which gives the
    /// devices the time to have room for the next.
    async fn submit(&mut self) {
        self.hardware.settle().await;
        self.states.clear();
        let page_bytes = self.pages.page_size().bytes();
        for (index, page) in self.pages.private().chunks_exact(page_bytes).enumerate() {
            let most = page_bytes - 1;
            let state = match self.hardware.submit(index, Operation::Compress, page, most) {
                Submitted::Yes => Page::Submitted,
                Submitted::No => Page::Left,
                Submitted::Busy => {
                    let chunk = &mut self.hardware.output(index)[..most];
                    let compressed = self.cpu.compress(page, chunk);
                    self.counts.busy += u64::from(compressed.is_some());
                    compressed.map_or(Page::Raw, Page::Compressed)
                }
            };
            self.states.push(state);
        }
    }

    /// Writes the chunks, each as its job ends.
    async fn collect(&mut self, chunks: &mut ChunkWriter<'_>) {
        for index in 0..self.states.len() {
            match self.states[index] {
                Page::Submitted => self.collect_job(index, chunks).await,
                Page::Compressed(count) => chunks.push(&self.hardware.output(index)[..count]),
                Page::Raw => self.push_raw(chunks),
                Page::Left => self.compress(index, chunks),
            }
        }
    }

    async fn collect_job(&mut self, index: usize, chunks: &mut ChunkWriter<'_>) {
        let page_bytes = self.pages.page_size().bytes();
        let good =
            |ended: Ended| ended.read == page_bytes && (1..page_bytes).contains(&ended.written);
        match self.hardware.ended(index, good).await {
            Outcome::Done(count) => {
                chunks.push(&self.hardware.output(index)[..count]);
                self.counts.hardware += 1;
            }
            Outcome::DoesNotFit | Outcome::Refused => self.push_raw(chunks),
            Outcome::Failed => self.compress(index, chunks),
        }
    }

    /// Has the CPU do what the devices have not.
    fn compress(&mut self, index: usize, chunks: &mut ChunkWriter<'_>) {
        let page_bytes = self.pages.page_size().bytes();
        let page = &self.pages.private()[index * page_bytes..][..page_bytes];
        match self.cpu.compress(page, chunks.spare()) {
            Some(count) => {
                chunks.advance(count);
                self.counts.fault += 1;
            }
            None => self.push_raw(chunks),
        }
    }

    fn push_raw(&mut self, chunks: &mut ChunkWriter<'_>) {
        chunks.push_raw();
        self.counts.raw += 1;
    }
}

impl Cpu {
    /// Compresses `page` into `chunk`. Returns the bytes written; `None` where it does not get
    /// shorter.
    fn compress(&mut self, page: &[u8], chunk: &mut [u8]) -> Option<usize> {
        match self {
            Self::Software(engine) => engine.compress(page, chunk),
            Self::Portable(engine) => engine.compress(page, chunk),
        }
    }
}
