//! A migration of a service: what is known of it when it begins, while it runs and when it has ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use multifd::{Progress, Stats};
use serde::Serialize;

use super::rounds::Round;
use crate::summary::Summary;

/// The most bytes that are kept of a text that may be a peer's.
const LONGEST: usize = 1024;

/// What is known of a migration when it begins.
pub(crate) struct About {
    /// The VM's.
    pub(crate) uuid: String,
    /// The address that the source's main channel came from.
    pub(crate) peer: String,
    /// The name in the source's certificate, with TLS.
    pub(crate) certificate: Option<String>,
    pub(crate) from: Counters,
    /// `None` where the migration ends here.
    pub(crate) to: Option<Counters>,
    pub(crate) from_codec: String,
    pub(crate) to_codec: Option<String>,
    /// The CPU time that the migration has taken so far. Asked for under a lock: it must not use the [`Board`](super::board::Board).
    pub(crate) cpu: Arc<dyn Fn() -> Duration + Send + Sync>,
}

/// How a migration has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) how: How,
    /// Why it did not go through.
    pub(crate) why: Option<String>,
    /// Where the VM is stored.
    pub(crate) stored: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Done {
        /// Whether the destination has said so.
        confirmed: bool,
    },
    Failed,
    /// Nobody here knows which side has the guest.
    Unclear,
    Cancelled,
}

/// The counters of one side of a migration, to be read while it runs.
#[derive(Clone)]
pub(crate) struct Counters(Arc<dyn Fn() -> Stats + Send + Sync>);

/// Who migrates which VM.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Who {
    /// The migration's number in this service, from 1 on.
    pub(super) id: u64,
    pub(super) uuid: String,
    pub(super) peer: String,
    pub(super) certificate: Option<String>,
}

/// A migration, as the pages for machines show it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Migration {
    #[serde(flatten)]
    pub(super) who: Who,
    /// RFC 3339.
    pub(super) began: String,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) from: Moved,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<Moved>,
    /// The one that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) round: Option<u64>,
    /// Those that are over, the last ones of many.
    pub(super) rounds: Vec<Round>,
    pub(super) rounds_forgotten: u64,
    #[serde(flatten)]
    pub(super) end: Option<End>,
}

/// How a migration has ended, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub(super) struct End {
    /// RFC 3339.
    pub(super) ended: String,
    pub(super) result: &'static str,
    /// Whether the destination has said that it has the VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confirmed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stored: Option<String>,
}

/// What one side has moved.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Moved {
    pub(super) codec: String,
    #[serde(flatten)]
    pub(super) summary: Summary,
    /// Only while the migration runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) channels: Vec<Channel>,
}

/// What one channel has moved.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Channel {
    /// Its number, or `main`.
    pub(super) channel: String,
    pub(super) normal_pages: u64,
    pub(super) zero_pages: u64,
    pub(super) wire_bytes: u64,
}

impl How {
    /// All results that are counted.
    pub(super) const RESULTS: [&'static str; 4] = ["done", "failed", "unclear", "cancelled"];

    pub(super) fn result(self) -> &'static str {
        Self::RESULTS[self.index()]
    }

    /// Its place in [`RESULTS`](Self::RESULTS).
    pub(super) fn index(self) -> usize {
        match self {
            Self::Done { .. } => 0,
            Self::Failed => 1,
            Self::Unclear => 2,
            Self::Cancelled => 3,
        }
    }
}

impl Counters {
    pub(super) fn snapshot(&self) -> Stats {
        self.0()
    }

    #[cfg(test)]
    pub(super) fn of(stats: impl Fn() -> Stats + Send + Sync + 'static) -> Self {
        Self(Arc::new(stats))
    }
}

/// Those of a migration that moves no more.
impl From<Stats> for Counters {
    fn from(stats: Stats) -> Self {
        Self(Arc::new(move || stats.clone()))
    }
}

impl From<Progress> for Counters {
    fn from(progress: Progress) -> Self {
        Self(Arc::new(move || progress.snapshot()))
    }
}

impl End {
    pub(super) fn new(ended: Ended, at: String) -> Self {
        let confirmed = match ended.how {
            How::Done { confirmed } => Some(confirmed),
            _ => None,
        };
        let (why, stored) = (ended.why.map(short), ended.stored.map(short));
        Self { ended: at, result: ended.how.result(), confirmed, why, stored }
    }
}

impl Moved {
    /// What a side has moved in this time, without its channels.
    pub(super) fn new(codec: &str, stats: &Stats, time: Duration) -> Self {
        let page_bytes = usize::try_from(stats.page_bytes).unwrap_or(0);
        let summary = Summary::new(stats, page_bytes, time);
        Self { codec: codec.to_owned(), summary, channels: Vec::new() }
    }

    /// The same with its channels, the main channel first.
    pub(super) fn by_channel(self, stats: &Stats) -> Self {
        let main = Channel {
            channel: "main".to_owned(),
            normal_pages: 0,
            zero_pages: stats.main_zero_pages,
            wire_bytes: stats.main_bytes,
        };
        let numbered = stats.channels.iter().enumerate().map(|(number, channel)| Channel {
            channel: number.to_string(),
            normal_pages: channel.normal_pages,
            zero_pages: channel.zero_pages,
            wire_bytes: channel.wire_bytes,
        });
        let channels = std::iter::once(main).chain(numbered).collect();
        Self { channels, ..self }
    }
}

impl Migration {
    /// The sides by their names in labels.
    pub(super) fn sides(&self) -> impl Iterator<Item = (&'static str, &Moved)> {
        std::iter::once(("from", &self.from)).chain(self.to.as_ref().map(|to| ("to", to)))
    }
}

/// At most the first bytes of a text: a peer says how long it is.
pub(super) fn short(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

impl fmt::Debug for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("About").field("uuid", &self.uuid).field("peer", &self.peer).finish()
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counters").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let long = short("ü".repeat(LONGEST));
        assert_eq!(long, "ü".repeat(LONGEST / 2) + "…");
        let odd = short("a".to_owned() + &"ü".repeat(LONGEST));
        assert_eq!(odd, "a".to_owned() + &"ü".repeat(LONGEST / 2 - 1) + "…");
        assert_eq!(short("short".to_owned()), "short");
    }
}
