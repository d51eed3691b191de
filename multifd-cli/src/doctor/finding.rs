//! A finding of the doctor.

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// It is as it should be.
    Ok,
    /// Worth knowing; nothing is wrong.
    Note,
    /// The hardware path works, but worse than it could.
    Warning,
    /// The hardware path does not work.
    Problem,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was checked, in a word.
    pub(super) subject: &'static str,
    /// What was found.
    pub(super) found: String,
    /// What it means; `None` if nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) meaning: Option<String>,
    /// Shell commands that fix it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) remedy: Vec<String>,
}

impl Finding {
    pub(super) fn new(level: Level, subject: &'static str, found: impl Into<String>) -> Self {
        Self { level, subject, found: found.into(), meaning: None, remedy: Vec::new() }
    }

    pub(super) fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, found)
    }

    pub(super) fn problem(subject: &'static str, found: impl Into<String>) -> Self {
        Self::new(Level::Problem, subject, found)
    }

    pub(super) fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = Some(meaning.into());
        self
    }

    pub(super) fn mend<S: Into<String>>(mut self, lines: impl IntoIterator<Item = S>) -> Self {
        self.remedy.extend(lines.into_iter().map(Into::into));
        self
    }
}
