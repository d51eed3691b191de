//! `multifd conformance`.

use std::process::ExitCode;
use std::sync::Arc;

use multifd::core::{MultiFdMethods, Registry};
use multifd_conformance::{CaseReport, Outcome, cases};
use serde::Serialize;

use crate::escape::one_line;
use crate::failure::Failure;
use crate::options::codec;
use crate::output::{self, Output};
use crate::qpl::Qpl;
use crate::table::Table;

/// Run the conformance suite on codecs.
///
/// The exit status is 1 if a case fails, if no case of a codec that was run passed, or if no codec was
/// run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  multifd conformance\n  multifd conformance zlib zstd --json")]
pub(crate) struct Args {
    /// The codecs; those that are available if not given
    #[arg(value_name = "CODEC", value_parser = codec::names())]
    codecs: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    qpl: Qpl,
}

/// How all cases ended for one codec.
#[derive(Serialize)]
struct Report {
    codec: &'static str,
    /// No case failed, and some passed.
    conforms: bool,
    passed: usize,
    failed: usize,
    not_applicable: usize,
    seconds: f64,
    /// Why it was not run.
    not_available: Option<String>,
    cases: Vec<Case>,
}

#[derive(Serialize)]
struct Case {
    group: String,
    name: &'static str,
    outcome: &'static str,
    /// Why it failed or does not apply.
    reason: Option<String>,
    seconds: f64,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<ExitCode, Failure> {
    let registry = args.qpl.registry()?;
    let chosen = choose(&registry, &args.codecs)?;
    let reports: Vec<_> = chosen.iter().map(|codec| Report::of(codec, output)).collect();
    if args.json {
        output::print_json(&reports)?;
    } else {
        output::print(&table(&reports).to_string())?;
        for report in &reports {
            output::print(&report.failures())?;
        }
    }
    let ran = reports.iter().filter(|report| report.not_available.is_none());
    let all = ran.fold(None, |all, report| Some(all.unwrap_or(true) && report.conforms));
    Ok(if all == Some(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The codecs to run: the named ones, which must be available, or all. Unavailable ones are then
/// only listed.
fn choose(registry: &Registry, names: &[String]) -> Result<Vec<Arc<dyn MultiFdMethods>>, Failure> {
    if names.is_empty() {
        return Ok(registry.iter().cloned().collect());
    }
    names.iter().map(|name| codec::find(registry, name, None)).collect()
}

impl Report {
    fn of(codec: &Arc<dyn MultiFdMethods>, output: &Output) -> Self {
        let mut report = Self {
            codec: codec.name(),
            conforms: false,
            passed: 0,
            failed: 0,
            not_applicable: 0,
            seconds: 0.0,
            not_available: codec.require().err().map(|error| error.to_string()),
            cases: Vec::new(),
        };
        if report.not_available.is_none() {
            let bar = output.steps(codec.name(), cases().len() as u64);
            let result = multifd_conformance::run(codec, |_| bar.add(1));
            result.cases().iter().for_each(|case| report.add(case));
            report.conforms = result.conforms();
        }
        report
    }

    fn add(&mut self, case: &CaseReport) {
        let (count, outcome, reason) = match case.outcome() {
            Outcome::Passed => (&mut self.passed, "passed", None),
            Outcome::NotApplicable(reason) => {
                (&mut self.not_applicable, "not applicable", Some(reason.clone()))
            }
            Outcome::Failed(reason) => (&mut self.failed, "failed", Some(reason.clone())),
            other => (&mut self.failed, "failed", Some(format!("{other:?}"))),
        };
        *count += 1;
        let seconds = case.duration().as_secs_f64();
        self.seconds += seconds;
        let (group, name) = (case.group().to_string(), case.name());
        self.cases.push(Case { group, name, outcome, reason, seconds });
    }

    /// How the cases of `group` ended, in a few words.
    fn group(&self, group: &str) -> String {
        let count = |outcome| {
            let cases = self.cases.iter().filter(|case| case.group == group);
            cases.filter(|case| case.outcome == outcome).count()
        };
        match (count("passed"), count("failed")) {
            (0, 0) => "does not apply".to_owned(),
            (passed, 0) => format!("{passed} passed"),
            (_, failed) => format!("{failed} FAILED"),
        }
    }

    /// A line for each case that failed.
    fn failures(&self) -> String {
        let failed = self.cases.iter().filter(|case| case.outcome == "failed");
        let line = |case: &Case| {
            let reason = one_line(case.reason.as_deref().unwrap_or_default());
            format!("FAILED {} {}: {}: {reason}\n", self.codec, case.group, case.name)
        };
        failed.map(line).collect()
    }
}

/// A row for each group of cases, a column for each codec that ran.
fn table(reports: &[Report]) -> Table {
    let ran: Vec<_> = reports.iter().filter(|report| report.not_available.is_none()).collect();
    let codecs = ran.iter().map(|report| report.codec);
    let mut table = Table::new(&["group"].into_iter().chain(codecs).collect::<Vec<_>>());
    let mut row = |name: &str, cell: &dyn Fn(&Report) -> String| {
        let cells = ran.iter().map(|report| cell(report));
        table.row([name.to_owned()].into_iter().chain(cells));
    };
    let mut groups: Vec<_> = cases().iter().map(multifd_conformance::Case::group).collect();
    groups.dedup();
    for group in groups {
        let group = group.to_string();
        row(&group, &|report| report.group(&group));
    }
    row("seconds", &|report| format!("{:.1}", report.seconds));
    row("", &|report| if report.conforms { "conforms" } else { "DOES NOT" }.to_owned());
    for report in reports {
        if let Some(reason) = &report.not_available {
            table.remark(report.codec, &one_line(reason));
        }
    }
    table
}
