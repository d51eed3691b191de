//! The result.

use std::fmt;

use serde::Serialize;

use crate::args::Measure;
use crate::codec::Codec;
use crate::error::Error;
use crate::machine::Machine;
use crate::measure::{Measured, Run};
use crate::route::Route;

/// What was measured, and on what.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) channels: u8,
    pub(crate) level: i32,
    pub(crate) repetitions: u32,
    pub(crate) measured: Vec<Measured>,
}

/// How far the middle half of the times of a row may be apart, as a part of the median.
const STEADY: f64 = 0.15;

/// What multifd to multifd takes, as a part of what QEMU to QEMU takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratios {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

/// The most that is to be taken.
fn targets(codec: Codec) -> Option<Ratios> {
    let wall = match codec {
        Codec::None => 0.95,
        Codec::Zlib => 0.42,
        Codec::Zstd => 0.85,
        Codec::QplSoftware | Codec::QplPortable => return None,
    };
    Some(Ratios { wall, cpu: wall })
}

impl Report {
    pub(crate) fn new(measured: Vec<Measured>, machine: Machine, args: &Measure) -> Self {
        let &Measure { channels, level, repetitions, .. } = args;
        Self { machine, channels, level, repetitions, measured }
    }

    /// # Errors
    /// Where times are too far apart to say anything.
    pub(crate) fn must_be_steady(&self) -> Result<(), Error> {
        let unsteady: Vec<_> = self
            .measured
            .iter()
            .map(|measured| (measured, measured.spread()))
            .filter(|&(_, spread)| spread > STEADY)
            .map(|(measured, spread)| {
                format!("{} {}: {:.0} %", measured.codec, measured.route, 100.0 * spread)
            })
            .collect();
        if unsteady.is_empty() {
            return Ok(());
        }
        Err(Error::Other(format!(
            "not taken down, since the middle half of the times spreads over more than {:.0} % of the median: {}; \
             repeat on a machine that does nothing else",
            100.0 * STEADY,
            unsteady.join(", ")
        )))
    }

    /// The codecs, in their order.
    pub(crate) fn codecs(&self) -> Vec<Codec> {
        let mut codecs: Vec<_> = self.measured.iter().map(|measured| measured.codec).collect();
        codecs.dedup();
        codecs
    }

    pub(crate) fn find(&self, codec: Codec, route: Route) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.codec == codec && measured.route == route)
    }

    /// `None` for a codec that the QEMU does not have.
    fn ratios(&self, codec: Codec) -> Option<Ratios> {
        let ours = self.find(codec, Route::MultifdToMultifd)?;
        let theirs = self.find(codec, Route::QemuToQemu)?;
        let ratio = |of: fn(&Run) -> f64| ours.median(of) / theirs.median(of);
        Some(Ratios { wall: ratio(|run| run.seconds), cpu: ratio(Run::cpu_seconds) })
    }

    /// The ratios and the targets, as a table of Markdown.
    fn write_ratios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| multifd to multifd / QEMU to QEMU | wall | target | CPU | target |")?;
        writeln!(f, "|---|--:|--:|--:|--:|")?;
        for codec in self.codecs() {
            let (Some(ratios), Some(targets)) = (self.ratios(codec), targets(codec)) else {
                continue;
            };
            let cell = |ratio: f64, target: f64| {
                let missed = if ratio > target { ", not met" } else { "" };
                format!("{ratio:.2} | {target:.2}{missed}")
            };
            let (wall, cpu) = (cell(ratios.wall, targets.wall), cell(ratios.cpu, targets.cpu));
            writeln!(f, "| {codec} | {wall} | {cpu} |")?;
        }
        Ok(())
    }
}

/// Two tables of Markdown, which a person can read as they are.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, channels, level, repetitions, .. } = self;
        writeln!(
            f,
            "{machine}. {channels} channels, level {level}, medians of {repetitions} runs."
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "| codec | from and to | wall, s | least–most | CPU, s | of it source | MiB on the wire |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|")?;
        for measured in &self.measured {
            write!(f, "{measured}")?;
        }
        writeln!(f)?;
        self.write_ratios(f)
    }
}

/// A row.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = || self.runs.iter().map(|run| run.seconds);
        let (least, most) = (seconds().fold(f64::MAX, f64::min), seconds().fold(0.0, f64::max));
        writeln!(
            f,
            "| {} | {} | {:.2} | {least:.2}–{most:.2} | {:.2} | {:.2} | {:.1} |",
            self.codec,
            self.route,
            self.median(|run| run.seconds),
            self.median(Run::cpu_seconds),
            self.median(|run| run.source_cpu_seconds),
            self.median(|run| run.wire_bytes as f64) / f64::from(1 << 20),
        )
    }
}

impl Measured {
    /// From the first quartile of the wall times to the third, as a part of the median.
    fn spread(&self) -> f64 {
        let mut seconds: Vec<_> = self.runs.iter().map(|run| run.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let quartile =
            |part: usize| seconds.get(seconds.len().saturating_sub(1) * part / 4).copied();
        match (quartile(1), quartile(3)) {
            (Some(first), Some(third)) => (third - first) / self.median(|run| run.seconds),
            _ => 0.0,
        }
    }

    /// The median over the runs; of an even number, the upper one.
    pub(crate) fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        let mut values: Vec<_> = self.runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with the runs' wall times; CPU times are as long on each side.
    pub(crate) fn report(times: &[(Codec, Route, &[f64])]) -> Report {
        let run = |&seconds: &f64| Run {
            seconds,
            source_cpu_seconds: seconds,
            destination_cpu_seconds: seconds,
            wire_bytes: 3 << 20,
        };
        let measured = times.iter().map(|&(codec, route, times)| Measured {
            codec,
            route,
            runs: times.iter().map(run).collect(),
        });
        let measured = measured.collect();
        Report { machine: Machine::default(), channels: 2, level: 1, repetitions: 3, measured }
    }

    #[test]
    fn ratios_are_of_medians_and_a_missed_target_is_told() {
        let report = report(&[
            (Codec::None, Route::QemuToQemu, &[9.0, 1.0, 2.0]),
            (Codec::None, Route::MultifdToMultifd, &[1.0, 0.1, 7.0]),
            (Codec::Zlib, Route::QemuToQemu, &[2.0]),
            (Codec::Zlib, Route::MultifdToMultifd, &[2.5]),
            (Codec::QplPortable, Route::MultifdToMultifd, &[1.0]),
        ]);
        assert_eq!(report.ratios(Codec::None), Some(Ratios { wall: 0.5, cpu: 0.5 }));
        assert_eq!(report.ratios(Codec::QplPortable), None);
        let text = report.to_string();
        assert!(text.contains("| none | QEMU to QEMU | 2.00 | 1.00–9.00 | 4.00 | 2.00 | 3.0 |"));
        assert!(text.contains("| none | 0.50 | 0.95 | 0.50 | 0.95 |"), "{text}");
        assert!(text.contains("| zlib | 1.25 | 0.42, not met | 1.25 | 0.42, not met |"), "{text}");
    }

    #[test]
    fn times_that_are_too_far_apart_are_not_taken_down() {
        let times = |times| report(&[(Codec::Zlib, Route::QemuToQemu, times)]).must_be_steady();
        // One that is far from the others says nothing of them.
        assert!(times(&[1.0, 1.1, 1.05, 1.0, 9.0]).is_ok());
        let error = times(&[1.0, 1.3, 1.0, 1.3, 1.3]).unwrap_err().to_string();
        assert!(error.contains("zlib QEMU to QEMU: 23 %"), "{error}");
        assert!(times(&[1.0]).is_ok());
    }
}
