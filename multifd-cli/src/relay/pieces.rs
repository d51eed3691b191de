//! Bytes that one thread brings and another reads.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Where bytes are brought to. Dropping it is their end.
#[derive(Debug)]
pub(super) struct Pipe {
    pieces: SyncSender<Vec<u8>>,
    done: Receiver<()>,
}

/// Where they are read.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: Receiver<Vec<u8>>,
    done: SyncSender<()>,
    piece: io::Cursor<Vec<u8>>,
    /// Whoever brought the piece waits.
    is_awaited: bool,
}

/// A pipe that holds one piece at a time.
pub(super) fn pipe() -> (Pipe, Pieces) {
    let (bring, pieces) = sync_channel(1);
    let (say_done, done) = sync_channel(1);
    let piece = io::Cursor::default();
    let reader = Pieces { pieces, done: say_done, piece, is_awaited: false };
    (Pipe { pieces: bring, done }, reader)
}

impl Pipe {
    /// Brings some bytes, and waits until the reader has done with them and asks for more. They are
    /// lost where nobody reads any more.
    pub(super) fn pass(&self, bytes: &[u8]) {
        // An empty piece would be read as the end.
        if !bytes.is_empty() && self.pieces.send(bytes.to_vec()).is_ok() {
            // Fails where the reader is gone, which is as good.
            _ = self.done.recv();
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.piece.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        if std::mem::take(&mut self.is_awaited) {
            _ = self.done.send(());
        }
        let Ok(piece) = self.pieces.recv() else { return Ok(0) };
        (self.piece, self.is_awaited) = (io::Cursor::new(piece), true);
        self.piece.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_bytes_come_in_order_however_they_are_cut() {
        let (pipe, mut pieces) = pipe();
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            pieces.read_to_end(&mut read).map(|_| read)
        });
        for piece in [&b"ab"[..], b"", b"c", &[7; 100_000]] {
            pipe.pass(piece);
        }
        drop(pipe);
        let read = reader.join().unwrap().unwrap();
        assert!(read == [&b"abc"[..], &[7; 100_000]].concat());
    }

    #[test]
    fn who_brings_bytes_waits_until_they_are_done_with() {
        let (pipe, mut pieces) = pipe();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let see = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut byte = [0];
            while pieces.read(&mut byte).unwrap() > 0 {
                std::thread::sleep(Duration::from_millis(1));
                see.lock().unwrap().push(byte[0]);
            }
        });
        for (piece, all) in [(&b"abc"[..], &b"abc"[..]), (b"de", b"abcde")] {
            pipe.pass(piece);
            assert_eq!(*seen.lock().unwrap(), all);
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_gone() {
        let (pipe, mut pieces) = pipe();
        let reader = std::thread::spawn(move || pieces.read_exact(&mut [0]));
        pipe.pass(b"ab");
        reader.join().unwrap().unwrap();
        pipe.pass(b"c");
    }
}
