//! The two ends of one channel, each over a pipe.

use std::sync::Arc;

use multifd_core::channel::{Received, RecvChannel, SendChannel};
use multifd_core::io::Blocking;
use multifd_core::ram::{PageBatch, Ram};
use multifd_core::{Error, MethodStats};
use pollster::block_on;

use super::pipe::Pipe;
use super::verdict::{Context, Stop, Verdict, ensure};

/// The sending end.
pub(crate) struct Sender {
    pub(crate) channel: SendChannel<Blocking<Pipe>>,
    pub(crate) pipe: Pipe,
    pub(crate) ram: Arc<Ram>,
}

impl Sender {
    /// Sends the pages at `offsets` as one packet and returns its bytes.
    pub(crate) fn send(&mut self, offsets: &[u64]) -> Verdict<Vec<u8>> {
        let block = Arc::clone(&self.ram.blocks()[0]);
        let batch = PageBatch::new(block, self.ram.page_size(), offsets.to_vec())
            .map_err(|error| Stop::failed(error.to_string()))?;
        block_on(self.channel.send_pages(&batch)).context(|| "sending pages".to_owned())?;
        Ok(self.pipe.take())
    }

    /// Sends the end of a round and returns its bytes.
    pub(crate) fn sync(&mut self) -> Verdict<Vec<u8>> {
        block_on(self.channel.send_sync()).context(|| "sending a SYNC".to_owned())?;
        Ok(self.pipe.take())
    }

    pub(crate) fn finish(self) -> Verdict<MethodStats> {
        let finished = block_on(self.channel.finish());
        finished.map(|(_, stats)| stats).context(|| "ending the sending side".to_owned())
    }
}

/// The receiving end.
pub(crate) struct Receiver {
    pub(crate) channel: RecvChannel<Blocking<Pipe>>,
    pub(crate) pipe: Pipe,
    pub(crate) ram: Arc<Ram>,
}

impl Receiver {
    /// Receives the packet in `bytes`.
    pub(crate) fn try_receive(&mut self, bytes: &[u8]) -> Result<Received, Error> {
        self.pipe.push(bytes);
        block_on(self.channel.next())
    }

    /// Receives the valid packet of pages in `bytes`, of which nothing may be left over.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Verdict {
        let received = self.try_receive(bytes).context(|| "receiving a valid packet".to_owned())?;
        ensure!(received == Received::Pages, "a packet of pages was received as {received:?}");
        let left = self.pipe.len();
        ensure!(left == 0, "the codec left {left} bytes of the payload unread");
        Ok(())
    }

    pub(crate) fn finish(self) -> Verdict<MethodStats> {
        let finished = block_on(self.channel.finish());
        finished.map(|(_, stats)| stats).context(|| "ending the receiving side".to_owned())
    }
}
