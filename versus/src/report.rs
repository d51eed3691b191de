//! The result.

use std::fmt;

use serde::Serialize;

use crate::args::Measure;
use crate::codec::Codec;
use crate::error::Error;
use crate::guest::Guest;
use crate::machine::Machine;
use crate::measure::{Measured, Run};
use crate::route::Route;
use crate::setting::Setting;

/// What was measured, and on what.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) guest: Guest,
    pub(crate) channels: u8,
    pub(crate) level: i32,
    pub(crate) measured: Vec<Measured>,
    /// The rows that are not in `measured`, since their times are too far apart: on a page of the docs alone.
    #[serde(skip)]
    pub(crate) left_out: Vec<String>,
}

/// How far the middle half of the times of a row may be apart, as a part of the median.
const STEADY: f64 = 0.15;

/// What a route takes, as a part of what QEMU to QEMU takes in the same setting with the same codec.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratios {
    wall: f64,
    cpu: f64,
    wire: f64,
}

impl Report {
    pub(crate) fn new(
        measured: Vec<Measured>,
        machine: Machine,
        guest: Guest,
        args: &Measure,
    ) -> Self {
        let &Measure { channels, level, .. } = args;
        Self { machine, guest, channels, level, measured, left_out: Vec::new() }
    }

    /// Without the rows whose times are too far apart to say anything; which they are, it says.
    ///
    /// # Errors
    /// Where that is more than half of them.
    pub(crate) fn steady(mut self) -> Result<Self, Error> {
        let rows = self.measured.len();
        let (steady, unsteady): (_, Vec<_>) =
            self.measured.into_iter().partition(Measured::is_steady);
        self.measured = steady;
        self.left_out = unsteady
            .iter()
            .map(|measured| {
                let Measured { setting, codec, route, .. } = measured;
                format!("{setting} {codec} {route} ({:.0} %)", 100.0 * measured.spread())
            })
            .collect();
        if 2 * self.measured.len() >= rows {
            return Ok(self);
        }
        Err(Error::Other(format!(
            "not taken down: {} Repeat on a machine that does nothing else",
            LeftOut(&self.left_out)
        )))
    }

    /// The codecs that were measured in the plain setting, in their order.
    pub(crate) fn codecs(&self) -> Vec<Codec> {
        let plain = self.measured.iter().filter(|measured| measured.setting == Setting::Plain);
        let mut codecs: Vec<_> = plain.map(|measured| measured.codec).collect();
        codecs.dedup();
        codecs
    }

    pub(crate) fn find(&self, setting: Setting, codec: Codec, route: Route) -> Option<&Measured> {
        let wanted = (setting, codec, route);
        self.measured
            .iter()
            .find(|&&Measured { setting, codec, route, .. }| (setting, codec, route) == wanted)
    }

    /// `None` for a codec that the QEMU does not have.
    fn ratios(&self, ours: &Measured) -> Option<Ratios> {
        let theirs = self.find(ours.setting, ours.codec, Route::QemuToQemu)?;
        let ratio = |of: fn(&Run) -> f64| ours.median(of) / theirs.median(of);
        Some(Ratios {
            wall: ratio(|run| run.seconds),
            cpu: ratio(Run::cpu_seconds),
            wire: ratio(|run| run.wire_bytes as f64),
        })
    }

    /// The ratios and the targets, as a table of Markdown.
    fn write_ratios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| over | codec | from and to, / QEMU to QEMU | wall | CPU | at most | bytes |"
        )?;
        writeln!(f, "|---|---|---|--:|--:|--:|--:|")?;
        for measured in &self.measured {
            let &Measured { setting, codec, route, .. } = measured;
            let is_ours = matches!(route, Route::MultifdToMultifd | Route::MultifdToQemu);
            let Some(ratios) = self.ratios(measured).filter(|_| is_ours) else { continue };
            let target = setting.target(codec, route);
            let cell = |ratio: f64| {
                let missed = target.is_some_and(|target| ratio > target);
                format!("{ratio:.2}{}", if missed { ", not met" } else { "" })
            };
            let (wall, cpu, wire) = (cell(ratios.wall), cell(ratios.cpu), ratios.wire);
            let target = target.map_or_else(|| "–".to_owned(), |target| format!("{target:.2}"));
            writeln!(
                f,
                "| {setting} | {codec} | {route} | {wall} | {cpu} | {target} | {wire:.2} |"
            )?;
        }
        Ok(())
    }
}

/// Two tables of Markdown, which a person can read as they are.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, guest, channels, level, .. } = self;
        writeln!(f, "{machine}; {guest}; {channels} channels, level {level}; medians.")?;
        writeln!(f)?;
        writeln!(
            f,
            "| over | codec | from and to | runs | wall, s | least–most | CPU, s | of it source | MiB on the wire |"
        )?;
        writeln!(f, "|---|---|---|--:|--:|--:|--:|--:|--:|")?;
        for measured in &self.measured {
            write!(f, "{measured}")?;
        }
        writeln!(f)?;
        self.write_ratios(f)?;
        match &self.left_out[..] {
            [] => Ok(()),
            rows => writeln!(f, "\n{}", LeftOut(rows)),
        }
    }
}

/// Which rows are not there, and why.
struct LeftOut<'a>(&'a [String]);

impl fmt::Display for LeftOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (most, rows) = (100.0 * STEADY, self.0.join(", "));
        write!(
            f,
            "Left out, since the middle half of the times spreads over more than {most:.0} % of the median: {rows}."
        )
    }
}

/// A row.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = || self.runs.iter().map(|run| run.seconds);
        let (least, most) = (seconds().fold(f64::MAX, f64::min), seconds().fold(0.0, f64::max));
        writeln!(
            f,
            "| {} | {} | {} | {} | {:.2} | {least:.2}–{most:.2} | {:.2} | {:.2} | {:.1} |",
            self.setting,
            self.codec,
            self.route,
            self.runs.len(),
            self.median(|run| run.seconds),
            self.median(Run::cpu_seconds),
            self.median(|run| run.source_cpu_seconds),
            self.median(|run| run.wire_bytes as f64) / f64::from(1 << 20),
        )
    }
}

impl Measured {
    /// Whether its times say something.
    pub(crate) fn is_steady(&self) -> bool {
        self.spread() <= STEADY
    }

    /// From the first quartile of the wall times to the third, as a part of the median.
    fn spread(&self) -> f64 {
        let mut seconds: Vec<_> = self.runs.iter().map(|run| run.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let Some(last) = seconds.len().checked_sub(1) else { return 0.0 };
        // Between the two runs where it lies.
        let quartile = |part: f64| {
            let at = last as f64 * part;
            let (below, above) = (seconds[at.floor() as usize], seconds[at.ceil() as usize]);
            below + (above - below) * at.fract()
        };
        (quartile(0.75) - quartile(0.25)) / self.median(|run| run.seconds)
    }

    /// The median over the runs; of an even number, the middle of the two that are nearest.
    pub(crate) fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        let mut values: Vec<_> = self.runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        match values.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(values[half - 1], values[half]),
            _ => values[half],
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use super::*;

    /// Setting, codec, route and the wall times of the runs.
    type Times<'a> = (Setting, Codec, Route, &'a [f64]);

    /// A report with these; CPU times are as long on each side.
    pub(crate) fn report(times: &[Times<'_>]) -> Report {
        let run = |&seconds: &f64| Run {
            seconds,
            source_cpu_seconds: seconds,
            destination_cpu_seconds: seconds,
            wire_bytes: 3 << 20,
        };
        let measured = times.iter().map(|&(setting, codec, route, times)| Measured {
            setting,
            codec,
            route,
            runs: times.iter().map(run).collect(),
        });
        Report {
            machine: Machine { processor: "Z80".to_owned(), ..Machine::default() },
            guest: crate::guest::tests::guest(),
            channels: 2,
            level: 1,
            measured: measured.collect(),
            left_out: Vec::new(),
        }
    }

    const PLAIN: Setting = Setting::Plain;

    #[test]
    fn ratios_are_of_medians_and_a_missed_target_is_told() {
        let report = report(&[
            (PLAIN, Codec::None, Route::QemuToQemu, &[9.0, 1.0, 2.0]),
            (PLAIN, Codec::None, Route::MultifdToMultifd, &[1.0, 0.1, 7.0]),
            (PLAIN, Codec::Zlib, Route::QemuToQemu, &[2.0]),
            (PLAIN, Codec::Zlib, Route::MultifdToQemu, &[1.94]),
            (PLAIN, Codec::Zlib, Route::MultifdToMultifd, &[2.5]),
            (PLAIN, Codec::QplPortable, Route::MultifdToMultifd, &[1.0]),
        ]);
        let text = report.to_string();
        let row = "| loopback | none | QEMU to QEMU | 3 | 2.00 | 1.00–9.00 | 4.00 | 2.00 | 3.0 |";
        assert!(text.contains(row), "{text}");
        for row in [
            "| loopback | none | multifd to multifd | 0.50 | 0.50 | 0.95 | 1.00 |",
            "| loopback | zlib | multifd to QEMU | 0.97 | 0.97 | 0.97 | 1.00 |",
            "| loopback | zlib | multifd to multifd | 1.25, not met | 1.25, not met | 0.42 | 1.00 |",
        ] {
            assert!(text.contains(row), "{text}");
        }
        assert_eq!(text.matches("qpl-portable").count(), 1, "{text}");
    }

    #[test]
    fn each_setting_is_compared_with_qemu_in_the_same_one() {
        let link = Setting::Link("10G".parse().unwrap());
        let report = report(&[
            (PLAIN, Codec::None, Route::QemuToQemu, &[1.0]),
            (Setting::Tls, Codec::None, Route::QemuToQemu, &[4.0]),
            (Setting::Tls, Codec::None, Route::MultifdToMultifd, &[3.8]),
            (link, Codec::None, Route::QemuToQemu, &[2.0]),
            (link, Codec::None, Route::MultifdToMultifd, &[2.0]),
        ]);
        let text = report.to_string();
        for row in [
            "| loopback, TLS | none | multifd to multifd | 0.95, not met | 0.95, not met | 0.90 | 1.00 |",
            "| 10 Gbit/s | none | multifd to multifd | 1.00 | 1.00 | – | 1.00 |",
        ] {
            assert!(text.contains(row), "{text}");
        }
        assert_eq!(report.codecs(), [Codec::None]);
    }

    #[test]
    fn the_processor_and_the_guest_are_said_before_any_figure() {
        let text = report(&[(PLAIN, Codec::None, Route::QemuToQemu, &[1.0])]).to_string();
        let line = text.lines().next().unwrap();
        assert!(line.contains("Z80"), "{line}");
        assert!(line.contains("guest of 4 GiB, 1674 MiB of it not zero"), "{line}");
    }

    #[test]
    fn rows_whose_times_are_too_far_apart_are_left_out_and_told() {
        // One that is far from the others says nothing of them.
        let steady = [1.0, 1.1, 1.05, 1.0, 9.0];
        let unsteady = [1.0, 1.3, 1.0, 1.3, 1.3];
        let taken = |qemu: &[f64], ours: &[f64]| {
            let (qemu_to_qemu, ours_to_ours) = (Route::QemuToQemu, Route::MultifdToMultifd);
            let report = report(&[
                (PLAIN, Codec::Zlib, qemu_to_qemu, qemu),
                (PLAIN, Codec::Zlib, ours_to_ours, ours),
            ]);
            report.steady().map(|report| report.to_string()).map_err(|error| error.to_string())
        };
        assert!(!taken(&steady, &[1.0]).unwrap().contains("Left out"));
        let text = taken(&unsteady, &steady).unwrap();
        assert!(text.contains("15 % of the median: loopback zlib QEMU to QEMU (23 %)."), "{text}");
        // Without what it is compared with, there is a row and no ratio.
        assert_eq!(text.matches("| multifd to multifd |").count(), 1, "{text}");
        let error = taken(&unsteady, &unsteady).unwrap_err();
        assert!(error.contains("multifd to multifd (23 %)"), "{error}");
    }
}
