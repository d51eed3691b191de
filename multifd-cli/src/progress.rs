//! Progress bars.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use multifd::{Progress, Stats};

use crate::size::Bytes;

const EVERY: Duration = Duration::from_millis(100);

const BYTES: &str = "{prefix:10} [{bar:30}] {binary_bytes:>11} of {binary_total_bytes}  \
                     {binary_bytes_per_sec}, {eta} left";
const TEXT: &str = "{prefix:10} {msg}";
const STEPS: &str = "{prefix:10} [{bar:30}] {pos} of {len}  {elapsed}";

/// A bar on stderr, shown if that is a terminal, until it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Bar(Arc<Erase>);

#[derive(Debug)]
struct Erase(ProgressBar);

impl Bar {
    pub(crate) fn of_bytes(shown: bool, label: &str, bytes: u64) -> Self {
        Self::new(shown, BYTES, label, bytes)
    }

    /// A line of text in place of a bar.
    pub(crate) fn of_text(shown: bool, label: &str, text: &str) -> Self {
        let bar = Self::new(shown, TEXT, label, 0);
        bar.0.0.set_message(text.to_owned());
        bar
    }

    pub(crate) fn of_steps(shown: bool, label: &str, count: u64) -> Self {
        Self::new(shown, STEPS, label, count)
    }

    fn new(shown: bool, template: &str, label: &str, total: u64) -> Self {
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        // The style first: setting anything else draws the bar.
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_style(style(template))
            .with_prefix(label.to_owned());
        Self(Arc::new(Erase(bar)))
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.0.inc(more);
    }

    /// Shows a text in place of the bar.
    pub(crate) fn say(&self, text: &str) {
        self.0.0.set_style(style(TEXT));
        self.0.0.set_message(text.to_owned());
    }

    /// Shows the guest memory that a migration has moved, until the result is dropped: in the first
    /// round as a bar of the RAM's `total` bytes, then in words.
    pub(crate) fn follow(&self, progress: Progress, total: u64) -> Follow {
        self.0.0.set_style(style(BYTES));
        self.0.0.set_length(total);
        self.0.0.reset();
        self.watch(move |bar| {
            let stats = progress.snapshot();
            match later_round(&stats, bar.0.0.elapsed()) {
                Some(text) => bar.say(&text),
                None => bar.0.0.set_position(stats.guest_bytes().min(total)),
            }
        })
    }

    /// Shows the text that `text` returns, until the result is dropped.
    pub(crate) fn follow_text(&self, mut text: impl FnMut() -> String + Send + 'static) -> Follow {
        self.watch(move |bar| bar.0.0.set_message(text()))
    }

    /// Lets `look` change the bar regularly, unless the bar is hidden.
    fn watch(&self, mut look: impl FnMut(&Self) + Send + 'static) -> Follow {
        if self.0.0.is_hidden() {
            return Follow { stop: None, thread: None };
        }
        let (stop, stopped) = mpsc::channel();
        let bar = self.clone();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                look(&bar);
            }
        });
        Follow { stop: Some(stop), thread: Some(thread) }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// What is said once every page has been moved and those that the guest has written since follow:
/// how many those will be, nobody knows. `None` in the first round.
fn later_round(stats: &Stats, time: Duration) -> Option<String> {
    let bytes = stats.guest_bytes();
    let round = match stats.round() {
        Some(round) => (round > 1).then(|| format!("round {round}")),
        None => (bytes >= stats.ram_bytes).then(|| "later rounds".to_owned()),
    };
    round.map(|round| format!("{round}, {} in all, {}", Bytes(bytes), speed(bytes, time)))
}

/// What a migration has moved of its RAM in the first round, and how long the rest takes at that
/// speed; in later rounds, what it has moved in all.
pub(crate) fn moved(stats: &Stats, time: Duration) -> String {
    later_round(stats, time).unwrap_or_else(|| {
        let (bytes, total) = (stats.guest_bytes(), stats.ram_bytes);
        let left = total.saturating_sub(bytes) as f64 / bytes_per_second(bytes, time).max(1.0);
        let speed = speed(bytes, time);
        format!("{} of {}, {speed}, {left:.0} s left", Bytes(bytes.min(total)), Bytes(total))
    })
}

fn speed(bytes: u64, time: Duration) -> String {
    format!("{}/s", Bytes(bytes_per_second(bytes, time) as u64))
}

fn bytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(0.1)
}

impl Drop for Erase {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar that follows a migration.
#[derive(Debug)]
pub(crate) struct Follow {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use multifd::core::channel::ChannelStats;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    /// A VM with 4 GiB of RAM, of which so many GiB have been moved.
    fn stats(syncs: u64, gib: u64) -> Stats {
        let mut stats = Stats::default();
        (stats.ram_bytes, stats.page_bytes) = (4 << 30, 4096);
        (stats.syncs, stats.syncs_are_rounds) = (syncs, true);
        let mut channel = ChannelStats::default();
        channel.normal_pages = gib << 18;
        stats.channels.push(channel);
        stats
    }

    #[test]
    fn the_first_round_is_a_part_of_the_ram_and_says_how_long_the_rest_takes() {
        assert_eq!(moved(&stats(1, 1), TEN), "1 GiB of 4 GiB, 102.40 MiB/s, 30 s left");
        assert_eq!(moved(&stats(1, 4), TEN), "4 GiB of 4 GiB, 409.60 MiB/s, 0 s left");
        // Pages may come twice in a round.
        assert!(moved(&stats(1, 5), TEN).starts_with("4 GiB of 4 GiB, "));
        assert_eq!(later_round(&stats(1, 1), TEN), None);
    }

    #[test]
    fn later_rounds_are_said_by_their_number_and_bytes_and_never_as_a_part() {
        assert_eq!(moved(&stats(3, 10), TEN), "round 3, 10 GiB in all, 1 GiB/s");
    }

    #[test]
    fn where_syncs_do_not_tell_the_round_the_first_ends_with_the_last_page() {
        let stats = |gib| {
            let mut stats = stats(20, gib);
            stats.syncs_are_rounds = false;
            stats
        };
        assert!(moved(&stats(3), TEN).starts_with("3 GiB of 4 GiB, "));
        assert_eq!(moved(&stats(10), TEN), "later rounds, 10 GiB in all, 1 GiB/s");
    }
}
