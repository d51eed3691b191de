//! What a plan says.

use serde::Serialize;

use super::bottleneck::{self, Resource};
use super::codec::{Codec, Work};
use super::migration::Outcome;
use super::parameters::{CodecSpeed, Parameters};
use super::sample::Sample;
use super::simulation::SideTally;
use super::workload::PAGE;
use crate::failure::{Failure, one_line};
use crate::output;
use crate::size::{Bytes, gib};
use crate::table::Table;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) memory: Memory,
    pub(super) parameters: Parameters,
    #[serde(rename = "plans")]
    pub(super) rows: Vec<Row>,
}

/// What is to be moved.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    origin: String,
    pub(super) bytes: u64,
    zero_share: f64,
    sampled_packets: Option<usize>,
    codecs: Vec<CodecFigures>,
}

#[derive(Debug, Serialize)]
struct CodecFigures {
    codec: String,
    ratio: Option<f64>,
    /// Bytes of pages a second on one core, of what falls to the CPU.
    speed: Option<CodecSpeed>,
    origin: String,
}

impl Memory {
    pub(super) fn new(
        origin: String,
        bytes: u64,
        sample: Option<&Sample>,
        codecs: &[Codec],
    ) -> Self {
        let figures = codecs.iter().map(|codec| CodecFigures {
            codec: codec.name.clone(),
            ratio: codec.workload.ratio(),
            speed: match codec.work {
                Work::Nothing => None,
                Work::Cpu(speed) | Work::Devices { fallback: speed } => Some(speed),
            },
            origin: codec.origin.clone(),
        });
        Self {
            origin,
            bytes,
            zero_share: codecs.first().map_or(0.0, |codec| codec.workload.zero_share()),
            sampled_packets: sample.map(Sample::len),
            codecs: figures.collect(),
        }
    }

    fn sentence(&self) -> String {
        let (bytes, origin) = (Bytes(self.bytes), one_line(&self.origin));
        let looked = self.sampled_packets.map_or_else(String::new, |count| {
            let plural = if count == 1 { "" } else { "s" };
            format!("; {count} packet{plural} of it looked at")
        });
        format!(
            "{bytes} of guest memory ({origin}{looked}), {:.0} % of its pages zero\n",
            self.zero_share * 100.0
        )
    }

    fn table(&self) -> Table {
        let mut table =
            Table::new(&["codec", "ratio", "compress MB/s", "decompress MB/s", "<figures"]);
        for figures in &self.codecs {
            let number = |value: Option<f64>| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{:.0}", value / 1e6))
            };
            table.row([
                figures.codec.clone(),
                figures.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
                number(figures.speed.map(|speed| speed.compress)),
                number(figures.speed.map(|speed| speed.decompress)),
                figures.origin.clone(),
            ]);
        }
        table
    }
}

/// One codec with one number of channels.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    codec: String,
    channels: u8,
    seconds: f64,
    rounds: u32,
    downtime_seconds: Option<f64>,
    /// The last round fitted into the downtime limit.
    converges: bool,
    wire_bytes: u64,
    wire_megabits_per_second: f64,
    normal_pages: u64,
    zero_pages: u64,
    source: SideReport,
    destination: SideReport,
    /// How much of each resource was used, 0 to 1, the most used first.
    uses: Vec<(Resource, f64)>,
    bottleneck: &'static str,
    hint: &'static str,
}

#[derive(Debug, Serialize)]
struct SideReport {
    cpu_seconds: f64,
    /// Of one core, over the whole migration.
    cpu_percent: f64,
    /// The part of it in which channels only waited for a device.
    polling_seconds: f64,
    hardware_pages: u64,
    software_pages: u64,
    submissions: u64,
    /// Those that found every queue full.
    refused: u64,
}

impl SideReport {
    fn new(side: &SideTally, more_ns: u64, total_ns: u64) -> Self {
        let cpu_ns = side.busy_ns + side.polling_ns + more_ns;
        Self {
            cpu_seconds: cpu_ns as f64 / 1e9,
            cpu_percent: cpu_ns as f64 / total_ns.max(1) as f64 * 100.0,
            polling_seconds: side.polling_ns as f64 / 1e9,
            hardware_pages: side.hardware_pages,
            software_pages: side.software_pages,
            submissions: side.submissions,
            refused: side.refused,
        }
    }

    fn refused_percent(&self) -> f64 {
        self.refused as f64 / self.submissions.max(1) as f64 * 100.0
    }
}

impl Row {
    pub(super) fn new(
        parameters: &Parameters,
        codec: &Codec,
        channels: u8,
        outcome: &Outcome,
    ) -> Self {
        let Outcome { total_ns, rounds, downtime_ns, converges, ref tally } = *outcome;
        let uses = bottleneck::uses(parameters, outcome, channels);
        let (bottleneck, _) = uses[0];
        let seconds = |ns: u64| ns as f64 / 1e9;
        Self {
            codec: codec.name.clone(),
            channels,
            seconds: seconds(total_ns),
            rounds,
            downtime_seconds: downtime_ns.map(seconds),
            converges,
            wire_bytes: tally.wire_bytes,
            wire_megabits_per_second: tally.wire_bytes as f64 * 8e3 / total_ns.max(1) as f64,
            normal_pages: tally.normal_pages,
            zero_pages: tally.zero_pages,
            source: SideReport::new(&tally.source, tally.feed_ns, total_ns),
            destination: SideReport::new(&tally.destination, 0, total_ns),
            uses,
            bottleneck: bottleneck.name(),
            hint: bottleneck.hint(codec),
        }
    }

    fn used(&self, wanted: &[Resource]) -> f64 {
        let uses = self.uses.iter().filter(|(resource, _)| wanted.contains(resource));
        uses.map(|(_, share)| share * 100.0).fold(0.0, f64::max)
    }

    fn cells(&self, live: bool) -> Vec<String> {
        let bytes = (self.normal_pages + self.zero_pages) * PAGE as u64;
        let engines = [Resource::SourceEngines, Resource::DestinationEngines];
        let refused = self.source.refused_percent().max(self.destination.refused_percent());
        let mut cells = vec![
            self.codec.clone(),
            self.channels.to_string(),
            format!("{:.2}", self.seconds),
            format!("{:.2}", gib(bytes) / self.seconds.max(1e-9)),
            format!("{:.2}", gib(self.wire_bytes)),
            format!("{:.0}", self.source.cpu_percent),
            format!("{:.0}", self.destination.cpu_percent),
            format!("{:.0}", self.used(&[Resource::Link])),
            format!("{:.0}", self.used(&engines)),
            format!("{refused:.0}"),
        ];
        if live {
            let downtime = self.downtime_seconds.unwrap_or(0.0) * 1e3;
            let mark = if self.converges { "" } else { " (never)" };
            cells.extend([self.rounds.to_string(), format!("{downtime:.0}{mark}")]);
        }
        cells.push(self.bottleneck.to_owned());
        cells
    }
}

const COLUMNS: [&str; 10] = [
    "codec",
    "channels",
    "seconds",
    "GiB/s",
    "wire GiB",
    "source CPU %",
    "dest. CPU %",
    "link %",
    "engines %",
    "refused %",
];

impl Report {
    /// Prints it, for people or as JSON.
    pub(super) fn print(&self, json: bool, codecs: &[Codec]) -> Result<(), Failure> {
        if json {
            return output::print_json(self);
        }
        let live = self.rows.iter().any(|row| row.downtime_seconds.is_some());
        let mut header = COLUMNS.to_vec();
        if live {
            header.extend(["rounds", "downtime ms"]);
        }
        header.push("<bottleneck");
        let mut table = Table::new(&header);
        self.rows.iter().for_each(|row| table.row(row.cells(live)));
        let sentence = self.memory.sentence();
        let hints = self.hints(codecs);
        output::print(&format!("{sentence}\n{}\n{table}\n{hints}", self.memory.table()))
    }

    /// What holds each codec up and what would help, channels with the same answer together.
    fn hints(&self, codecs: &[Codec]) -> String {
        let mut lines: Vec<String> = Vec::new();
        for codec in codecs {
            let rows = self.rows.iter().filter(|row| row.codec == codec.name);
            let rows: Vec<_> = rows.collect();
            for run in rows.chunk_by(|one, other| one.bottleneck == other.bottleneck) {
                let channels: Vec<_> = run.iter().map(|row| row.channels.to_string()).collect();
                let (at, name) = (channels.join(", "), run[0].bottleneck);
                let (hint, plural) = (run[0].hint, if at == "1" { "" } else { "s" });
                let codec = &codec.name;
                lines.push(format!("{codec}, {at} channel{plural}: {name}; what helps: {hint}"));
            }
        }
        if self.rows.iter().any(|row| !row.converges) {
            lines.push(
                "(never): the guest writes as fast as it is sent; a longer --downtime-limit, or a \
                 guest that is slowed down, is the only end"
                    .to_owned(),
            );
        }
        lines.join("\n") + "\n"
    }
}
