//! What a source hears from its destination.

use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};

use super::State;
use crate::driver::MainChannelError;
use crate::engine::session::{Failure, Session, Wake};
use crate::error::Error;
use crate::stream::{ReturnDecoder, ReturnMessage};
use crate::transport::Stream;

/// The return path, which a thread listens to, and which the main thread hears to its present end
/// before it writes the end of the stream: so that a confirmation that came before is too early,
/// whichever thread runs first. What has come is heard even where the migration stops meanwhile: it
/// says whose the guest is.
#[derive(Debug)]
pub(super) struct Hearing {
    stream: Stream,
    decoder: Mutex<ReturnDecoder>,
}

impl Hearing {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, decoder: Mutex::default() }
    }

    /// Hears what the destination says, up to its confirmation.
    pub(super) fn listen(&self, session: &Session<State>) -> Result<(), Failure> {
        while !self.hear(session)? {
            let waited = self.stream.wait_readable();
            waited.map_err(Error::system("waiting for the destination's answer"))?;
        }
        Ok(())
    }

    /// Hears what the destination has said by now. Returns whether it has confirmed.
    pub(super) fn hear(&self, session: &Session<State>) -> Result<bool, Failure> {
        let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 64];
        while !session.look(|state| state.return_path.is_confirmed()) {
            let mut bytes = match self.stream.read_now(&mut buffer) {
                Ok(None) => return Ok(false),
                Ok(Some(0)) => {
                    decoder.finish()?;
                    return Err(Error::DestinationGone.into());
                }
                Ok(Some(count)) => &buffer[..count],
                // A destination that goes away with bytes of ours unread resets the connection.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(Error::DestinationGone.into());
                }
                Err(source) => {
                    let offset = decoder.offset();
                    return Err(Error::from(MainChannelError::Read { offset, source }).into());
                }
            };
            while let Some(message) = decoder.next(&mut bytes)? {
                match message {
                    ReturnMessage::Shut(0) => {
                        session.note(|state| state.return_path.confirm())?;
                        session.wake(Wake::Main);
                        return Ok(true);
                    }
                    ReturnMessage::Shut(status) => {
                        session.note(|state| state.return_path.refuse());
                        return Err(Error::DestinationFailed(status).into());
                    }
                    // Answers to what this source does not ask.
                    _ => {}
                }
            }
        }
        Ok(true)
    }
}
