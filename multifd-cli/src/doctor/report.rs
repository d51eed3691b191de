//! How the findings are shown.

use std::fmt;

use serde::Serialize;

use super::finding::{Finding, Level};
use super::system::{Device, System};
use crate::escape::one_line;
use crate::table::terminal_width;

/// The verdict in a sentence, and all findings.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    usable: bool,
    verdict: String,
    findings: Vec<Finding>,
    devices: &'a [Device],
}

impl<'a> Report<'a> {
    pub(super) fn new(system: &'a System, findings: Vec<Finding>) -> Self {
        let of = |level| findings.iter().filter(move |finding| finding.level == level);
        let problems: Vec<_> = of(Level::Problem).collect();
        let verdict = match (&problems[..], of(Level::Warning).count()) {
            ([], _) if system.simulated.is_some() => {
                "QPL's hardware path can be used here, on simulated devices".to_owned()
            }
            ([], 0) => "QPL's hardware path can be used here".to_owned(),
            ([], 1) => "QPL's hardware path can be used here, with 1 warning".to_owned(),
            ([], warnings) => {
                format!("QPL's hardware path can be used here, with {warnings} warnings")
            }
            ([problem], _) => {
                format!("QPL's hardware path cannot be used here: {}", problem.found)
            }
            (problems, _) => {
                format!("QPL's hardware path cannot be used here: {} problems", problems.len())
            }
        };
        let usable = problems.is_empty();
        Self { usable, verdict, findings, devices: system.devices() }
    }

    /// Whether the hardware path can be used.
    pub(super) fn usable(&self) -> bool {
        self.usable
    }
}

/// The verdict, then a paragraph for each finding: what was found, what it means, how to fix it.
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        wrap(&one_line(&self.verdict)).iter().try_for_each(|line| writeln!(f, "{line}"))?;
        for finding in &self.findings {
            let level = finding.level.name();
            let found = format!("{}: {}", finding.subject, finding.found);
            let paragraphs = [Some(found), finding.meaning.clone()];
            let lines = paragraphs.iter().flatten().flat_map(|text| wrap(&one_line(text)));
            writeln!(f)?;
            for (at, line) in lines.enumerate() {
                let margin = if at == 0 { level } else { "" };
                writeln!(f, "{margin:<7}  {line}")?;
            }
            for line in &finding.remedy {
                // Whole, so that it can be copied.
                writeln!(f, "{:11}{}", "", one_line(line))?;
            }
        }
        Ok(())
    }
}

/// Lines that fit the terminal, of at most 90 characters behind their margin, unless a word is longer.
fn wrap(text: &str) -> Vec<String> {
    const MARGIN: u16 = 9;
    let width = terminal_width().map_or(90, |width| width.saturating_sub(MARGIN).min(90));
    let width = usize::from(width);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
