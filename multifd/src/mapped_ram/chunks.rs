//! The work on a VM's pages, in pieces that threads share.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use multifd_core::PageSize;

use super::MappedRamError;

/// Pages that are worked on at once: whole words of a bitmap.
const PAGES: u64 = 256;

/// Some pages of a block, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The block's index.
    pub(super) block: usize,
    pub(super) pages: Range<u64>,
}

/// Bytes of a chunk at most.
pub(super) fn most_bytes(page_size: PageSize) -> usize {
    PAGES as usize * page_size.bytes()
}

/// Those pages of each block that `blocks` says.
pub(super) fn chunks<P>(blocks: impl IntoIterator<Item = P>) -> Vec<Chunk>
where
    P: IntoIterator<Item = Range<u64>>,
{
    let of_run = |block: usize, run: Range<u64>| {
        let starts = run.clone().step_by(PAGES as usize);
        starts.map(move |at| Chunk { block, pages: at..(at + PAGES).min(run.end) })
    };
    let of_block =
        |(block, runs): (usize, P)| runs.into_iter().flat_map(move |run| of_run(block, run));
    blocks.into_iter().enumerate().flat_map(of_block).collect()
}

/// Has `threads` threads `work` on all chunks, each with a state of its own that `start` gives. What fails first is returned,
/// and ends the others.
pub(super) fn for_each<S>(
    chunks: &[Chunk],
    threads: usize,
    start: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &Chunk) -> Result<(), MappedRamError> + Sync,
) -> Result<(), MappedRamError> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failure = Mutex::new(None);
    let run = || {
        let mut state = start();
        while let Some(chunk) = chunks.get(next.fetch_add(1, Relaxed)) {
            if failed.load(Relaxed) {
                return;
            }
            if let Err(error) = work(&mut state, chunk) {
                failed.store(true, Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                return;
            }
        }
    };
    let threads = threads.clamp(1, chunks.len().max(1));
    std::thread::scope(|scope| {
        // This thread is one of them: where no other can be started, it does it all.
        for _ in 1..threads {
            if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
