//! How a service is watched.

use std::path::PathBuf;

use multifd::Uri;

use super::board::Board;
use super::events::Events;
use super::http::Server;
use crate::failure::Failure;

/// How a service is watched.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options to watch a service")]
pub(crate) struct Watching {
    /// Answer GET /metrics (Prometheus), /status (JSON) and /health here: tcp:127.0.0.1:PORT (port 0: any free one) or
    /// unix:PATH. Other machines need a proxy in front
    #[arg(long, value_name = "URI", requires = "serve")]
    metrics: Option<Uri>,
    /// Print what happens to stdout as it does, one JSON object per line
    #[arg(long, requires = "serve")]
    json_lines: bool,
    /// Add a line of JSON to this file when a migration begins, and when it has ended: who moved which VM, when and how
    /// it went. It may be renamed meanwhile
    #[arg(long, value_name = "FILE", requires = "serve")]
    audit: Option<PathBuf>,
}

impl Watching {
    /// Where events go.
    ///
    /// # Errors
    /// An audit file that cannot be written.
    pub(crate) fn events(&self) -> Result<Events, Failure> {
        Events::new(self.json_lines, self.audit.as_deref())
    }

    /// Answers of this board, until the result is dropped.
    ///
    /// # Errors
    /// An address that cannot be listened on, or that other machines reach.
    pub(crate) fn server(&self, board: &Board) -> Result<Option<Server>, Failure> {
        let start = |uri| Server::start(uri, super::pages(board.clone()), Default::default());
        self.metrics.as_ref().map(start).transpose()
    }
}
