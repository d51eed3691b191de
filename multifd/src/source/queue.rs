//! The work of the sending channels.

use std::collections::VecDeque;

/// What is to be sent, in batches `B` of a packet each, and how far the channels are. Work goes to
/// whichever channel is idle.
#[derive(Debug)]
pub(crate) struct Queue<B> {
    batches: VecDeque<B>,
    /// Batches that may wait: one a channel, so that none runs dry, and memory stays bounded.
    limit: usize,
    /// Syncs asked for, and sent by each channel.
    syncs: u64,
    synced: Vec<u64>,
    finished: bool,
    /// Everything is sent, or the last of it is being sent: the destination may confirm.
    complete: bool,
    answers: Answers,
}

/// What the destination has said on the return path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answers {
    /// There is no return path.
    #[default]
    None,
    /// It may yet say something.
    Open,
    /// The destination has everything.
    Confirmed,
}

/// What a channel does next.
#[derive(Debug)]
pub(crate) enum Work<B> {
    Pages(B),
    Sync,
    Finish,
}

impl<B> Queue<B> {
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            batches: VecDeque::with_capacity(channels),
            limit: channels,
            syncs: 0,
            synced: vec![0; channels],
            finished: false,
            complete: false,
            answers: Answers::default(),
        }
    }

    /// Takes `batch`, if there is room.
    pub(crate) fn push(&mut self, batch: &mut Option<B>) -> Option<()> {
        if self.batches.len() >= self.limit {
            return None;
        }
        self.batches.extend(batch.take());
        Some(())
    }

    /// The next work of `channel`; `None` while there is none.
    pub(crate) fn next(&mut self, channel: usize) -> Option<Work<B>> {
        if let Some(batch) = self.batches.pop_front() {
            Some(Work::Pages(batch))
        } else if self.synced[channel] < self.syncs {
            Some(Work::Sync)
        } else {
            self.finished.then_some(Work::Finish)
        }
    }

    /// Has every channel sync when the batches are sent.
    pub(crate) fn ask_sync(&mut self) {
        self.syncs += 1;
    }

    /// Notes that `channel` has sent its sync.
    pub(crate) fn note_sync(&mut self, channel: usize) {
        self.synced[channel] += 1;
    }

    /// Whether every channel has sent every sync. Only then may batches of the next round be
    /// pushed: a channel takes batches first.
    pub(crate) fn all_synced(&self) -> bool {
        self.synced.iter().all(|&synced| synced == self.syncs)
    }

    /// Ends the channels when the batches are sent.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// The last bytes are about to be sent.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The destination has said that it has everything; false where that cannot be.
    pub(crate) fn confirm(&mut self) -> bool {
        if self.complete {
            self.answers = Answers::Confirmed;
        }
        self.complete
    }

    pub(crate) fn set_answers(&mut self, answers: Answers) {
        self.answers = answers;
    }

    pub(crate) fn answers(&self) -> Answers {
        self.answers
    }
}
