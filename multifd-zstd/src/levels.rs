//! What a level sets. The parameters of libzstd's levels are made for files; some levels have others here, which suit
//! packets of pages better. Any receiver takes both: a frame's header says no more of them than its window.

use zstd_safe::CParameter::{
    CompressionLevel, HashLog, MinMatch, Strategy, TargetLength, WindowLog,
};
use zstd_safe::zstd_sys::ZSTD_strategy::ZSTD_fast;
use zstd_safe::{CCtx, SafeResult};

/// Sets `context` up for `level`.
pub(crate) fn set(context: &mut CCtx<'static>, level: i32) -> SafeResult {
    match Fast::of_level(level) {
        Some(fast) => fast.set(context),
        None => context.set_parameter(CompressionLevel(level)),
    }
}

/// A level's own parameters, all of strategy fast: one table of hashes, each with the last place where its bytes were.
#[derive(Clone, Copy)]
struct Fast {
    /// libzstd's own levels here have 19. A small window stays in the processor's cache, and its buffer is in one piece for
    /// half of the blocks, which libzstd searches faster.
    window_log: u32,
    hash_log: u32,
    min_match: u32,
    /// How fast bytes without matches are skipped. libzstd does not compress literals where it is above 0.
    target_length: u32,
}

impl Fast {
    const fn new(window_log: u32, hash_log: u32, min_match: u32, target_length: u32) -> Self {
        Self { window_log, hash_log, min_match, target_length }
    }

    const fn of_level(level: i32) -> Option<Self> {
        match level {
            -3 => Some(Self::new(17, 13, 7, 2)),
            -2 => Some(Self::new(17, 13, 7, 1)),
            -1 => Some(Self::new(17, 12, 7, 0)),
            _ => None,
        }
    }

    fn set(self, context: &mut CCtx<'static>) -> SafeResult {
        for parameter in [
            // A target length of 0 is the level's, and level 1 has 0.
            CompressionLevel(1),
            Strategy(ZSTD_fast),
            WindowLog(self.window_log),
            HashLog(self.hash_log),
            MinMatch(self.min_match),
            TargetLength(self.target_length),
        ] {
            context.set_parameter(parameter)?;
        }
        Ok(0)
    }
}
