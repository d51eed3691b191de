//! What came out.

use std::fmt;
use std::time::Duration;

use multifd_core::{Compression, MethodDescriptor};

use crate::case::{Case, Group};

/// How a case ended.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The codec does what the case's name says.
    Passed,
    /// It does not, for this reason.
    Failed(String),
    /// The case says nothing about this codec or cannot run here, for this reason.
    NotApplicable(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.pad("passed"),
            Self::Failed(message) => write!(f, "FAILED: {message}"),
            Self::NotApplicable(reason) => write!(f, "does not apply: {reason}"),
        }
    }
}

/// How one case ended for one codec.
#[derive(Clone, Debug)]
pub struct CaseReport {
    codec: &'static str,
    case: Case,
    outcome: Outcome,
    duration: Duration,
}

impl CaseReport {
    pub(crate) fn new(
        codec: &'static str,
        case: Case,
        outcome: Outcome,
        duration: Duration,
    ) -> Self {
        Self { codec, case, outcome, duration }
    }

    /// The codec's name.
    pub fn codec(&self) -> &'static str {
        self.codec
    }

    /// The case's group.
    pub fn group(&self) -> Group {
        self.case.group()
    }

    /// The case's name: what it proves.
    pub fn name(&self) -> &'static str {
        self.case.name()
    }

    /// How it ended.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// How long it took.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.codec, self.case, self.outcome)
    }
}

/// How all cases ended for one codec.
#[derive(Clone, Debug)]
pub struct Report {
    codec: &'static str,
    compression: Compression,
    cases: Vec<CaseReport>,
}

impl Report {
    pub(crate) fn new(codec: MethodDescriptor, cases: Vec<CaseReport>) -> Self {
        Self { codec: codec.name, compression: codec.compression, cases }
    }

    /// The codec's name.
    pub fn codec(&self) -> &'static str {
        self.codec
    }

    /// The value of the compression field that the codec's packets carry.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Every case, in the order in which they ran.
    pub fn cases(&self) -> &[CaseReport] {
        &self.cases
    }

    /// The cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed(_)))
    }

    /// Number of cases that passed.
    pub fn passed(&self) -> usize {
        self.cases.iter().filter(|case| case.outcome == Outcome::Passed).count()
    }

    /// Whether the codec conforms: no case failed, and some passed. A codec that is not available
    /// does not conform.
    pub fn conforms(&self) -> bool {
        self.failures().next().is_none() && self.passed() > 0
    }
}
