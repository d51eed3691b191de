//! The return path of a relay.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::forward::{Forward, blame};
use super::state::{Answers, State};
use super::stopped;
use crate::driver::ReturnReader;
use crate::error::{Error, Side};
use crate::session::{Session, Wake};
use crate::stream::ReturnMessage;

/// How long a destination that closes may be ahead of the relay: it has read the last bytes, which
/// were passed on before they were looked at, and the source has yet to close.
const AHEAD: Duration = Duration::from_secs(2);

/// Passes on what the destination answers, in a thread of its own.
pub(super) fn start(
    session: &Arc<Session<State>>,
    forward: Forward,
) -> Result<JoinHandle<Option<()>>, Error> {
    let pass_on = move |session: &Session<State>| {
        let source = forward.to.0.clone();
        let ended = follow(session, forward);
        if ended.is_ok() {
            // Nothing more will come, and the source is told so.
            _ = source.0.shutdown(std::net::Shutdown::Write);
        }
        ended
    };
    session.spawn("multifd-answers".to_owned(), pass_on)
}

fn follow(session: &Session<State>, forward: Forward) -> Result<(), Error> {
    let mut reader = ReturnReader::new(forward);
    loop {
        match reader.next_message() {
            Ok(Some(ReturnMessage::Shut(0))) => {
                let confirm = |state: &mut State| state.answers = Answers::Confirmed;
                session.update(Wake::Main, confirm).map_err(stopped)?;
            }
            Ok(Some(ReturnMessage::Shut(status))) => return Err(Error::DestinationRefused(status)),
            Ok(Some(_)) => {}
            Ok(None) => return closed(session),
            Err(error) if error.is_reset() => return Err(Error::DestinationLeft),
            Err(error) => return Err(blame(error, Side::To)),
        }
    }
}

/// The destination has closed, as it does when it has everything.
fn closed(session: &Session<State>) -> Result<(), Error> {
    let (answers, return_path) = session.look(|state| (state.answers, state.return_path));
    if answers == Answers::Confirmed {
        return Ok(());
    }
    let over = |state: &mut State| state.main_over.then_some(());
    if return_path || session.wait_for(AHEAD, over).map_err(stopped)?.is_none() {
        return Err(Error::DestinationLeft);
    }
    session.update(Wake::Main, |state| state.answers = Answers::Closed).map_err(stopped)
}
