//! What is counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::bench::Side;

/// How many migrations were tried with each fault at each side, and how many were as they have to be.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<String, [(u64, u64); 3]>);

impl Table {
    pub(crate) fn add(&mut self, fault: &str, side: Side, survived: bool) {
        let row = self.0.entry(fault.to_owned()).or_default();
        let (tried, good) = &mut row[side as usize];
        *tried += 1;
        *good += u64::from(survived);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn all_survived(&self) -> bool {
        self.0.values().flatten().all(|(tried, survived)| tried == survived)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Side::ALL.map(Side::name).join(" | ");
        writeln!(f, "| fault | {names} |\n|---|---|---|---|")?;
        let mut sums = [(0, 0); 3];
        for (fault, row) in &self.0 {
            writeln!(f, "| {fault} | {} |", cells(row))?;
            for (sum, (tried, survived)) in sums.iter_mut().zip(row) {
                *sum = (sum.0 + tried, sum.1 + survived);
            }
        }
        writeln!(f, "| all | {} |", cells(&sums))
    }
}

fn cells(row: &[(u64, u64); 3]) -> String {
    let cell = |&(tried, survived): &(u64, u64)| match tried {
        0 => String::new(),
        _ => format!("{survived} of {tried}"),
    };
    row.iter().map(cell).collect::<Vec<_>>().join(" | ")
}
