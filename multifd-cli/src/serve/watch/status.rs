//! `/status`: all that a service knows of its migrations, as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::clock;
use super::migration::{How, Migration};
use super::view::View;
use crate::escape;

#[derive(Serialize)]
struct Status<'a> {
    time: String,
    version: &'static str,
    /// relay or recv.
    service: &'static str,
    /// How long it has run.
    seconds: f64,
    stopping: bool,
    /// The most migrations at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    /// How many migrations have ended with each result.
    results: BTreeMap<&'static str, u64>,
    refused_connections: BTreeMap<&'a str, u64>,
    /// Lines that could not be written.
    audit_errors: BTreeMap<&'static str, u64>,
    running: &'a [Migration],
    /// The last ones, the very last first.
    ended: &'a [Migration],
}

/// The status as a JSON document, in which nothing of a peer's text is left that a terminal obeys.
pub(super) fn json(view: &View) -> String {
    let status = Status {
        time: clock::now(),
        version: env!("CARGO_PKG_VERSION"),
        service: view.service,
        seconds: (clock::unix_seconds() - view.since).max(0.0),
        stopping: view.stopping,
        limit: view.limit,
        results: How::RESULTS.into_iter().zip(view.results).collect(),
        refused_connections: view
            .refused
            .iter()
            .map(|(reason, count)| (&**reason, *count))
            .collect(),
        audit_errors: view.lost.into_iter().collect(),
        running: &view.running,
        ended: &view.ended,
    };
    // Its fields are texts and numbers.
    escape::json(&serde_json::to_string_pretty(&status).unwrap_or_default()) + "\n"
}
