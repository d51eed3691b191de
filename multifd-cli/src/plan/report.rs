//! The report of a plan.

use multifd_plan::{Codec, CodecSpeed, Outcome, Parameters, Resource, Sample, SideTally, Speed};
use serde::Serialize;

use super::choose::Chosen;
use crate::escape::one_line;
use crate::failure::Failure;
use crate::output;
use crate::page::PAGE;
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

/// The memory to be migrated.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    #[serde(rename = "ram")]
    origin: String,
    #[serde(rename = "ram_bytes")]
    pub(super) bytes: u64,
    zero_share: f64,
    sampled_packets: Option<usize>,
    codecs: Vec<CodecFigures>,
}

#[derive(Debug, Serialize)]
struct CodecFigures {
    codec: String,
    ratio: Option<f64>,
    /// Of one core, for the pages that the CPU compresses.
    speed: Option<CodecSpeed>,
    origin: String,
}

impl Memory {
    pub(super) fn new(
        origin: String,
        bytes: u64,
        sample: Option<&Sample>,
        codecs: &[Chosen],
    ) -> Self {
        let figures = codecs.iter().map(|Chosen { codec, origin }| CodecFigures {
            codec: codec.name.clone(),
            ratio: codec.workload.ratio(),
            speed: codec.work.speed(),
            origin: origin.clone(),
        });
        Self {
            origin,
            bytes,
            zero_share: codecs.first().map_or(0.0, |first| first.codec.workload.zero_share()),
            sampled_packets: sample.map(Sample::packet_count),
            codecs: figures.collect(),
        }
    }

    fn sentence(&self) -> String {
        let (bytes, origin) = (Bytes(self.bytes), one_line(&self.origin));
        let sampled = self.sampled_packets.map_or_else(String::new, |count| {
            let plural = if count == 1 { "" } else { "s" };
            format!("; {count} packet{plural} sampled")
        });
        format!(
            "{bytes} of guest memory ({origin}{sampled}), {:.0} % of its pages zero\n",
            self.zero_share * 100.0
        )
    }

    fn table(&self) -> Table {
        let mut table =
            Table::new(&["codec", "ratio", "compress MB/s", "decompress MB/s", "<figures"]);
        for figures in &self.codecs {
            let number = |speed: Option<Speed>| {
                let megabytes = |speed: Speed| format!("{:.0}", speed.bytes_per_second() / 1e6);
                speed.map_or_else(|| "-".to_owned(), megabytes)
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

/// The result of one codec with one number of channels.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    codec: String,
    channels: u8,
    seconds: f64,
    rounds: u32,
    downtime_seconds: Option<f64>,
    /// The last round stayed within the downtime limit.
    converges: bool,
    wire_bytes: u64,
    wire_megabits_per_second: f64,
    normal_pages: u64,
    zero_pages: u64,
    source: SideReport,
    destination: SideReport,
    /// The share of its time for which each resource was in use, the most used first.
    uses: Vec<(Resource, f64)>,
    #[serde(serialize_with = "in_words")]
    bottleneck: Resource,
    hint: &'static str,
}

#[derive(Debug, Serialize)]
struct SideReport {
    cpu_seconds: f64,
    /// In percent of one core, over the whole migration.
    cpu_percent: f64,
    /// The part for which channels only waited for a device.
    polling_seconds: f64,
    hardware_pages: u64,
    software_pages: u64,
    submissions: u64,
    /// Submissions that found every queue full.
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
    pub(super) fn new(codec: &Codec, channels: u8, outcome: &Outcome) -> Self {
        let Outcome { total_ns, rounds, downtime_ns, converges, ref tally, .. } = *outcome;
        let bottleneck = outcome.bottleneck();
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
            uses: outcome.uses.clone(),
            bottleneck,
            hint: bottleneck.hint(codec.work),
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
        cells.push(self.bottleneck.to_string());
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
    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
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
        let hints = self.hints();
        output::print(&format!("{sentence}\n{}\n{table}\n{hints}", self.memory.table()))
    }

    /// The bottleneck of each codec and what would help, numbers of channels with the same answer
    /// together.
    fn hints(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        let is_same = |one: &Row, other: &Row| {
            (&one.codec, one.bottleneck) == (&other.codec, other.bottleneck)
        };
        for run in self.rows.chunk_by(is_same) {
            let channels: Vec<_> = run.iter().map(|row| row.channels.to_string()).collect();
            let (at, Row { codec, bottleneck, hint, .. }) = (channels.join(", "), &run[0]);
            let plural = if at == "1" { "" } else { "s" };
            lines.push(format!("{codec}, {at} channel{plural}: {bottleneck}; what helps: {hint}"));
        }
        if self.rows.iter().any(|row| !row.converges) {
            lines.push(
                "(never): the guest writes as fast as it is sent; use a longer --downtime-limit, or \
                 slow the guest down"
                    .to_owned(),
            );
        }
        lines.join("\n") + "\n"
    }
}

fn in_words<S: serde::Serializer>(resource: &Resource, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(resource)
}
