//! The pages of one packet that a channel gives to the devices of its side.

use super::devices::Devices;
use super::tally::SideTally;

/// Tries before a page is done in software, after the first.
const RETRIES: u32 = 3;

/// What the CPU spends on a page, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobCosts {
    pub(super) submit: u64,
    pub(super) collect: u64,
    /// Of a page that no queue had room for.
    pub(super) software: u64,
}

#[derive(Debug, Default)]
pub(super) struct Jobs {
    left: u64,
    tries: u32,
    /// The next device's turn.
    turn: usize,
    /// When the pages that have been submitted are done, in their order.
    done: Vec<u64>,
}

impl Jobs {
    /// Begins with the next packet's pages.
    pub(super) fn begin(&mut self, pages: u64) {
        self.left = pages;
        self.tries = 0;
        self.done.clear();
    }

    /// Tries to submit a page at `now`. Returns when the channel can go on, or `None` where all
    /// pages have been submitted.
    pub(super) fn submit(
        &mut self,
        now: u64,
        devices: &mut Devices,
        costs: JobCosts,
        tally: &mut SideTally,
    ) -> Option<u64> {
        if self.left == 0 {
            return None;
        }
        tally.submissions += 1;
        let mut spent = costs.submit;
        match devices.submit(now, &mut self.turn) {
            Some(done) => {
                self.done.push(done);
                tally.engine_ns += devices.service_ns();
                tally.hardware_pages += 1;
                self.next_page();
            }
            None => {
                tally.refused += 1;
                self.tries += 1;
                if self.tries > RETRIES {
                    spent += costs.software;
                    tally.software_pages += 1;
                    self.next_page();
                }
            }
        }
        tally.busy_ns += spent;
        Some(now + spent)
    }

    /// Takes the finished pages, in order, polling for each. Returns when the last is there.
    pub(super) fn collect(&self, now: u64, costs: JobCosts, tally: &mut SideTally) -> u64 {
        self.done.iter().fold(now, |now, &done| {
            tally.polling_ns += done.saturating_sub(now);
            tally.busy_ns += costs.collect;
            now.max(done) + costs.collect
        })
    }

    fn next_page(&mut self) {
        self.left -= 1;
        self.tries = 0;
    }
}
