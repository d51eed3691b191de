//! Progress bars.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use multifd::Progress;

const EVERY: Duration = Duration::from_millis(100);

const BYTES: &str =
    "{prefix:10} [{bar:30}] {binary_bytes:>11} of {binary_total_bytes}  {binary_bytes_per_sec}";
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
    pub(crate) fn of_text(shown: bool, label: &str) -> Self {
        Self::new(shown, TEXT, label, 0)
    }

    pub(crate) fn of_steps(shown: bool, label: &str, count: u64) -> Self {
        Self::new(shown, STEPS, label, count)
    }

    fn new(shown: bool, style: &str, label: &str, total: u64) -> Self {
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        // The style first: setting anything else draws the bar.
        let style = ProgressStyle::with_template(style);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(total), target)
            .with_style(style.progress_chars("=> "))
            .with_prefix(label.to_owned());
        Self(Arc::new(Erase(bar)))
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.0.inc(more);
    }

    pub(crate) fn set_total(&self, total: u64) {
        self.0.0.set_length(total);
    }

    /// Shows the guest memory that a migration has moved, until the result is dropped.
    pub(crate) fn follow(&self, progress: Progress, page_bytes: usize) -> Follow {
        self.watch(move |bar| {
            let stats = progress.snapshot();
            let pages = stats.total().normal_pages + stats.zero_pages();
            bar.0.0.set_position(pages * page_bytes as u64);
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
