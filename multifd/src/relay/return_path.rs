//! The return path of a relay.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use super::pipe::Pipe;
use super::state::State;
use crate::engine::hearing::{Hearing, Hears, More};
use crate::engine::return_path::Unasked;
use crate::engine::session::{Failure, Session, Waiter, Wake};
use crate::engine::watch::Timer;
use crate::error::{Error, Side};
use crate::stream::{ReturnDecoder, ReturnMessage};
use crate::transport::is_refusal;

/// How long a destination that closes may be ahead of the relay: it has read the last bytes, which
/// were passed on before they were looked at, and the source has yet to close.
const AHEAD: Duration = Duration::from_secs(2);

/// What the destination says, on its way to the source.
#[derive(Debug)]
pub(super) struct ToSource {
    pipe: Pipe,
    decoder: ReturnDecoder,
    /// A source asks a few times, which are not counted.
    unasked: Unasked,
    /// How long the source may keep the main channel open when the destination has confirmed.
    limit: Duration,
    closing: Option<Timer>,
}

impl ToSource {
    pub(super) fn new(pipe: Pipe, limit: Duration) -> Self {
        let decoder = ReturnDecoder::new().passing_postcopy();
        Self { pipe, decoder, unasked: Unasked::default(), limit, closing: None }
    }
}

impl Hears<State> for ToSource {
    fn hear(&mut self, session: &Session<State>, bytes: &[u8]) -> Result<More, Failure> {
        let Self { pipe, decoder, unasked, .. } = self;
        pipe.came(bytes);
        if bytes.is_empty() {
            decoder.finish().map_err(|error| pipe.blame(error))?;
            return Ok(More::Never);
        }
        let mut rest = bytes;
        let mut shut = None;
        let decoded = loop {
            match decoder.next(&mut rest) {
                Ok(Some(ReturnMessage::Shut(status))) if shut.is_none() => shut = Some(status),
                Ok(Some(ReturnMessage::Shut(status @ 1..))) => {
                    break Err(Error::DestinationRefused(status));
                }
                Ok(Some(_)) => {
                    if let Err(error) = unasked.add() {
                        break Err(Error::on(Side::To)(error));
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => {
                    // What speaks TLS, or wants a token, has not got the guest, however much was passed
                    // on to it.
                    if error.is_tls_alert() || error.is_token_wanted() {
                        session.note(|state| state.more.return_path.refuse());
                    }
                    break Err(pipe.blame(error));
                }
            }
        };
        // Noted before the source hears it, which may then act before this side does.
        match shut {
            Some(0) => session.note(|state| state.more.confirm()).map_err(Error::on(Side::To))?,
            Some(status) => {
                session.note(|state| state.more.return_path.refuse_with(status));
                // Fails where something else was first.
                _ = session.update(Wake::Nobody, |state| state.more.refused = Some(status));
            }
            None => {}
        }
        // The source is to hear it even where the relay fails for it, and what it says of the guest
        // is true even where the source does not.
        let written = pipe.write(bytes);
        match shut {
            Some(0) if written.is_ok() => {
                session.note(|state| state.more.source_untold = false);
                session.wake(Wake::Main);
                let source = pipe.to.stream.connection();
                let cut = session.watch().cut_off(source, self.limit, Shutdown::Read);
                self.closing = Some(cut);
            }
            Some(status @ 1..) => return Err(Error::DestinationRefused(status).into()),
            _ => {}
        }
        decoded?;
        written?;
        Ok(More::Later)
    }

    fn failed(&self, session: &Session<State>, source: io::Error) -> Error {
        if is_refusal(&source) {
            session.note(|state| state.more.return_path.refuse());
        }
        match self.pipe.unreadable(source) {
            error if error.is_reset() => Error::DestinationLeft,
            error => self.pipe.blame(error),
        }
    }
}

/// Passes on what the destination says, to its end.
pub(super) fn listen(hearing: &Hearing<ToSource>, session: &Session<State>) -> Result<(), Failure> {
    hearing.listen(session)?;
    closed(session)?;
    // Nothing more will come, and the source is told so.
    hearing.with(|path| path.pipe.to.stream.connection().shut_down(Shutdown::Write));
    Ok(())
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
