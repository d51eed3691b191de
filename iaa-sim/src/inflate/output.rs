//! What has been decompressed and not been taken yet, with the history before it.

use crate::deflate::HISTORY;

/// Bytes that are held before they are taken. Even, so that an XOR checksum over the parts is that of the
/// whole.
const HELD: usize = 64 << 10;

/// A buffer of output that begins with the history.
#[derive(Debug)]
pub(crate) struct Output {
    /// Room for the history, then for what is held.
    buffer: Vec<u8>,
    /// Where the history begins.
    history: usize,
    /// The end of what is there.
    end: usize,
    /// The most that `end` may be.
    limit: usize,
}

impl Output {
    /// Starts over, behind some history, of which the last 4096 bytes count.
    pub(crate) fn start(&mut self, history: &[u8]) {
        let history = &history[history.len().saturating_sub(HISTORY)..];
        self.history = HISTORY - history.len();
        self.buffer[self.history..HISTORY].copy_from_slice(history);
        self.end = HISTORY;
        self.limit = HISTORY;
    }

    /// Makes room for as many bytes as can be held, at most `most`.
    pub(crate) fn allow(&mut self, most: usize) {
        self.limit = self.end + most.min(self.buffer.len() - self.end);
    }

    /// Bytes that still have room.
    #[inline(always)]
    pub(crate) fn room(&self) -> usize {
        self.limit - self.end
    }

    /// Bytes that a distance can go back.
    #[inline(always)]
    pub(crate) fn history(&self) -> usize {
        self.end - self.history
    }

    /// Appends a byte, for which there must be room.
    #[inline(always)]
    pub(crate) fn push(&mut self, byte: u8) {
        self.buffer[self.end] = byte;
        self.end += 1;
    }

    /// Appends bytes, for which there must be room.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Appends bytes of the history, for which there must be room.
    #[inline]
    pub(crate) fn repeat(&mut self, length: usize, distance: usize) {
        let from = self.end - distance;
        if distance >= length {
            self.buffer.copy_within(from..from + length, self.end);
        } else if distance == 1 {
            let byte = self.buffer[from];
            self.buffer[self.end..self.end + length].fill(byte);
        } else {
            let (_, bytes) = self.buffer.split_at_mut(from);
            for at in distance..distance + length {
                bytes[at] = bytes[at - distance];
            }
        }
        self.end += length;
    }

    /// What has not been taken.
    pub(crate) fn held(&self) -> &[u8] {
        &self.buffer[HISTORY..self.end]
    }

    /// What has not been taken is history from now on. There is no room until it is allowed.
    pub(crate) fn take(&mut self) {
        let from = self.history.max(self.end.saturating_sub(HISTORY));
        let bytes = self.end - from;
        self.buffer.copy_within(from..self.end, HISTORY - bytes);
        self.history = HISTORY - bytes;
        self.end = HISTORY;
        self.limit = HISTORY;
    }

    /// The history, once all is taken.
    pub(crate) fn past(&self) -> &[u8] {
        &self.buffer[self.history..HISTORY]
    }
}

impl Default for Output {
    fn default() -> Self {
        Self { buffer: vec![0; HISTORY + HELD], history: HISTORY, end: HISTORY, limit: HISTORY }
    }
}
