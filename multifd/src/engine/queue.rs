//! The work of the sending channels.

use std::collections::VecDeque;

/// What is waited for when syncs have been asked for.
pub(crate) const SYNCS: &str = "every channel to send its SYNC";

/// What is to be sent, in batches `B` of a packet each, and how far the channels are. Work goes to
/// whichever channel is idle.
#[derive(Debug)]
pub(crate) struct Queue<B> {
    batches: VecDeque<B>,
    /// Batches that may wait: one a channel, so that none runs dry, and memory stays bounded.
    limit: usize,
    /// Syncs asked for, and sent by each channel.
    asked: u64,
    sent: Vec<u64>,
    finished: bool,
    /// Channels that have ended.
    ended: usize,
}

/// What a channel does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work<B> {
    Pages(B),
    Sync,
    Finish,
}

impl<B> Queue<B> {
    pub(crate) fn new(channels: u8) -> Self {
        let limit = usize::from(channels);
        Self {
            batches: VecDeque::with_capacity(limit),
            limit,
            asked: 0,
            sent: vec![0; limit],
            finished: false,
            ended: 0,
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
    pub(crate) fn next(&mut self, channel: u8) -> Option<Work<B>> {
        if let Some(batch) = self.batches.pop_front() {
            Some(Work::Pages(batch))
        } else if self.sent[usize::from(channel)] < self.asked {
            Some(Work::Sync)
        } else {
            self.finished.then_some(Work::Finish)
        }
    }

    /// Has every channel sync when the batches are sent.
    pub(crate) fn ask_sync(&mut self) {
        self.asked += 1;
    }

    /// Notes that `channel` has sent its sync.
    pub(crate) fn note_sync(&mut self, channel: u8) {
        self.sent[usize::from(channel)] += 1;
    }

    /// Whether every channel has sent every sync. Only then may batches of the next round be
    /// pushed: a channel takes batches first.
    pub(crate) fn all_synced(&self) -> bool {
        self.sent.iter().all(|&sent| sent == self.asked)
    }

    /// The channels that have not sent every sync.
    pub(crate) fn behind(&self) -> Vec<u8> {
        let is_behind = |(_, sent): &(u8, &u64)| **sent != self.asked;
        (0..).zip(&self.sent).filter(is_behind).map(|(number, _)| number).collect()
    }

    /// Ends the channels when the batches are sent.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Notes that a channel has ended.
    pub(crate) fn note_end(&mut self) {
        self.ended += 1;
    }

    /// Whether every channel has ended.
    pub(crate) fn all_ended(&self) -> bool {
        self.ended == self.sent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_batch_for_each_channel_may_wait() {
        for channels in [1, 2, 255] {
            let mut queue = Queue::new(channels);
            let pushed = (0..1000).take_while(|&batch| queue.push(&mut Some(batch)).is_some());
            assert_eq!(pushed.count(), usize::from(channels));
            let mut batch = Some(7);
            assert_eq!(queue.push(&mut batch), None);
            assert_eq!(batch, Some(7), "what is not taken stays with the caller");
            assert_eq!(queue.next(0), Some(Work::Pages(0)));
            assert_eq!((queue.push(&mut batch), batch), (Some(()), None));
        }
    }

    #[test]
    fn a_channel_sends_batches_then_each_sync_once_and_finishes_last() {
        let mut queue = Queue::new(2);
        queue.push(&mut Some('a')).unwrap();
        queue.ask_sync();
        queue.ask_sync();
        queue.finish();
        assert_eq!(queue.next(1), Some(Work::Pages('a')));
        for channel in 0..2 {
            for _ in 0..2 {
                assert!(!queue.all_synced());
                assert_eq!(queue.next(channel), Some(Work::Sync));
                queue.note_sync(channel);
            }
            assert_eq!(queue.next(channel), Some(Work::Finish));
        }
        assert!(queue.all_synced() && queue.behind().is_empty());
        queue.ask_sync();
        queue.note_sync(0);
        assert_eq!(queue.behind(), [1]);
        queue.note_end();
        assert!(!queue.all_ended());
        queue.note_end();
        assert!(queue.all_ended());
    }

    #[test]
    fn an_idle_channel_has_no_work() {
        assert_eq!(Queue::<()>::new(1).next(0), None);
    }
}
