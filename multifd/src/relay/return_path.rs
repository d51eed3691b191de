//! The return path of a relay.

use std::time::Duration;

use super::pipe::{CHUNK, Pipe};
use super::state::State;
use crate::engine::session::{Failure, Session, Waiter, Wake};
use crate::error::{Error, Side};
use crate::stream::{ReturnDecoder, ReturnMessage};

/// How long a destination that closes may be ahead of the relay: it has read the last bytes, which
/// were passed on before they were looked at, and the source has yet to close.
const AHEAD: Duration = Duration::from_secs(2);

/// Passes on what the destination says, to its end.
pub(super) fn pass_on(session: &Session<State>, mut pipe: Pipe) -> Result<(), Failure> {
    follow(session, &mut pipe)?;
    // Nothing more will come, and the source is told so.
    pipe.to.stream.shut_writing();
    Ok(())
}

fn follow(session: &Session<State>, pipe: &mut Pipe) -> Result<(), Failure> {
    let mut decoder = ReturnDecoder::new();
    let mut buffer = [0; CHUNK];
    loop {
        let count = match pipe.read(&mut buffer) {
            Ok(0) => {
                decoder.finish().map_err(|error| pipe.blame(error))?;
                return closed(session);
            }
            Ok(count) => count,
            Err(error) if error.is_reset() => {
                return Err(Error::DestinationLeft.into());
            }
            Err(error) => return Err(pipe.blame(error).into()),
        };
        // The source is to hear it even where the relay fails for it.
        pipe.write(&buffer[..count])?;
        let mut bytes = &buffer[..count];
        while let Some(message) = decoder.next(&mut bytes).map_err(|error| pipe.blame(error))? {
            match message {
                ReturnMessage::Shut(0) => {
                    let confirm = |state: &mut State| state.more.return_path.confirm();
                    session.update(Wake::Main, confirm)?.map_err(Error::on(Side::To))?;
                }
                ReturnMessage::Shut(status) => {
                    return Err(Error::DestinationRefused(status).into());
                }
                _ => {}
            }
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
