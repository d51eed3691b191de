//! Who waits on for another source must take it.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::bench::{Bench, Fault, Found, LIMIT, Side, WAITS, judge_end};
use crate::running::{Ended, Running};

/// A second source hears this where the first migration is not over.
const BUSY: &str = "another migration is under way";

/// A program that has not ended, and where it listens.
pub(crate) struct Waiting {
    pub(crate) side: Side,
    pub(crate) program: Running,
    pub(crate) uri: String,
}

impl Bench {
    /// Judges who has ended, and sends another image to who waits; `behind` a relay is its destination.
    pub(crate) fn judge_waiting(
        &self,
        run: &Path,
        fault: &Fault,
        ended: &[(Side, Option<&Ended>)],
        mut waiting: Waiting,
        mut behind: Option<Waiting>,
    ) -> Result<(), String> {
        let name = waiting.side.name();
        let said = waiting.program.said();
        for (side, ended) in ended {
            let Some(ended) = ended else { continue };
            judge_end(fault, *side == fault.side, ended)
                .map_err(|why| format!("{}: {why}: {ended:?}; {name}: {said}", side.name()))?;
            if ended.code() == Some(0) {
                return Err(format!("the {name} hangs, {} has succeeded: {said}", side.name()));
            }
        }
        if fault.is_harmless {
            return Err(format!("nothing was broken, and the {name} waits: {said}"));
        }
        // With another image than the old one its guest would be there, and at the source as well.
        let found = self.found(run, "vm");
        if found != Found::Old {
            return Err(format!("the {name} waits, the image is {found:?}: {ended:?}; {said}"));
        }
        let again = self.again(run, &waiting.uri)?;
        let words = waiting.program.said().get(said.len()..).unwrap_or_default().to_owned();
        let all = format!("{name}: {said}then: {words}; {again:?}");
        if words.contains(BUSY) || again.said.contains(BUSY) {
            return Err(format!("the {name} hangs in the first migration; {all}"));
        }
        if fault.hits_each_thread && waiting.side == fault.side && again.code() == Some(1) {
            return self.judge_broken_again(run, fault, waiting, behind, &words, &all);
        }
        for taker in [Some(&mut waiting), behind.as_mut()].into_iter().flatten() {
            let ended = taker.program.wait(LIMIT);
            if ended.failed() {
                let taker = taker.side.name();
                return Err(format!("the {taker} did not take another: {ended:?}; {all}"));
            }
        }
        let found = self.found(run, "vm");
        if again.failed() || found != Found::Other {
            return Err(format!("another source was not taken: {found:?}; {all}"));
        }
        Ok(())
    }

    /// The same call has failed in the threads of a second source's connections as well: who waits has
    /// refused it and waits on, or has failed, and says so; a destination behind it is as good as before.
    fn judge_broken_again(
        &self,
        run: &Path,
        fault: &Fault,
        mut waiting: Waiting,
        behind: Option<Waiting>,
        words: &str,
        all: &str,
    ) -> Result<(), String> {
        let found = self.found(run, "vm");
        if found != Found::Old {
            return Err(format!("1 says that the guest is the source's, and {found:?}; {all}"));
        }
        if !words.contains("a connection was refused") {
            let ended = waiting.program.wait(WAITS);
            judge_end(fault, true, &ended).map_err(|why| format!("{why}: {ended:?}; {all}"))?;
            if ended.code() == Some(0) {
                return Err(format!("0 without an image: {ended:?}; {all}"));
            }
        }
        self.not_shown.fetch_add(1, Ordering::Relaxed);
        if let Some(mut behind) = behind {
            // Its relay would still be connected to it.
            drop(waiting);
            let ended = behind.program.wait(WAITS);
            if ended.is_not() {
                let third = self.again(run, &behind.uri)?;
                let ended = behind.program.wait(LIMIT);
                if third.failed() || ended.failed() || self.found(run, "vm") != Found::Other {
                    return Err(format!("behind the relay: {third:?}; {ended:?}; {all}"));
                }
                return Ok(());
            }
            judge_end(fault, false, &ended).map_err(|why| format!("{why}: {ended:?}; {all}"))?;
            if ended.code() == Some(0) {
                return Err(format!("0 without an image: {ended:?}; {all}"));
            }
        }
        Ok(())
    }

    fn again(&self, run: &Path, to: &str) -> Result<Ended, String> {
        let image = self.path("other").display().to_string();
        let send = ["send", "--from", &image, "--to", to, "--progress-timeout=4s"];
        Ok(self.run(run, "again", &send)?.wait(LIMIT))
    }
}
