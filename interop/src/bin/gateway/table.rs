//! What is counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::recording::Part;
use crate::trial::{Outcome, Trial};

/// How many streams ended how, by the part that was tampered with.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<Part, Row>,
    /// Streams that could not be tried, by no fault of QEMU's or the relay's.
    not_tried: u64,
    relay_failed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    streams: u64,
    refused: u64,
    waits: u64,
    took: u64,
    died: u64,
    hangs: u64,
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.streams += other.streams;
        self.refused += other.refused;
        self.waits += other.waits;
        self.took += other.took;
        self.died += other.died;
        self.hangs += other.hangs;
    }
}

impl Table {
    pub(crate) fn add(&mut self, trial: &Trial) {
        self.relay_failed += u64::from(trial.relay_failed);
        let Some(outcome) = trial.outcome else {
            self.not_tried += 1;
            return;
        };
        let one = |outcome_is: bool| u64::from(outcome_is);
        self.rows.entry(trial.part).or_default().add(&Row {
            streams: 1,
            refused: one(outcome == Outcome::Refused),
            waits: one(outcome == Outcome::Waits),
            took: one(outcome == Outcome::Took),
            died: one(matches!(outcome, Outcome::Died(_))),
            hangs: one(outcome == Outcome::Hangs),
        });
    }

    /// Whether every QEMU got over what is not opaque to a relay, and every relay, too.
    pub(crate) fn lives(&self) -> bool {
        let understood = self.rows.iter().filter(|(part, _)| !part.is_opaque());
        let lives = understood.map(|(_, row)| row).all(|row| row.died + row.hangs == 0);
        lives && self.relay_failed + self.not_tried == 0
    }

    fn sum(&self, opaque: bool) -> Row {
        let mut sum = Row::default();
        let rows = self.rows.iter().filter(|(part, _)| part.is_opaque() == opaque);
        rows.for_each(|(_, row)| sum.add(row));
        sum
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| tampered with | streams | refused | waits on | took it | died | hangs |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        let rows = self.rows.iter().map(|(part, row)| (part.name(), *row));
        let sums = [("all but opaque parts", self.sum(false)), ("opaque parts", self.sum(true))];
        for (name, row) in rows.chain(sums) {
            let Row { streams, refused, waits, took, died, hangs } = row;
            writeln!(
                f,
                "| {name} | {streams} | {refused} | {waits} | {took} | {died} | {hangs} |"
            )?;
        }
        if self.not_tried + self.relay_failed > 0 {
            let Self { not_tried, relay_failed, .. } = self;
            writeln!(f, "\nnot tried: {not_tried}; the relay failed: {relay_failed}")?;
        }
        Ok(())
    }
}
