//! A recording whose bytes can be changed.

use std::io::{self, Read};

use multifd::inspect::{Connection, Finding, Report, Severity, recording};
use multifd_conformance::{Recording, recordings};

pub(crate) const INITIAL: usize = 64;
pub(crate) const PACKET: usize = 1344;

#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) main: Vec<u8>,
    pub(crate) channels: Vec<Vec<u8>>,
}

impl Streams {
    pub(crate) fn of(recording: &'static Recording) -> Self {
        let channels = recording.channels.iter().map(|channel| channel.to_vec()).collect();
        Self { main: recording.main.to_vec(), channels }
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::of(recordings().iter().find(|recording| recording.name == name).unwrap())
    }

    /// This with its bytes changed.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn inspect(&self) -> Report {
        self.inspect_by(usize::MAX)
    }

    /// Inspects it, and asserts that the report is the same if the bytes come in small pieces.
    #[track_caller]
    fn inspect_also_in_pieces(&self) -> Report {
        let report = self.inspect();
        assert_eq!(format!("{:#?}", self.inspect_by(7)), format!("{report:#?}"));
        report
    }

    fn inspect_by(&self, bytes: usize) -> Report {
        let channels = self.channels.iter().map(|channel| Pieces(channel, bytes));
        recording(Pieces(&self.main, bytes), channels, |_| {}).unwrap()
    }

    /// Where each packet of a channel is. Only for a channel that is as it was recorded.
    pub(crate) fn packets(&self, channel: usize) -> Vec<std::ops::Range<usize>> {
        let mut packets = Vec::new();
        let all = self.channels.iter().map(Vec::as_slice);
        recording(&self.main[..], all, |packet| {
            if packet.channel == channel {
                let start = packet.offset as usize;
                packets.push(start..start + packet.counts.wire_bytes as usize);
            }
        })
        .unwrap();
        packets
    }

    /// The first packet of a channel, behind its first SYNC, that has normal pages.
    pub(crate) fn pages(&self, channel: usize) -> std::ops::Range<usize> {
        let mut packets = self.packets(channel).into_iter();
        packets.find(|packet| packet.len() > PACKET).unwrap()
    }

    /// The last packet of a channel that has no payload: a SYNC.
    pub(crate) fn last_sync(&self, channel: usize) -> std::ops::Range<usize> {
        self.packets(channel).pop().unwrap()
    }

    /// Asserts that there is one error, of this kind at this place, and that its text has `words`.
    #[track_caller]
    pub(crate) fn has_only(&self, code: &str, connection: Connection, offset: usize, words: &str) {
        let report = self.inspect_also_in_pieces();
        let errors: Vec<_> = errors(&report).collect();
        assert!(errors.len() == 1 && report.findings.errors() == 1, "{errors:#?}");
        assert_is(errors[0], code, connection, offset, words);
    }

    /// Asserts that it has that error, beside others.
    #[track_caller]
    pub(crate) fn has(&self, code: &str, connection: Connection, offset: usize, words: &str) {
        let report = self.inspect_also_in_pieces();
        let is = |finding: &&Finding| {
            finding.kind.code() == code && finding.place.connection == connection
        };
        let found = errors(&report).find(is);
        let Some(finding) = found else { panic!("no {code}: {:#?}", report.findings) };
        assert_is(finding, code, connection, offset, words);
    }

    /// Asserts that it has no error but the note, with that place and text.
    #[track_caller]
    pub(crate) fn has_note(&self, code: &str, connection: Connection, offset: usize, words: &str) {
        let report = self.inspect_also_in_pieces();
        assert_eq!(report.findings.errors(), 0, "{:#?}", report.findings);
        let found = report.findings.iter().find(|finding| finding.kind.code() == code);
        let Some(finding) = found else { panic!("no {code}: {:#?}", report.findings) };
        assert_is(finding, code, connection, offset, words);
    }
}

/// Bytes that are read in pieces of this size.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.1);
        self.0.read(&mut buffer[..count])
    }
}

pub(crate) fn errors(report: &Report) -> impl Iterator<Item = &Finding> {
    report.findings.iter().filter(|finding| finding.kind.severity() == Severity::Error)
}

#[track_caller]
fn assert_is(finding: &Finding, code: &str, connection: Connection, offset: usize, words: &str) {
    assert_eq!(finding.kind.code(), code, "{finding}");
    assert_eq!(finding.place.connection, connection, "{finding}");
    assert_eq!(finding.place.offset, offset as u64, "{finding}");
    assert!(finding.to_string().contains(words), "{words:?} is not in: {finding}");
}

/// Writes the big-endian `value` at `at`.
pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// As [`put32`].
pub(crate) fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn get64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}
