//! Where a migration goes.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::session::{Failure, Session};
use crate::error::Error;
use crate::transport::{
    Attempt, Connection, Introduce, Introduction, MigrationId, Role, Secure, Uri, connect,
};

/// Where a migration goes: an address that is connected to, or connections that are there already.
#[derive(Clone, Debug)]
pub struct Outgoing {
    way: Way,
    /// Encrypts each connection.
    secure: Option<Arc<dyn Secure>>,
    /// Proves on each that it is of this attempt.
    token: Option<(Arc<dyn Introduce>, MigrationId)>,
}

#[derive(Clone, Debug)]
enum Way {
    Connect(Uri),
    Given { main: Connection, channels: Vec<Connection> },
}

impl Outgoing {
    /// Over connections to the destination: the main channel, and as many multifd channels as the
    /// destination expects. They are shut down when the migration is over.
    pub fn over(main: Connection, channels: impl IntoIterator<Item = Connection>) -> Self {
        Way::Given { main, channels: channels.into_iter().collect() }.into()
    }

    /// Has each connection encrypted before it is used.
    pub(crate) fn secured_by(self, secure: Option<Arc<dyn Secure>>) -> Self {
        Self { secure, ..self }
    }

    /// Has each connection prove, before it is used, that it is of one attempt, a new one.
    pub(crate) fn known_by(self, token: Option<Arc<dyn Introduce>>) -> Result<Self, Error> {
        let Some(token) = token else { return Ok(self) };
        let migration = token.new_migration()?;
        Ok(Self { token: Some((token, migration)), ..self })
    }

    /// The number of channels: those that are given, or else `asked`.
    pub(crate) fn count(&self, asked: u8) -> Result<u8, Error> {
        let channels = match &self.way {
            Way::Connect(_) => asked.into(),
            Way::Given { channels, .. } => channels.len(),
        };
        let count = u8::try_from(channels).map_err(|_| Error::ChannelCount(channels))?;
        if count == 0 { Err(Error::ChannelCount(0)) } else { Ok(count) }
    }

    /// Whether guest memory could go out from where it is.
    ///
    /// # Errors
    /// It cannot, with the reason.
    pub(crate) fn check_zero_copy(&self) -> io::Result<()> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::Unsupported, why));
        if self.secure.is_some() {
            return refused("TLS encrypts a copy");
        }
        match &self.way {
            Way::Connect(Uri::Tcp { .. }) => Ok(()),
            Way::Connect(_) => refused("only TCP has it"),
            Way::Given { channels, .. } => {
                channels.iter().try_for_each(|channel| channel.plain_tcp().map(drop))
            }
        }
    }

    /// Has connections that are there end when the migration does, whether it comes to use them or
    /// not.
    pub(crate) fn register<S: Send + 'static>(&self, session: &Session<S>) {
        if let Way::Given { main, channels } = &self.way {
            for connection in channels.iter().chain([main]) {
                session.register(connection, Shutdown::Both);
            }
        }
    }

    /// Makes the main channel's connection, which ends when the migration does, or takes the one that
    /// is there and [registered](Self::register).
    pub(crate) fn main<S: Send + 'static>(
        &self,
        session: &Session<S>,
        limit: Duration,
    ) -> Result<Connection, Failure> {
        match &self.way {
            Way::Connect(uri) => self.made(session, uri, Role::Main, limit),
            Way::Given { main, .. } => self.given(session, main, Role::Main, limit),
        }
    }

    /// As [`main`](Self::main), of the channel `number`, which must be less than the
    /// [count](Self::count).
    pub(crate) fn channel<S: Send + 'static>(
        &self,
        number: u8,
        session: &Session<S>,
        limit: Duration,
    ) -> Result<Connection, Failure> {
        let role = Role::Channel(number);
        match &self.way {
            Way::Connect(uri) => self.made(session, uri, role, limit),
            Way::Given { channels, .. } => {
                self.given(session, &channels[usize::from(number)], role, limit)
            }
        }
    }

    fn made<S: Send + 'static>(
        &self,
        session: &Session<S>,
        uri: &Uri,
        role: Role,
        limit: Duration,
    ) -> Result<Connection, Failure> {
        let began = Instant::now();
        match connect(uri, limit, session.stop_event()) {
            Ok(Attempt::Connected(connection)) => {
                tracing::debug!(to = %uri, "connected");
                session.register(&connection, Shutdown::Both);
                let left = limit.saturating_sub(began.elapsed());
                self.prepare(session, &connection, uri, role, left)?;
                Ok(connection)
            }
            Ok(Attempt::Stopped) => Err(Failure::Stopped),
            Err(source) => {
                Err(Error::Connect { channel: role.number(), uri: uri.clone(), source }.into())
            }
        }
    }

    fn given<S: Send + 'static>(
        &self,
        session: &Session<S>,
        connection: &Connection,
        role: Role,
        limit: Duration,
    ) -> Result<Connection, Failure> {
        self.prepare(session, connection, &Uri::Unnamed, role, limit)?;
        Ok(connection.clone())
    }

    /// Encrypts a connection to `uri`, and proves on it that it is of this attempt, if that is asked for.
    fn prepare<S: Send + 'static>(
        &self,
        session: &Session<S>,
        connection: &Connection,
        uri: &Uri,
        role: Role,
        limit: Duration,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        if let Some(secure) = &self.secure {
            let host = match uri {
                Uri::Tcp { host, .. } => Some(host.as_str()),
                _ => None,
            };
            let late = "no answer to the TLS handshake in time: the destination may not speak TLS";
            within(session, (connection, uri, role), limit, late, || {
                secure.secure(connection, host)
            })?;
        }
        if let Some((token, migration)) = &self.token {
            let introduction = Introduction { migration: *migration, role };
            let late = "no answer to the token's hello in time: the destination may have no token";
            let left = limit.saturating_sub(began.elapsed());
            let introduce = || token.introduce(connection, introduction);
            within(session, (connection, uri, role), left, late, introduce)?;
        }
        Ok(())
    }
}

/// Does something with a connection, which is shut down when `limit` is over: its error is `late` then.
fn within<S: Send + 'static>(
    session: &Session<S>,
    (connection, uri, role): (&Connection, &Uri, Role),
    limit: Duration,
    late: &'static str,
    action: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Failure> {
    let mut cut = session.watch().cut_off(connection, limit, Shutdown::Both);
    let done = action();
    let is_late = cut.stop();
    if is_late || done.is_err() {
        // What has been shut down says nothing of why.
        session.check()?;
    }
    if is_late {
        let source = io::Error::new(io::ErrorKind::TimedOut, late);
        return Err(Error::Connect { channel: role.number(), uri: uri.clone(), source }.into());
    }
    Ok(done.map_err(|error| error.of_channel(role.number()))?)
}

impl From<Way> for Outgoing {
    fn from(way: Way) -> Self {
        Self { way, secure: None, token: None }
    }
}

impl From<Uri> for Outgoing {
    fn from(uri: Uri) -> Self {
        Way::Connect(uri).into()
    }
}

impl From<&Uri> for Outgoing {
    fn from(uri: &Uri) -> Self {
        uri.clone().into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::engine::session::Terms;

    fn pair() -> (Connection, UnixStream) {
        let (left, right) = UnixStream::pair().unwrap();
        (Connection::from_socket(left).unwrap(), right)
    }

    #[test]
    fn connections_that_are_there_end_with_the_migration_even_unused() {
        let ((main, main_peer), (channel, channel_peer)) = (pair(), pair());
        let outgoing = Outgoing::over(main, [channel]);
        let session = Session::new((), &Terms::default()).unwrap();
        outgoing.register(&session);
        for mut peer in [&main_peer, &channel_peer] {
            peer.set_nonblocking(true).unwrap();
            peer.read(&mut [0]).unwrap_err();
        }
        session.end();
        for mut peer in [&main_peer, &channel_peer] {
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn there_are_as_many_channels_as_given_or_else_as_asked_and_never_none() {
        let over = |channels: usize| Outgoing::over(pair().0, (0..channels).map(|_| pair().0));
        let connect = Outgoing::from(Uri::Unnamed);
        assert_eq!(over(2).count(7).unwrap(), 2);
        assert_eq!(connect.count(7).unwrap(), 7);
        for (outgoing, asked) in [(over(0), 7), (connect, 0)] {
            assert!(matches!(outgoing.count(asked), Err(Error::ChannelCount(0))));
        }
    }
}
