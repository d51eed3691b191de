//! What the demo prints.

use std::process::ExitCode;

use multifd::core::{MethodStats, MultiFdMethods, UsageError};
use serde::Serialize;

use super::compare::Comparison;
use super::guest::Guest;
use super::migration::{Migration, Moved};
use crate::escape::one_line;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::page::PAGE;
use crate::size::{Bytes, gib};
use crate::summary::{Summary, counted, counts};
use crate::table::Table;

const COLUMNS: [&str; 10] = [
    "codec",
    "level",
    "GiB",
    "seconds",
    "GiB/s",
    "wire bytes",
    "ratio",
    "zero pages",
    "CPU s",
    "<compared",
];

/// The results of all codecs with one guest.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    ram: String,
    ram_bytes: u64,
    ram_zero_pages: u64,
    page_size: usize,
    rounds: u32,
    channels: u8,
    /// At least one codec ran, and every codec that ran left both memories equal.
    equal: bool,
    codecs: Vec<CodecReport>,
    #[serde(skip)]
    json: bool,
}

/// The result of one codec.
#[derive(Debug, Serialize)]
pub(super) struct CodecReport {
    codec: &'static str,
    level: Option<i32>,
    available: bool,
    /// Every page was compared, and none differs.
    equal: bool,
    /// Why it did not run, or failed.
    error: Option<String>,
    #[serde(flatten)]
    result: Option<CodecResult>,
}

#[derive(Debug, Serialize)]
struct CodecResult {
    #[serde(flatten)]
    summary: Summary,
    /// What the destination's codec has counted.
    #[serde(serialize_with = "counts")]
    destination_codec_stats: MethodStats,
    /// Of the whole process: source, destination and the kernel's work for both.
    cpu_seconds: f64,
    pages_compared: u64,
    pages_different: u64,
    first_difference: Option<Difference>,
}

#[derive(Debug, Serialize)]
struct Difference {
    block: String,
    offset: u64,
}

impl Report {
    pub(super) fn new(
        guest: &Guest,
        channels: u8,
        output: &Output,
        json: bool,
    ) -> Result<Self, Failure> {
        // This also reads every page into memory before the first codec runs.
        let ram_zero_pages = guest.zero_pages();
        let (ram, ram_bytes) = (guest.describe(), guest.ram().bytes());
        if !json {
            output.say(&format!(
                "{} of guest memory ({ram}), {:.0} % of its pages zero; {channels} channels over \
                 loopback TCP; three rounds, then every page is compared",
                Bytes(ram_bytes),
                100.0 * ram_zero_pages as f64 / guest.pages() as f64,
            ))?;
        }
        Ok(Self {
            ram,
            ram_bytes,
            ram_zero_pages,
            page_size: PAGE,
            rounds: 3,
            channels,
            equal: false,
            codecs: Vec::new(),
            json,
        })
    }

    pub(super) fn add(&mut self, codec: CodecReport) {
        self.codecs.push(codec);
        let mut ran = self.codecs.iter().filter(|codec| codec.available).peekable();
        self.equal = ran.peek().is_some() && ran.all(|codec| codec.equal);
    }

    /// Prints the result. The exit status is 0 only if every codec that ran left both memories
    /// equal.
    pub(super) fn print(&self) -> Result<ExitCode, Failure> {
        if self.json {
            output::print_json(self)?;
        } else {
            output::print(&format!("{}{}", self.table(), self.counted()))?;
        }
        Ok(if self.equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&COLUMNS);
        self.codecs.iter().for_each(|codec| codec.add_to(&mut table));
        table
    }

    /// A line for each side of each codec that has counted something.
    fn counted(&self) -> String {
        let line = |name: &str, end: &str, stats: &MethodStats| {
            let counted = counted(stats);
            counted.map_or_else(String::new, |counted| format!("{name}, {end}: {counted}\n"))
        };
        let ran =
            self.codecs.iter().filter_map(|codec| Some((codec.codec, codec.result.as_ref()?)));
        ran.map(|(name, result)| {
            let source = line(name, "source", &result.summary.codec_stats);
            source + &line(name, "destination", &result.destination_codec_stats)
        })
        .collect()
    }
}

impl CodecReport {
    /// The result for a guest with `pages` pages.
    pub(super) fn of(
        migration: &Migration<'_>,
        pages: u64,
        result: Result<Moved, Failure>,
    ) -> Self {
        let codec = migration.codec.descriptor();
        let level = codec.levels.and_then(|_| codec.level(migration.level).ok());
        let mut report = Self {
            codec: codec.name,
            level,
            available: true,
            equal: false,
            error: None,
            result: None,
        };
        match result {
            Ok(moved) => {
                let Comparison { pages: compared, different, .. } = moved.comparison;
                report.equal = compared == pages && different == 0;
                report.result = Some(CodecResult::new(moved));
            }
            Err(failure) => report.error = Some(failure.to_string()),
        }
        report
    }

    pub(super) fn not_available(codec: &dyn MultiFdMethods, error: &UsageError) -> Self {
        Self {
            codec: codec.name(),
            level: None,
            available: false,
            equal: false,
            error: Some(error.to_string()),
            result: None,
        }
    }

    fn add_to(&self, table: &mut Table) {
        match (&self.result, &self.error) {
            (Some(result), _) => table.row(self.cells(result)),
            (None, Some(error)) if self.available => {
                table.remark(self.codec, &format!("FAILED: {}", one_line(error)));
            }
            (None, error) => {
                table.remark(self.codec, &one_line(error.as_deref().unwrap_or_default()));
            }
        }
    }

    fn cells(&self, result: &CodecResult) -> [String; 10] {
        let summary = &result.summary;
        let verdict = match &result.first_difference {
            None => "all equal".to_owned(),
            Some(Difference { block, offset }) => format!(
                "{} DIFFER, the first in {} at {offset:#x}",
                result.pages_different,
                one_line(block)
            ),
        };
        [
            self.codec.to_owned(),
            self.level.map_or_else(|| "-".to_owned(), |level| level.to_string()),
            format!("{:.2}", gib(summary.guest_bytes)),
            format!("{:.2}", summary.seconds),
            format!("{:.2}", summary.speed()),
            summary.wire_bytes.to_string(),
            summary.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            summary.zero_pages.to_string(),
            format!("{:.2}", result.cpu_seconds),
            format!("{} pages, {verdict}", result.pages_compared),
        ]
    }
}

impl CodecResult {
    fn new(moved: Moved) -> Self {
        let Moved { summary, destination_stats, cpu_seconds, comparison } = moved;
        let first = comparison.first;
        Self {
            summary,
            destination_codec_stats: destination_stats,
            cpu_seconds,
            pages_compared: comparison.pages,
            pages_different: comparison.different,
            first_difference: first.map(|(block, offset)| Difference { block, offset }),
        }
    }
}

#[cfg(test)]
mod tests;
