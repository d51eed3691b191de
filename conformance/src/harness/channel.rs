//! The two ends of one channel, over bytes in memory.

use std::sync::Arc;

use multifd_core::channel::{
    ChannelCounters, Received, RecvMachine, RecvNext, SendMachine, Target, memory,
};
use multifd_core::ram::{PageBatch, Ram};
use multifd_core::{Error, MethodStats};
use pollster::block_on;

use super::verdict::{Context, Stop, Verdict, ensure, succeed, unwinding};

/// The sending end.
pub(crate) struct Sender {
    pub(crate) machine: SendMachine,
    pub(crate) counters: Arc<ChannelCounters>,
    pub(crate) ram: Arc<Ram>,
}

impl Sender {
    /// Sends the pages at `offsets` as one packet and returns its bytes.
    pub(crate) fn send(&mut self, offsets: &[u64]) -> Verdict<Vec<u8>> {
        let batch = self.batch(offsets)?;
        self.write("sending pages", |machine| machine.pages(batch))
    }

    /// Sends the pages at `offsets` on a stream that fails after `written` bytes of the packet.
    pub(crate) fn fail_after(&mut self, written: usize, offsets: &[u64]) -> Verdict {
        let batch = self.batch(offsets)?;
        let machine = &mut self.machine;
        succeed("sending pages", || {
            machine.pages(batch)?;
            block_on(machine.encode())?;
            machine.sent(written);
            Ok(())
        })
    }

    fn batch(&self, offsets: &[u64]) -> Verdict<PageBatch> {
        let block = Arc::clone(&self.ram.blocks()[0]);
        PageBatch::new(block, self.ram.page_size(), offsets.to_vec())
            .map_err(|error| Stop::failed(error.to_string()))
    }

    /// Sends the end of a round and returns its bytes.
    pub(crate) fn sync(&mut self) -> Verdict<Vec<u8>> {
        self.write("sending a SYNC", SendMachine::sync)
    }

    /// Gives the channel what it is to send, and returns the bytes.
    fn write(
        &mut self,
        doing: &str,
        give: impl FnOnce(&mut SendMachine) -> Result<(), Error>,
    ) -> Verdict<Vec<u8>> {
        let mut bytes = Vec::new();
        succeed(doing, || {
            give(&mut self.machine)?;
            block_on(memory::send(&mut self.machine, &mut bytes))
        })?;
        Ok(bytes)
    }

    /// Ends the channel. Returns what the codec has counted.
    pub(crate) fn finish(self) -> Verdict<MethodStats> {
        succeed("ending the sending side", || block_on(self.machine.finish()))?;
        Ok(self.counters.method_stats())
    }
}

/// The receiving end.
pub(crate) struct Receiver {
    pub(crate) machine: RecvMachine,
    pub(crate) counters: Arc<ChannelCounters>,
    pub(crate) ram: Arc<Ram>,
    /// The most bytes that arrive at once.
    pub(crate) piece: usize,
}

impl Receiver {
    /// Receives the next packet of `stream`, which ends where its bytes do.
    pub(crate) fn try_receive(&mut self, stream: &mut &[u8]) -> Verdict<Result<Received, Error>> {
        unwinding(|| block_on(self.next(stream)))
    }

    async fn next(&mut self, stream: &mut &[u8]) -> Result<Received, Error> {
        loop {
            let most = &stream[..stream.len().min(self.piece)];
            let count = match self.machine.next()? {
                RecvNext::Read(room) => {
                    let count = room.len().min(most.len());
                    room[..count].copy_from_slice(&most[..count]);
                    count
                }
                RecvNext::ReadGuest(room) => room.copy_from(most),
                RecvNext::Admit(_) => {
                    self.machine.place(Target::Ram(Arc::clone(&self.ram)))?;
                    continue;
                }
                RecvNext::Decode => {
                    self.machine.decode().await?;
                    continue;
                }
                RecvNext::Received(received) => return Ok(received),
            };
            *stream = &stream[count..];
            self.machine.filled(count)?;
        }
    }

    /// Receives the valid packet of pages in `bytes`.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Verdict {
        self.receive_as(Received::Pages, bytes).context(|| "receiving a valid packet".to_owned())
    }

    /// Receives the packet, or the end, in `bytes`, which has to be what is expected.
    pub(crate) fn receive_as(&mut self, expected: Received, mut bytes: &[u8]) -> Verdict {
        let received = self.try_receive(&mut bytes)?.map_err(|e| Stop::failed(e.to_string()))?;
        ensure!(received == expected, "{expected:?} was received as {received:?}");
        Ok(())
    }

    /// Ends the channel. Returns what the codec has counted.
    pub(crate) fn finish(self) -> Verdict<MethodStats> {
        succeed("ending the receiving side", || block_on(self.machine.finish()))?;
        Ok(self.counters.method_stats())
    }
}
