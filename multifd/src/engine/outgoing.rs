//! Where a migration goes.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::session::{Failure, Session};
use crate::error::Error;
use crate::transport::{Attempt, Connection, Secure, Uri, connect};

/// Where a migration goes: an address that is connected to, or connections that are there already.
#[derive(Clone, Debug)]
pub struct Outgoing {
    way: Way,
    /// Encrypts each connection.
    secure: Option<Arc<dyn Secure>>,
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

    /// The number of channels: those that are given, or else `asked`.
    pub(crate) fn count(&self, asked: u8) -> Result<u8, Error> {
        let channels = match &self.way {
            Way::Connect(_) => asked.into(),
            Way::Given { channels, .. } => channels.len(),
        };
        let count = u8::try_from(channels).map_err(|_| Error::ChannelCount(channels))?;
        if count == 0 { Err(Error::ChannelCount(0)) } else { Ok(count) }
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
            Way::Connect(uri) => self.made(None, session, uri, limit),
            Way::Given { main, .. } => self.given(None, session, main, limit),
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
        match &self.way {
            Way::Connect(uri) => self.made(Some(number), session, uri, limit),
            Way::Given { channels, .. } => {
                self.given(Some(number), session, &channels[usize::from(number)], limit)
            }
        }
    }

    fn made<S: Send + 'static>(
        &self,
        channel: Option<u8>,
        session: &Session<S>,
        uri: &Uri,
        limit: Duration,
    ) -> Result<Connection, Failure> {
        let began = Instant::now();
        match connect(uri, limit, session.stop_event()) {
            Ok(Attempt::Connected(connection)) => {
                tracing::debug!(to = %uri, "connected");
                session.register(&connection, Shutdown::Both);
                let left = limit.saturating_sub(began.elapsed());
                self.secure(channel, session, &connection, uri, left)?;
                Ok(connection)
            }
            Ok(Attempt::Stopped) => Err(Failure::Stopped),
            Err(source) => Err(Error::Connect { channel, uri: uri.clone(), source }.into()),
        }
    }

    fn given<S: Send + 'static>(
        &self,
        channel: Option<u8>,
        session: &Session<S>,
        connection: &Connection,
        limit: Duration,
    ) -> Result<Connection, Failure> {
        self.secure(channel, session, connection, &Uri::Unnamed, limit)?;
        Ok(connection.clone())
    }

    /// Encrypts a connection to `uri`, if that is asked for.
    fn secure<S: Send + 'static>(
        &self,
        channel: Option<u8>,
        session: &Session<S>,
        connection: &Connection,
        uri: &Uri,
        limit: Duration,
    ) -> Result<(), Failure> {
        let Some(secure) = &self.secure else { return Ok(()) };
        let host = match uri {
            Uri::Tcp { host, .. } => Some(host.as_str()),
            _ => None,
        };
        let mut cut = session.watch().cut_off(connection, limit, Shutdown::Both);
        let secured = secure.secure(connection, host);
        let late = cut.stop();
        if late || secured.is_err() {
            // What has been shut down says nothing of why.
            session.check()?;
        }
        if late {
            let why = "no answer to the TLS handshake in time: the destination may not speak TLS";
            let source = io::Error::new(io::ErrorKind::TimedOut, why);
            return Err(Error::Connect { channel, uri: uri.clone(), source }.into());
        }
        Ok(secured.map_err(|error| error.of_channel(channel))?)
    }
}

impl From<Way> for Outgoing {
    fn from(way: Way) -> Self {
        Self { way, secure: None }
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
