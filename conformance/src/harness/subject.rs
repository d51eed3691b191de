//! The codec that a case looks at.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use multifd_core::channel::{Received, RecvMachine, SendConfig, SendMachine, memory};
use multifd_core::ram::Ram;
use multifd_core::wire::{InitialPacket, Uuid};
use multifd_core::{
    ChannelConfig, Compression, Levels, MethodDescriptor, MultiFdMethods, PageSize,
};
use pollster::block_on;

use super::channel::{Receiver, Sender};
use super::memory::{STALE, first_difference, page_of, ram};
use super::verdict::{Context, Stop, Verdict, ensure, succeed};

/// How one channel is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) channel: u8,
    pub(crate) level: Option<i32>,
    pub(crate) detect_zero_pages: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { channel: 3, level: None, detect_zero_pages: true }
    }
}

/// The codec that a case looks at.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) methods: Arc<dyn MultiFdMethods>,
    pub(crate) descriptor: MethodDescriptor,
    /// The most bytes of heap that the decoding of a stream may take, where that is looked at: no
    /// other case may run then.
    pub(crate) heap_bound: Option<usize>,
}

/// The most levels that are all tried.
const MANY_LEVELS: i64 = 64;

impl Subject {
    /// The codec `methods`, if it can work here.
    pub(crate) fn new(methods: Arc<dyn MultiFdMethods>) -> Verdict<Self> {
        match methods.require() {
            Ok(()) => Ok(Self { descriptor: methods.descriptor(), methods, heap_bound: None }),
            Err(error) => Err(Stop::not_applicable(error.to_string())),
        }
    }

    pub(crate) fn compression(&self) -> Compression {
        self.descriptor.compression
    }

    /// Every level of the codec. Of a codec with more than 64 (zstd has 100000 negative ones): the
    /// default, the lowest, the highest, and those from -7 on.
    pub(crate) fn levels(&self) -> Vec<Option<i32>> {
        let Some(Levels { least, most, default, .. }) = self.descriptor.levels else {
            return vec![None];
        };
        let mut levels: Vec<_> = if i64::from(most) - i64::from(least) < MANY_LEVELS {
            (least..=most).collect()
        } else {
            let from = least.max(-7);
            (from..=most).take(MANY_LEVELS as usize).chain([default, least, most]).collect()
        };
        levels.sort_unstable();
        levels.dedup();
        levels.into_iter().map(Some).collect()
    }

    /// The default level, the lowest and the highest.
    pub(crate) fn some_levels(&self) -> Vec<Option<i32>> {
        let Some(Levels { least, most, default, .. }) = self.descriptor.levels else {
            return vec![None];
        };
        let mut levels = vec![least, default, most];
        levels.dedup();
        levels.into_iter().map(Some).collect()
    }

    /// The sending side of a channel out of `ram`. Its initial packet has been read.
    pub(crate) fn sender(&self, ram: &Arc<Ram>, setup: Setup) -> Verdict<Sender> {
        let channel = self.descriptor.config(setup.channel, ram.page_size(), setup.level);
        let config = SendConfig::new(channel.map_err(|error| Stop::failed(error.to_string()))?)
            .with_detect_zero_pages(setup.detect_zero_pages)
            .with_packet_num(Arc::new(AtomicU64::new(FIRST_PACKET)));
        let counters = Arc::clone(&config.counters);
        let (machine, sent) = succeed("setting up the sending side", || {
            block_on(async {
                let mut machine = SendMachine::new(&*self.methods, config).await?;
                let mut sent = Vec::new();
                memory::send(&mut machine, &mut sent).await?;
                Ok((machine, sent))
            })
        })?;
        let initial = InitialPacket::new(Uuid::default(), setup.channel).to_bytes();
        ensure!(sent == initial, "the channel does not start with its initial packet");
        Ok(Sender { machine, counters, ram: Arc::clone(ram) })
    }

    /// The receiving side of the channel with the number `channel`, into `ram`.
    pub(crate) fn receiver(&self, ram: &Arc<Ram>, channel: u8) -> Verdict<Receiver> {
        self.receiver_as(ram, &ChannelConfig::new(channel, ram.page_size(), 0))
    }

    /// As [`receiver`](Self::receiver), with all of the codec's set-up.
    pub(crate) fn receiver_as(&self, ram: &Arc<Ram>, config: &ChannelConfig) -> Verdict<Receiver> {
        let (counters, ram) = (Arc::default(), Arc::clone(ram));
        let machine = succeed("setting up the receiving side", || {
            block_on(RecvMachine::with_config(&*self.methods, config, Arc::clone(&counters)))
        })?;
        Ok(Receiver { machine, counters, ram, piece: usize::MAX })
    }

    /// A channel from RAM that holds `memory` into RAM that holds something else.
    pub(crate) fn pair(&self, page_size: PageSize, memory: &[u8], setup: Setup) -> Verdict<Pair> {
        let sender = self.sender(&ram(page_size, memory)?, setup)?;
        let destination = ram(page_size, &vec![STALE; memory.len()])?;
        let receiver = self.receiver(&destination, setup.channel)?;
        Ok(Pair { sender, receiver })
    }
}

/// The number of the first packet of every channel: one that a wrong field would not hold.
pub(crate) const FIRST_PACKET: u64 = 7_000_000_000;

/// Both sides of one channel.
pub(crate) struct Pair {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
}

impl Pair {
    /// Sends and receives one packet and compares its pages on both sides.
    pub(crate) fn carry(&mut self, offsets: &[u64]) -> Verdict {
        let packet = self.sender.send(offsets)?;
        self.receiver.receive(&packet)?;
        self.compare(offsets)
    }

    pub(crate) fn compare(&self, offsets: &[u64]) -> Verdict {
        for &offset in offsets {
            let sent = page_of(&self.sender.ram, offset);
            let received = page_of(&self.receiver.ram, offset);
            if let Some(at) = first_difference(&sent, &received) {
                let pages = offsets.len();
                return Err(Stop::failed(format!(
                    "of a packet of {pages} pages, the page at {offset:#x} differs from byte {at} on"
                )));
            }
        }
        Ok(())
    }

    /// Sends and receives the end of a round.
    pub(crate) fn sync(&mut self) -> Verdict {
        let packet = self.sender.sync()?;
        let received = self.receiver.receive_as(Received::Sync, &packet);
        received.context(|| "receiving a SYNC".to_owned())
    }

    /// Ends both sides, the stream first.
    pub(crate) fn finish(mut self) -> Verdict {
        let ended = self.receiver.receive_as(Received::End, &[]);
        ended.context(|| "at the end of the stream".to_owned())?;
        self.sender.finish()?;
        self.receiver.finish()?;
        Ok(())
    }
}
