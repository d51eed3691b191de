//! What the program prints: results on stdout, everything else on stderr.

use std::io::{self, Write};

use serde::Serialize;

use crate::escape::{self, one_line};
use crate::failure::Failure;
use crate::options::verbosity::Verbosity;
use crate::progress::Bar;

/// How much is printed besides the result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    quiet: bool,
    bars: bool,
}

impl Output {
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        // Bars and log lines would write over each other.
        Self { quiet: verbosity.quiet, bars: !verbosity.quiet && verbosity.verbose == 0 }
    }

    /// Prints a line about what was done to stdout, unless the program is to be quiet.
    pub(crate) fn say(&self, line: &str) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { print(&(one_line(line) + "\n")) }
    }

    /// Writes what happens to stderr, unless the program is to be quiet.
    pub(crate) fn tell(&self, line: &str) {
        if !self.quiet {
            note(line);
        }
    }

    /// Writes a warning to stderr, unless the program is to be quiet.
    pub(crate) fn warn(&self, line: &str) {
        if !self.quiet {
            note(&format!("multifd: warning: {line}"));
        }
    }

    /// A progress bar for `bytes` bytes, shown only on a terminal.
    pub(crate) fn bar(&self, label: &str, bytes: u64) -> Bar {
        Bar::of_bytes(self.bars, label, bytes)
    }

    /// A line of progress, shown only on a terminal.
    pub(crate) fn line(&self, label: &str, text: &str) -> Bar {
        Bar::of_text(self.bars, label, text)
    }

    /// A progress bar for `count` steps.
    pub(crate) fn steps(&self, label: &str, count: u64) -> Bar {
        Bar::of_steps(self.bars, label, count)
    }
}

/// Writes a line to stderr.
pub(crate) fn note(line: &str) {
    // Written at once: others may write there, too. If it is closed, there is no place to report that.
    _ = io::stderr().write_all((one_line(line) + "\n").as_bytes());
}

/// Writes a result to stdout. It is not an error if a reader, such as `head`, has closed it.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// As [`print()`].
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::io("cannot write to stdout", &error)),
    }
}

/// Writes a result to stdout as one JSON document.
pub(crate) fn print_json(result: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(result)
        .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    print(&(escape::json(&json) + "\n"))
}

/// Takes the outcome of printing the result of a migration that went through. It did so whether or not
/// that can be printed: what the exit status says of the guest must be true.
pub(crate) fn went_through(printed: Result<(), Failure>) {
    done("the migration went through", printed);
}

/// As [`went_through`], for a VM that was stored from a recording or another place.
pub(crate) fn stored(printed: Result<(), Failure>) {
    done("the VM is stored", printed);
}

fn done(what: &str, printed: Result<(), Failure>) {
    if let Err(failure) = printed {
        note(&format!("multifd: {what}, but its result is not shown: {failure}"));
    }
}

/// Many lines of a result, written to stdout in larger pieces.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    text: String,
    failed: Option<Failure>,
}

impl Lines {
    /// How much is written at once, in bytes.
    const PIECE: usize = 64 << 10;

    /// Adds a line.
    pub(crate) fn add(&mut self, line: &str) {
        self.text += line;
        self.text.push('\n');
        if self.text.len() >= Self::PIECE {
            self.write();
        }
    }

    /// Writes the rest. Fails if any line could not be written.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.write();
        self.failed.map_or(Ok(()), Err)
    }

    fn write(&mut self) {
        if self.failed.is_none() {
            self.failed = print(&self.text).err();
        }
        self.text.clear();
    }
}
