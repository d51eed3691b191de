//! Finding out what a connection is, by what it says first.

use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use multifd_core::PeerError;
use multifd_core::channel::{Opened, Opening};
use multifd_core::wire::InitialPacket;

use super::NotOfIt;
use crate::driver::{self, Receive};
use crate::engine::admission::Admission;
use crate::engine::greeting::Greeting;
use crate::engine::refusal::{Refusal, chain};
use crate::engine::session::Session;
use crate::engine::watch::Timer;
use crate::transport::{Connection, Introduction, Link, Role, Secure};

/// What a connection has said that it is.
#[derive(Debug)]
pub(crate) struct Learned {
    /// What it has proven to be, where there is a token.
    pub(crate) introduction: Option<Introduction>,
    pub(crate) said: Said,
    /// When it came.
    pub(crate) came: Instant,
}

#[derive(Debug)]
pub(crate) enum Said {
    /// The main channel, whose first bytes these are.
    Main(Vec<u8>),
    /// A multifd channel, whose initial packet has these bytes.
    Channel(InitialPacket, Opening),
}

/// Finds out what one connection is.
pub(crate) struct Learner<'a, T> {
    session: &'a Session<T>,
    admission: &'a Admission,
    secure: Option<&'a dyn Secure>,
    connection: &'a Connection,
    came: Instant,
}

impl<'a, T: Send + 'static> Learner<'a, T> {
    /// Of `connection`, which has just come.
    pub(crate) fn new(
        session: &'a Session<T>,
        admission: &'a Admission,
        secure: Option<&'a dyn Secure>,
        connection: &'a Connection,
    ) -> Self {
        Self { session, admission, secure, connection, came: Instant::now() }
    }

    /// Has the connection encrypted and prove what it is, where that is asked for, and reads no more than it
    /// takes to know what it is. Before that, `introduced` is told what it has proven to be, and when it came: what
    /// it has said stays unread until that is done.
    pub(crate) fn learn(
        &self,
        introduced: impl FnOnce(Introduction, Instant) -> Result<(), NotOfIt>,
    ) -> Result<Learned, NotOfIt> {
        let timeout = self.admission.timeout;
        // In total, however many bytes come.
        let mut limit = self.session.watch().cut_off(self.connection, timeout, Shutdown::Both);
        self.secure(&mut limit)?;
        let introduction = self.meet(&mut limit)?;
        introduction.map_or(Ok(()), |introduction| introduced(introduction, self.came))?;
        let (mut link, mut opening) = (Link::new(self.connection), Opening::new());
        let opened = self.session.run(driver::open(&mut link, &mut opening))?;
        let opened = opened.map_err(|error| self.not_said(error, opening.is_empty()))?;
        agree(introduction, &opened)?;
        let said = match opened {
            Opened::Channel(initial) => Said::Channel(initial, opening),
            Opened::Main => Said::Main(self.greet(&mut link)?),
            Opened::Nothing => {
                return Err(self.not_said(PeerError::Truncated.into(), opening.is_empty()));
            }
        };
        // What was cut off meanwhile has not said it in time.
        if limit.stop() {
            return Err(Refusal::Silent(timeout).into());
        }
        Ok(Learned { introduction, said, came: self.came })
    }

    /// Encrypts the connection. One that cannot be used is not of a migration.
    fn secure(&self, limit: &mut Timer) -> Result<(), NotOfIt> {
        let Some(secure) = self.secure else { return Ok(()) };
        let Err(error) = secure.secure(self.connection, None) else { return Ok(()) };
        // What has been shut down says nothing of why.
        self.session.check()?;
        Err(if limit.stop() {
            Refusal::SlowHandshake(self.admission.timeout).into()
        } else if error.is_silence() {
            // A port scanner, a health check: nothing of a migration's.
            NotOfIt::Left
        } else {
            let why = std::error::Error::source(&error).unwrap_or(&error);
            Refusal::NoTls(chain(why)).into()
        })
    }

    /// Has the connection prove what it is. One that cannot is not of a migration.
    fn meet(&self, limit: &mut Timer) -> Result<Option<Introduction>, NotOfIt> {
        let Some(token) = &self.admission.token else { return Ok(None) };
        let introduction = token.meet(self.connection).map_err(|error| {
            // What has been shut down says nothing of why.
            if let Err(stopped) = self.session.check() {
                return stopped.into();
            }
            if limit.stop() {
                return Refusal::Silent(self.admission.timeout).into();
            }
            if error.is_silence() {
                return self.not_said(PeerError::Truncated.into(), true);
            }
            Refusal::NotIntroduced(chain(std::error::Error::source(&error).unwrap_or(&error)))
                .into()
        })?;
        tracing::debug!(as = %introduction.role, "it has the token");
        Ok(Some(introduction))
    }

    /// Reads what a main channel says before it counts as one.
    fn greet(&self, link: &mut Link) -> Result<Vec<u8>, NotOfIt> {
        let (mut greeting, mut buffer) = (Greeting::new(), [0; Greeting::MOST]);
        while greeting.wanted() > 0 {
            let room = &mut buffer[..greeting.wanted()];
            match self.session.run(link.read(room))? {
                Ok(0) if self.came.elapsed() < self.admission.timeout => {
                    return Err(NotOfIt::Refused(Refusal::CutOff));
                }
                Ok(0) => return Err(self.not_said(PeerError::Truncated.into(), false)),
                Ok(count) => greeting.add(&buffer[..count]).map_err(Refusal::from)?,
                Err(error) => {
                    return Err(self.not_said(multifd_core::Error::reading(error), false));
                }
            }
        }
        Ok(greeting.into_bytes())
    }

    /// What it means that the connection has not said what it is, but `error`.
    fn not_said(&self, error: multifd_core::Error, said_nothing: bool) -> NotOfIt {
        let timeout = self.admission.timeout;
        match is_end(&error) {
            true if self.came.elapsed() >= timeout => NotOfIt::Refused(Refusal::Silent(timeout)),
            // A port scanner does no handshake. QEMU looks at the certificate behind it.
            true if said_nothing && self.secure.is_some() => Refusal::LeftBehindTls.into(),
            true if said_nothing => NotOfIt::Left,
            _ => NotOfIt::Refused(error.into()),
        }
    }
}

impl Learned {
    /// What is left of the connection's time.
    pub(crate) fn left_of(&self, limit: Duration) -> Duration {
        limit.saturating_sub(self.came.elapsed())
    }
}

/// What a connection says that it is must be what it has proven to be.
fn agree(introduction: Option<Introduction>, opened: &Opened) -> Result<(), Refusal> {
    let Some(Introduction { role, .. }) = introduction else { return Ok(()) };
    let found = match opened {
        Opened::Main => Role::Main,
        Opened::Channel(initial) => Role::Channel(initial.channel),
        Opened::Nothing => return Ok(()),
    };
    if role == found { Ok(()) } else { Err(Refusal::OtherRole { role, found }) }
}

/// Whether the other side has ended a connection before it said what it is. That reading fails here, as for
/// want of memory, is another matter.
fn is_end(error: &multifd_core::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    use multifd_core::ErrorKind;

    match error.kind() {
        ErrorKind::Io { source, .. } => matches!(
            source.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
        ),
        ErrorKind::Peer(PeerError::Truncated) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use multifd_core::wire::Uuid;

    use super::*;
    use crate::transport::MigrationId;

    #[test]
    fn a_connection_that_fails_here_has_not_ended_there() {
        let failed = |kind| multifd_core::Error::reading(io::Error::from(kind));
        assert!(is_end(&failed(io::ErrorKind::ConnectionReset)));
        assert!(is_end(&PeerError::Truncated.into()));
        assert!(!is_end(&failed(io::ErrorKind::OutOfMemory)));
        assert!(!is_end(&PeerError::NameEmpty.into()));
    }

    #[test]
    fn a_connection_is_what_it_has_proven_or_has_proven_nothing() {
        let proven = |role| Some(Introduction { migration: MigrationId([1; 16]), role });
        let channel = |channel| {
            Opened::Channel(InitialPacket { uuid: Uuid([1; 16]), channel, digests: false })
        };
        for (introduction, opened, fits) in [
            (None, Opened::Main, true),
            (None, channel(0), true),
            (proven(Role::Main), Opened::Main, true),
            (proven(Role::Channel(3)), channel(3), true),
            (proven(Role::Main), channel(0), false),
            (proven(Role::Channel(0)), Opened::Main, false),
            (proven(Role::Channel(3)), channel(2), false),
            // That it has said nothing is looked at elsewhere.
            (proven(Role::Main), Opened::Nothing, true),
        ] {
            assert_eq!(agree(introduction, &opened).is_ok(), fits, "{introduction:?} {opened:?}");
        }
    }
}
