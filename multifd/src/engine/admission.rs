//! What a receiving side asks of connections before they are of a migration.

use std::sync::Arc;
use std::time::Duration;

use super::refusal::Refusals;
use crate::transport::{Introduce, Network};

/// What a receiving side asks of connections before they are of a migration.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    /// How long a connection may take to say what it is, and all of them to be there.
    pub(crate) timeout: Duration,
    /// Where TCP connections may come from; anywhere if there is none.
    pub(crate) allow_from: Vec<Network>,
    /// How many connections may wait at once, beside as many as there are channels.
    pub(crate) most_waiting: usize,
    /// What they prove that they are of the migration by.
    pub(crate) token: Option<Arc<dyn Introduce>>,
    /// Those that were refused.
    pub(crate) refusals: Refusals,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            allow_from: Vec::new(),
            most_waiting: 256,
            token: None,
            refusals: Refusals::default(),
        }
    }
}
