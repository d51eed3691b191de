//! Why the program fails, as it prints it.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter;
use std::process::ExitCode;

use multifd::Unfinished;
use multifd::core::UsageError;

use crate::escape::one_line;

/// One line that says what failed, why, and what to do; and the exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    line: String,
    status: u8,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: 1 }
    }

    /// The command line asks for something impossible.
    pub(crate) fn usage(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: 2 }
    }

    /// Nobody on this side knows which side has the guest.
    pub(crate) fn unclear(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: 3 }
    }

    /// Whether it is not known which side has the guest.
    pub(crate) fn is_unclear(&self) -> bool {
        self.status == 3
    }

    /// Whether a signal is the reason.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.status >= 128
    }

    /// The user has cancelled the command. The status is the one that a shell gives to a program
    /// ended by that signal.
    pub(crate) fn interrupted(signal: i32) -> Self {
        let status = u8::try_from(128 + signal).unwrap_or(1);
        Self { line: "cancelled; nothing is left behind".to_owned(), status }
    }

    /// The command has done its work, which cannot be undone, but something beside it failed.
    pub(crate) fn incomplete(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: 4 }
    }

    /// The failure of a command line that asks for something impossible.
    pub(crate) fn into_usage(self) -> Self {
        Self { status: 2, ..self }
    }

    /// The same failure in other words.
    pub(crate) fn saying(self, line: impl Into<String>) -> Self {
        Self { line: line.into(), ..self }
    }

    /// The system refuses something, such as `cannot read vm.json`.
    pub(crate) fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        let remedy = remedy(error.kind());
        Self::new(format!("{doing}: {}{remedy}", chain(error)))
    }

    pub(crate) fn status(&self) -> ExitCode {
        self.status.into()
    }
}

/// An error and its causes in one line. A cause that the line names already is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    for cause in iter::successors(error.source(), |&cause| cause.source()) {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line = line + ": " + &cause;
        }
    }
    line
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind::{
        FileTooLarge, NotADirectory, NotFound, OutOfMemory, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    match kind {
        StorageFull => "; free some space on that disk or choose another",
        QuotaExceeded => "; free some of your quota or choose another disk",
        FileTooLarge => "; raise the limit (ulimit -f) or choose another file system",
        NotFound | NotADirectory => "; check the path",
        PermissionDenied => "; check who may access it",
        ReadOnlyFilesystem => "; choose another place",
        OutOfMemory => "; free some memory",
        _ => "",
    }
}

/// In one line that a terminal shows as it is: a peer's names may contain anything.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.line))
    }
}

impl From<multifd::Error> for Failure {
    fn from(error: multifd::Error) -> Self {
        Self::new(chain(&error))
    }
}

impl From<Unfinished> for Failure {
    fn from(unfinished: Unfinished) -> Self {
        let line = chain(&unfinished);
        match unfinished {
            Unfinished::Failed(multifd::Error::Changed { .. }) => {
                Self::new(format!("{line}; --no-digests sends it as it is"))
            }
            Unfinished::Failed(_) => Self::new(line),
            Unfinished::Unclear(_) => Self::unclear(line),
        }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::new(chain(&error))
    }
}

impl From<multifd_plan::Error> for Failure {
    fn from(error: multifd_plan::Error) -> Self {
        Self::new(chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_control_characters_do_not_reach_the_terminal() {
        let failure = Failure::new("the block 'pc\u{1b}[2J\nram'");
        assert_eq!(failure.to_string(), r"the block 'pc\u{1b}[2J\nram'");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn causes_follow_an_error_each_once() {
        let layer = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
        let cause = layer("time-out", None);
        let device = layer("device iax1 failed: time-out", Some(cause));
        let channel = layer("channel 3, packet 17", Some(device));
        assert_eq!(chain(&channel), "channel 3, packet 17: device iax1 failed: time-out");
        let bare = layer("cannot connect", Some(layer("refused", Some(layer("by a rule", None)))));
        assert_eq!(chain(&bare), "cannot connect: refused: by a rule");
    }

    #[test]
    fn a_full_disk_is_said_with_its_remedy() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let line = Failure::io("cannot write pc.ram", &full).to_string();
        assert!(
            line.starts_with("cannot write pc.ram: ") && line.contains("; free some"),
            "{line}"
        );
    }
}
