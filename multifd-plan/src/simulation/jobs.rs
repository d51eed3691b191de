//! The pages of one packet that a channel submits to the devices of its side.

use super::devices::Devices;
use super::tally::SideTally;

/// Attempts after the first, before the CPU takes a page.
const RETRIES: u32 = 3;

/// CPU time of a page, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobCosts {
    pub(super) submit: u64,
    pub(super) collect: u64,
    /// To compress or decompress a page that found every queue full.
    pub(super) software: u64,
}

#[derive(Debug, Default)]
pub(super) struct Jobs {
    left: u64,
    tries: u32,
    /// The next device's turn.
    turn: usize,
    /// When each submitted page is done, in the order of submission.
    done: Vec<u64>,
}

impl Jobs {
    /// Begins with the pages of the next packet.
    pub(super) fn begin(&mut self, pages: u64) {
        self.left = pages;
        self.tries = 0;
        self.done.clear();
    }

    /// Tries to submit a page at `now`. Returns when the channel can go on; `None` if all pages
    /// have been submitted.
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

    /// Collects the finished pages in order, polling for each. Returns when the last one is done.
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
