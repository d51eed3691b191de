//! Everything that was found.

use std::collections::BTreeMap;

use super::finding::{Finding, FindingKind, Place, Severity};

/// Findings of one kind that are kept; more are counted.
const MOST_OF_A_KIND: u64 = 20;

/// Everything that was found: the first twenty of each kind, and how many more there were.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    counts: BTreeMap<&'static str, u64>,
    errors: u64,
    notes: u64,
}

impl Findings {
    /// The kept findings: in a [`Report`](super::Report) errors first, then in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// How many errors there are, kept or not.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// How many notes there are, kept or not.
    pub fn notes(&self) -> u64 {
        self.notes
    }

    /// For each code, how many findings are not kept, if any.
    pub fn left_out(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let left_out =
            self.counts.iter().map(|(&code, count)| (code, count - MOST_OF_A_KIND.min(*count)));
        left_out.filter(|&(_, count)| count > 0)
    }

    pub(super) fn add(&mut self, place: Place, kind: FindingKind) {
        match kind.severity() {
            Severity::Error => self.errors += 1,
            Severity::Note => self.notes += 1,
        }
        let count = self.counts.entry(kind.code()).or_default();
        *count += 1;
        if *count <= MOST_OF_A_KIND {
            self.list.push(Finding { place, kind });
        }
    }

    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|finding| (finding.kind.severity(), finding.place));
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Connection;
    use super::*;

    fn place(offset: u64) -> Place {
        Place { connection: Connection::Channel(1), offset, packet: Some(2), packet_num: Some(5) }
    }

    #[test]
    fn a_finding_says_how_bad_it_is_where_it_is_and_what_it_is() {
        let finding = Finding { place: place(2752), kind: FindingKind::Empty };
        let text = finding.to_string();
        assert!(
            text.starts_with("note: channel 1, byte 2752, packet 2 (packet_num 5): the packet has"),
            "{text}"
        );
    }

    #[test]
    fn errors_come_first_and_what_is_too_much_is_counted() {
        let mut findings = Findings::default();
        for offset in 0..25 {
            findings.add(place(offset), FindingKind::Empty);
        }
        findings.add(place(99), FindingKind::AfterLastSync(1));
        findings.sort();
        assert_eq!((findings.errors(), findings.notes()), (1, 25));
        assert_eq!(findings.iter().next().unwrap().place.offset, 99);
        assert_eq!(findings.iter().count(), 21);
        assert_eq!(findings.left_out().collect::<Vec<_>>(), [("empty", 5)]);
    }
}
