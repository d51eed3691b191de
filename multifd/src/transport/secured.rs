//! A connection that is encrypted by TLS.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rustls::{Connection as Session, SupportedCipherSuite};

use self::input::{Input, Take};
use self::output::Output;
use super::Connection;
use super::Unsaid;
use super::input_lock::InputLock;
#[cfg(feature = "token")]
use super::introduction::Binding;
use super::kernel::Kernel;
use super::layer::{Layer, Line, Now, Patience};
use crate::tls::{Handover, TlsError};

mod input;
mod line;
mod output;

/// A TLS session over a socket.
///
/// Whoever reads has the input, whoever writes the output, each for as long as the socket takes. The
/// session is locked only while it computes. In this order: input, output, session.
pub(crate) struct Secured {
    input: InputLock<Input>,
    output: Mutex<Output>,
    session: Mutex<Session>,
    /// The session has something to send that reading has brought about, such as an alert. Whoever has the
    /// output sends it.
    pending: AtomicBool,
}

impl Secured {
    /// Has `connection`, on which nothing has been said yet, encrypted by `session`. That ends when the
    /// connection is shut down.
    /// The kernel takes over what comes behind the handshake where there is a `handover` and it can.
    pub(crate) fn shake_hands(
        connection: &Connection,
        session: Session,
        handover: Option<&Handover>,
    ) -> Result<(), TlsError> {
        let bare = connection.bare_socket().and_then(|_| connection.line());
        let line = bare.ok_or(TlsError::NotASocket)?;
        let take = if handover.is_some() { Take::Records } else { Take::All };
        let secured = Self::over(line, session, take)?;
        if let Some(name) = secured.peer() {
            connection.set_certificate(name);
        }
        let secured: Box<dyn Layer> = match handover {
            None => Box::new(secured),
            Some(handover) => Kernel::take_over(line, secured, handover)?,
        };
        match connection.put_on(secured) {
            true => Ok(()),
            false => Err(TlsError::NotASocket),
        }
    }

    fn over(line: Line<'_>, mut session: Session, take: Take) -> Result<Self, TlsError> {
        let (mut input, mut output) = (Input::new(take), Output::new());
        session.set_buffer_limit(None);
        if let Err(error) = handshake(line, &mut session, &mut input, &mut output) {
            match error {
                TlsError::NotTls { .. } => output.append(&ALERT),
                _ => output.collect(&mut session),
            }
            // The peer is told, if it listens.
            _ = output.send_now(line);
            // Behind that: a connection that is reset takes what was said last with it.
            _ = line.socket.shutdown(Shutdown::Write);
            return Err(error);
        }
        Ok(Self {
            input: InputLock::new(input),
            output: Mutex::new(output),
            session: Mutex::new(session),
            pending: AtomicBool::new(false),
        })
    }

    /// As [`over`](Self::over), with everything behind the handshake left in the socket.
    #[cfg(test)]
    pub(super) fn to_take_over(line: Line<'_>, session: Session) -> Result<Self, TlsError> {
        Self::over(line, session, Take::Records)
    }

    /// Has the next key come.
    #[cfg(test)]
    pub(super) fn refresh(&self) {
        _ = lock(&self.session).refresh_traffic_keys();
    }

    /// The session, back, where nothing has been received or sent behind the handshake.
    pub(super) fn into_session(self) -> Session {
        self.session.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom the other side's certificate names, where it has shown one.
    fn peer(&self) -> Option<String> {
        let session = lock(&self.session);
        crate::tls::name_in(session.peer_certificates()?.first()?)
    }

    /// What was agreed on in the handshake.
    pub(super) fn suite(&self) -> Option<SupportedCipherSuite> {
        lock(&self.session).negotiated_cipher_suite()
    }

    /// From here on takes whatever there is.
    pub(super) fn take_all(&self) {
        self.input.lock().take_all();
    }

    /// The plaintext that what has been received holds; 0 bytes at the end, `None` where it holds none
    /// yet.
    fn take(
        &self,
        line: Line<'_>,
        input: &mut Input,
        room: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let mut session = lock(&self.session);
        let taken = input.take(&mut session, room);
        self.note_pending(&session);
        drop(session);
        self.send_pending(line);
        taken
    }

    fn note_pending(&self, session: &Session) {
        if session.wants_write() {
            self.pending.store(true, Ordering::SeqCst);
        }
    }

    /// Sends what reading has brought about, as far as there is room now: the rest goes out ahead of what
    /// is written next. Where another thread has the output, it does this when it is done.
    fn send_pending(&self, line: Line<'_>) {
        while self.pending.load(Ordering::SeqCst) {
            let Some(mut output) = try_lock(&self.output) else { return };
            self.pending.store(false, Ordering::SeqCst);
            output.collect(&mut lock(&self.session));
            // Whoever writes next sees that it fails.
            _ = output.send_now(line);
        }
    }

    /// What there is to be read of what has been received.
    fn look_at(&self, line: Line<'_>, input: &mut Input) -> Now {
        let mut session = lock(&self.session);
        let now = input.look(&mut session);
        self.note_pending(&session);
        drop(session);
        self.send_pending(line);
        now
    }

    /// The reason of a peer that has closed the connection while it was written to, if it has given one;
    /// else `error`.
    fn explained(&self, line: Line<'_>, error: io::Error) -> io::Error {
        let Some(mut input) = self.input.lock_to_look() else { return error };
        loop {
            match input.look(&mut lock(&self.session)) {
                Now::Nothing => {}
                Now::Bytes | Now::End => return error,
                Now::Failure => return input.failure().unwrap_or(error),
            }
            match input.receive_now(line) {
                Ok(Some(1..)) => {}
                _ => return error,
            }
        }
    }
}

/// What a peer without TLS hears: a fatal alert, for an unexpected message. A source takes it for an
/// answer that there is not, and can tell what it is.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];

/// Exchanges keys and certificates.
fn handshake(
    line: Line<'_>,
    session: &mut Session,
    input: &mut Input,
    output: &mut Output,
) -> Result<(), TlsError> {
    loop {
        output.collect(session);
        if let Err(error) = output.send(line) {
            return Err(
                hear(line, session, input).unwrap_or_else(|| input.failed_in_handshake(error))
            );
        }
        if !session.is_handshaking() {
            return Ok(());
        }
        if !input.feed(session)? {
            match input.receive(line) {
                Ok(0) => return Err(input.ended_in_handshake()),
                Ok(_) => input.check_first(line)?,
                Err(error) => return Err(input.failed_in_handshake(error)),
            }
        }
    }
}

/// What a peer has said last that does not listen any more.
fn hear(line: Line<'_>, session: &mut Session, input: &mut Input) -> Option<TlsError> {
    while let Ok(Some(1..)) = input.receive_now(line) {
        loop {
            match input.feed(session) {
                Ok(true) => {}
                Ok(false) => break,
                Err(reason) => return Some(reason),
            }
        }
    }
    None
}

impl Layer for Secured {
    fn read(&self, line: Line<'_>, room: &mut [u8]) -> io::Result<usize> {
        let mut input = self.input.lock();
        loop {
            if let Some(count) = self.take(line, &mut input, room)? {
                return Ok(count);
            }
            self.input.wait(|| input.receive(line))?;
        }
    }

    fn read_now(&self, line: Line<'_>, room: &mut [u8]) -> io::Result<Option<usize>> {
        let mut input = self.input.lock();
        loop {
            if let Some(count) = self.take(line, &mut input, room)? {
                return Ok(Some(count));
            }
            if input.receive_now(line)?.is_none() {
                return Ok(None);
            }
        }
    }

    fn look(&self, line: Line<'_>) -> io::Result<Now> {
        // Somebody waits for it to say something.
        let Some(mut input) = self.input.lock_to_look() else { return Ok(Now::Nothing) };
        loop {
            match self.look_at(line, &mut input) {
                Now::Nothing => {}
                something => return Ok(something),
            }
            if input.receive_now(line)?.is_none() {
                return Ok(Now::Nothing);
            }
        }
    }

    fn is_quiet(&self, line: Line<'_>, in_the_middle: bool) -> bool {
        // Whoever has it may have taken something out.
        let Some(mut input) = self.input.lock_to_look() else { return in_the_middle };
        // Nothing is taken out of the socket, which another thread may wait for.
        self.look_at(line, &mut input) == Now::Nothing && (in_the_middle || input.is_empty())
    }

    fn write(
        &self,
        line: Line<'_>,
        bytes: usize,
        gather: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> io::Result<usize> {
        let mut output = lock(&self.output);
        let count = output.gather(bytes, gather);
        let sent = output.encrypt(&mut || lock(&self.session)).and_then(|()| output.send(line));
        drop(output);
        self.send_pending(line);
        match sent {
            Ok(()) => Ok(count),
            Err(error) => Err(self.explained(line, error)),
        }
    }

    fn say(&self, line: Line<'_>, message: &[u8]) -> Result<(), Unsaid> {
        let mut output = lock(&self.output);
        let unsaid = |source| Unsaid { source, may_be_heard: false };
        let no_room = || io::Error::new(ErrorKind::WouldBlock, "there is no room for it");
        if !output.send_now(line).map_err(unsaid)? {
            return Err(unsaid(no_room()));
        }
        output.gather(message.len(), &mut |room| {
            room.copy_from_slice(message);
            room.len()
        });
        output.encrypt(&mut || lock(&self.session)).map_err(unsaid)?;
        match output.send_now(line) {
            Ok(true) => Ok(()),
            // A record that is not whole says nothing. The rest of it never leaves.
            said => {
                output.give_up();
                Err(unsaid(said.err().unwrap_or_else(no_room)))
            }
        }
    }

    fn close(&self, line: Line<'_>, patience: Patience) {
        let output = match patience {
            Patience::AtAnyPace => Some(lock(&self.output)),
            Patience::Now => try_lock(&self.output),
        };
        // Where another thread writes, what it writes is cut off.
        let Some(mut output) = output else { return };
        if patience == Patience::Now && !output.send_now(line).unwrap_or(false) {
            return;
        }
        output.close(&mut lock(&self.session));
        let said = match patience {
            Patience::AtAnyPace => output.send(line),
            Patience::Now => output.send_now(line).map(drop),
        };
        if let Err(error) = said {
            tracing::debug!(%error, "saying that nothing more comes");
        }
    }

    #[cfg(feature = "token")]
    fn binding(&self) -> Binding {
        let session = lock(&self.session);
        // Of TLS 1.2 without its extended master secret, two sessions may export the same.
        if session.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) {
            return Binding::OldTls;
        }
        session
            .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
            .map_or(Binding::OldTls, Binding::Tls)
    }

    fn end(&self, line: Line<'_>) {
        self.close(line, Patience::Now);
        // A TLS server's tickets for another session, which nobody has read, would have the system reset
        // the connection and drop what was written last.
        let mut unread = [0; 4096];
        for _ in 0..MOST_UNREAD {
            match line.receive_now(&mut unread) {
                Ok(Some(1..)) => {}
                _ => return,
            }
        }
    }
}

/// How often what nobody has read is dropped, at the end.
pub(super) const MOST_UNREAD: usize = 64;

/// An error of TLS as one of reading or writing.
pub(super) fn failed(error: TlsError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that has panicked fails the migration.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secured")
    }
}

#[cfg(test)]
mod tests;
