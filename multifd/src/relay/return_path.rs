//! The return path of a relay.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pipe::Pipe;
use super::state::State;
use crate::engine::session::{Failure, Session, Waiter, Wake};
use crate::error::{Error, Side};
use crate::stream::{ReturnDecoder, ReturnMessage};
use crate::transport::Stream;

/// How long a destination that closes may be ahead of the relay: it has read the last bytes, which
/// were passed on before they were looked at, and the source has yet to close.
const AHEAD: Duration = Duration::from_secs(2);

/// The return path, which a thread listens to, and which the main thread hears to its present end
/// before it passes on that everything has been sent: so that a confirmation that came before is too
/// early, whichever thread runs first.
#[derive(Debug)]
pub(super) struct Hearing {
    destination: Stream,
    path: Mutex<Path>,
}

#[derive(Debug)]
struct Path {
    pipe: Pipe,
    decoder: ReturnDecoder,
}

/// Whether the destination may say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Later,
    Never,
}

impl Hearing {
    pub(super) fn new(pipe: Pipe) -> Self {
        let destination = pipe.from.stream.clone();
        Self { destination, path: Mutex::new(Path { pipe, decoder: ReturnDecoder::new() }) }
    }

    /// Passes on what the destination says, to its end.
    pub(super) fn listen(&self, session: &Session<State>) -> Result<(), Failure> {
        while self.path().pass_on(session)? == More::Later {
            let waited = self.destination.wait_readable();
            waited.map_err(Error::system("waiting for the destination's answer"))?;
        }
        closed(session)?;
        // Nothing more will come, and the source is told so.
        self.path().pipe.to.stream.shut_writing();
        Ok(())
    }

    /// Passes on what the destination has said by now.
    pub(super) fn hear(&self, session: &Session<State>) -> Result<(), Failure> {
        self.path().pass_on(session)?;
        Ok(())
    }

    fn path(&self) -> MutexGuard<'_, Path> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Path {
    fn pass_on(&mut self, session: &Session<State>) -> Result<More, Failure> {
        let Self { pipe, decoder } = self;
        let mut buffer = [0; 4096];
        loop {
            let count = match pipe.read_now(&mut buffer) {
                Ok(None) => return Ok(More::Later),
                Ok(Some(0)) => {
                    decoder.finish().map_err(|error| pipe.blame(error))?;
                    return Ok(More::Never);
                }
                Ok(Some(count)) => count,
                Err(error) if error.is_reset() => return Err(Error::DestinationLeft.into()),
                Err(error) => return Err(pipe.blame(error).into()),
            };
            // The source is to hear it even where the relay fails for it, and what it says of the
            // guest is true even where the source does not.
            let written = pipe.write(&buffer[..count]);
            let mut bytes = &buffer[..count];
            while let Some(message) = decoder.next(&mut bytes).map_err(|error| pipe.blame(error))? {
                match message {
                    ReturnMessage::Shut(0) => {
                        let confirmed = session.note(|state| state.more.return_path.confirm());
                        confirmed.map_err(Error::on(Side::To))?;
                        session.wake(Wake::Main);
                    }
                    ReturnMessage::Shut(status) => {
                        session.note(|state| state.more.return_path.refuse());
                        return Err(Error::DestinationRefused(status).into());
                    }
                    _ => {}
                }
            }
            written?;
        }
    }
}

/// The destination has closed, as it does when it has everything.
fn closed(session: &Session<State>) -> Result<(), Failure> {
    let return_path = session.look(|state| state.more.return_path);
    if return_path.is_confirmed() {
        return Ok(());
    }
    let over = session.wait_for(Waiter::Main, "the end of the main channel", AHEAD, |state| {
        (return_path.is_open() || state.more.main_over).then_some(())
    })?;
    if return_path.is_open() || over.is_none() {
        return Err(Error::DestinationLeft.into());
    }
    session.update(Wake::Main, |state| state.more.return_path.close())?;
    Ok(())
}
