//! What a second source is told.

use std::io::Read;
use std::net::Shutdown;
use std::time::Duration;

use super::session::Session;
use crate::stream::{Limits, MainDecoder, MainEvent, ReturnMessage};
use crate::transport::{Connection, Impatient};

/// How long a second source may take to hear that it is one.
const LIMIT: Duration = Duration::from_secs(2);

/// The most bytes that are read of it: it sends until it has heard.
const MOST: usize = 16 << 20;

/// Turns away the main channel of another source, of which `said` has been read: if it opens a return
/// path, it is told there that its migration has failed.
pub(crate) fn turn_away<T: Send + 'static>(
    session: &Session<T>,
    connection: &Connection,
    said: &[u8],
) {
    let _limit = session.watch().cut_off(connection, LIMIT, Shutdown::Both);
    if !listens(connection, said) {
        return;
    }
    let refusal = Impatient::new(connection, session.watch());
    if let Err(unsaid) = refusal.say(&ReturnMessage::Shut(1).to_bytes()) {
        tracing::debug!(error = %unsaid.source, "a second source cannot be told that it is one");
        return;
    }
    connection.shut_down(Shutdown::Write);
    // What is unread when a socket is closed may take the message with it.
    let (mut connection, mut buffer) = (connection.clone(), [0; 4096]);
    let mut read = 0;
    while let Ok(count @ 1..) = connection.read(&mut buffer) {
        read += count;
        if read > MOST {
            break;
        }
    }
}

/// Whether the source opens a return path, where it listens.
fn listens(connection: &Connection, said: &[u8]) -> bool {
    let mut limits = Limits::default();
    limits.early_state = 0;
    let mut decoder = MainDecoder::new(limits);
    let (mut connection, mut buffer) = (connection.clone(), [0; 4096]);
    let mut bytes = said;
    loop {
        match decoder.next(&mut bytes) {
            Ok(Some(MainEvent::OpenReturnPath)) => return true,
            Ok(Some(MainEvent::Configuration(_) | MainEvent::PostcopyAdvise(_))) => {}
            Ok(Some(_)) | Err(_) => return false,
            Ok(None) => match connection.read(&mut buffer) {
                Ok(count @ 1..) => bytes = &buffer[..count],
                Ok(0) | Err(_) => return false,
            },
        }
    }
}
