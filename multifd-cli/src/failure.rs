//! Why the program fails, as it says it.

use std::fmt;
use std::io;
use std::process::ExitCode;

use multifd::core::UsageError;

/// One line that says what failed, its cause and, where there is one, the remedy; and the exit
/// status.
#[derive(Debug)]
pub(crate) struct Failure {
    line: String,
    status: u8,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: 1 }
    }

    /// The command line asks for something that cannot be.
    pub(crate) fn usage(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: 2 }
    }

    /// The user stopped it. The status is the shell's for a program that the signal ended.
    pub(crate) fn interrupted(signal: i32) -> Self {
        let status = u8::try_from(128 + signal).unwrap_or(1);
        Self { line: "cancelled; nothing is left behind".to_owned(), status }
    }

    /// What was asked for is done, but for something beside it.
    pub(crate) fn incomplete(line: impl Into<String>) -> Self {
        Self { line: line.into(), status: 3 }
    }

    /// The same failure in other words.
    pub(crate) fn saying(self, line: impl Into<String>) -> Self {
        Self { line: line.into(), ..self }
    }

    /// The system refused `doing`, such as `cannot read vm.json`.
    pub(crate) fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        let remedy = remedy(error.kind());
        Self::new(format!("{doing}: {error}{remedy}"))
    }

    pub(crate) fn status(&self) -> ExitCode {
        self.status.into()
    }
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

/// On one line and without control characters, whatever a peer's names have in them.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.line))
    }
}

pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

impl From<multifd::Error> for Failure {
    fn from(error: multifd::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::new(error.to_string())
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
