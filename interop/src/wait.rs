//! Waiting for another process, never for ever.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::Error;

/// How long anything may take. What works takes seconds; a slow and busy machine has ten times that.
pub const LIMIT: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(10);

/// Asks `ready` until it gives something.
///
/// # Errors
/// That of `ready`, or that `what` has not come true within [`LIMIT`].
pub fn wait_until<T>(
    what: &str,
    mut ready: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(result) = ready()? {
            return Ok(result);
        }
        if Instant::now() > deadline {
            return Err(Error::Timeout { what: what.to_owned(), limit: LIMIT });
        }
        sleep(PAUSE);
    }
}
