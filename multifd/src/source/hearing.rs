//! What a source hears from its destination.

use std::io::{self, ErrorKind};

use super::State;
use crate::driver::MainChannelError;
use crate::engine::hearing::{Hears, More};
use crate::engine::return_path::Unasked;
use crate::engine::session::{Failure, Session, Wake};
use crate::error::Error;
use crate::stream::{ReturnDecoder, ReturnMessage};
use crate::transport::is_refusal;

/// The destination's messages, up to its confirmation. What has come is heard even where the
/// migration stops meanwhile: it says whose the guest is.
#[derive(Debug, Default)]
pub(super) struct FromDestination {
    decoder: ReturnDecoder,
    unasked: Unasked,
}

impl Hears<State> for FromDestination {
    fn hear(&mut self, session: &Session<State>, mut bytes: &[u8]) -> Result<More, Failure> {
        if bytes.is_empty() {
            self.decoder.finish()?;
            return Err(Error::DestinationGone.into());
        }
        let mut next = || {
            self.decoder.next(&mut bytes).inspect_err(|error| {
                // What speaks TLS, or wants a token, has not got the guest, however much was written to it.
                if error.is_tls_alert() || error.is_token_wanted() {
                    session.note(|state| state.return_path.refuse());
                }
            })
        };
        while let Some(message) = next()? {
            match message {
                ReturnMessage::Shut(0) => {
                    session.note(|state| state.return_path.confirm())?;
                    session.wake(Wake::Main);
                    return Ok(More::Never);
                }
                ReturnMessage::Shut(status) => {
                    session.note(|state| state.return_path.refuse_with(status));
                    return Err(Error::DestinationFailed(status).into());
                }
                // Answers to what this source does not ask.
                _ => self.unasked.add()?,
            }
        }
        Ok(More::Later)
    }

    fn failed(&self, session: &Session<State>, source: io::Error) -> Error {
        if is_refusal(&source) {
            session.note(|state| state.return_path.refuse());
        }
        // A destination that goes away with bytes of ours unread resets the connection.
        if source.kind() == ErrorKind::ConnectionReset {
            return Error::DestinationGone;
        }
        MainChannelError::Read { offset: self.decoder.offset(), source }.into()
    }
}
