//! A token: a secret that both sides of a migration have, and by which every connection proves that it is
//! of it.
//!
//! Before anything of a migration is said on a connection, inside of TLS where there is TLS, the side that
//! connects says by a *hello* which attempt it is of and which channel, and both sides prove that they have
//! the token. So somebody who can connect, and who may have a certificate, but not the token can neither
//! take a channel's place nor end a migration, and no connection of one attempt gets into another.
//!
//! Both sides are this library's: a QEMU has no token. Without TLS the token says who connects, not that
//! what follows is read and written by nobody else: somebody on the way can still change it. docs/token.md
//! in the repository has the format of the hello and what it protects from.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let token = multifd::token::Token::from_file("/etc/multifd/token")?;
//! let registry = multifd::registry()?;
//! let destination = multifd::Destination::builder(&registry).token(token);
//! # Ok(())
//! # }
//! ```

mod error;
mod hello;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

pub use error::{SetupError, TokenError};

use crate::error::Error;
use crate::private_file;
use crate::transport::{Connection, Introduce, Introduction, MigrationId, Role, name_of};
use hello::{Connecting, Listening, Next, Wrong};

/// The fewest bytes of a secret.
const LEAST: usize = 32;
/// The most bytes of a secret.
const MOST: usize = 4096;

/// A secret that both sides of a migration have. The memory that holds it is wiped when the last clone is
/// dropped; what a proof's computation leaves on the stack is not.
#[derive(Clone)]
pub struct Token(Arc<Zeroizing<Vec<u8>>>);

impl Token {
    /// Reads the file at `path`: 32 to 4096 bytes of any values, without one line's end (`\n` or `\r\n`)
    /// behind them. `(umask 077; head -c 32 /dev/urandom | base64 >token)` makes one.
    ///
    /// # Errors
    /// A file that cannot be read, that every user of the machine can get at, that has fewer or more
    /// bytes.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SetupError> {
        let path = path.as_ref();
        // With its whole room from the start: a buffer that grows leaves copies behind.
        let most = MOST + 3;
        let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
        private_file::read(path, most as u64, &mut bytes)
            .map_err(|why| SetupError::unreadable(path.to_owned(), why))?;
        let secret = bytes.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        Self::new(secret.unwrap_or(&bytes)).map_err(|error| match error {
            SetupError::Length(bytes) => SetupError::FileLength { path: path.to_owned(), bytes },
            error => error,
        })
    }

    /// A token of these 32 to 4096 bytes, which nobody else may be able to guess: no password.
    ///
    /// # Errors
    /// Fewer or more bytes.
    pub fn new(secret: &[u8]) -> Result<Self, SetupError> {
        match secret.len() {
            LEAST..=MOST => Ok(Self(Arc::new(Zeroizing::new(secret.to_vec())))),
            bytes => Err(SetupError::Length(bytes)),
        }
    }

    #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
    fn mac(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes keys of every length")
    }

    fn connect(
        &self,
        connection: &Connection,
        introduction: Introduction,
    ) -> Result<(), TokenError> {
        let mut hello = Connecting::new(self, introduction, random()?, connection.binding())?;
        say(connection, hello.request())?;
        let mut buffer = [0; hello::ANSWER];
        let mut came = 0;
        loop {
            let room = &mut buffer[..hello.wanted()];
            let count = hear(connection, room)?;
            if count == 0 {
                // Of a channel's main channel the destination has had the token.
                let silent = came == 0 && introduction.role == Role::Main;
                return Err(if silent { TokenError::NoAnswer } else { TokenError::Closed });
            }
            came += count;
            match hello.take(&room[..count]) {
                Ok(None) => {}
                Ok(Some(reply)) => return say(connection, &reply),
                Err(wrong) => {
                    // It may be gone.
                    _ = say(connection, &wrong.say);
                    return Err(wrong.error);
                }
            }
        }
    }

    fn listen(&self, connection: &Connection) -> Result<Introduction, TokenError> {
        let mut hello = Listening::new(self, random()?, connection.binding())?;
        let mut buffer = [0; hello::REQUEST];
        loop {
            let room = &mut buffer[..hello.wanted()];
            let count = hear(connection, room)?;
            if count == 0 {
                return Err(match hello.is_empty() {
                    true => TokenError::NoAnswer,
                    false => TokenError::Closed,
                });
            }
            match hello.take(&room[..count]) {
                Ok(Next::Read) => {}
                Ok(Next::Answer(answer)) => say(connection, &answer)?,
                Ok(Next::Met(introduction)) => return Ok(introduction),
                Err(wrong) => return Err(refuse(connection, wrong)),
            }
        }
    }
}

impl Introduce for Token {
    fn new_migration(&self) -> Result<MigrationId, Error> {
        let failed = |error: getrandom::Error| io::Error::other(error.to_string());
        let random = random().map_err(failed).map_err(Error::system("getting random bytes"))?;
        Ok(MigrationId(random))
    }

    fn introduce(&self, connection: &Connection, introduction: Introduction) -> Result<(), Error> {
        let peer = name_of("the destination", connection);
        self.connect(connection, introduction).map_err(|source| failed(peer, source))
    }

    fn meet(&self, connection: &Connection) -> Result<Introduction, Error> {
        let peer = name_of("the source", connection);
        self.listen(connection).map_err(|source| failed(peer, source))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

/// How long a source without a token may take to hear that one is wanted.
const LINGER: Duration = Duration::from_secs(2);

/// Says to the side that connects why its hello has failed, and that nothing more comes.
fn refuse(connection: &Connection, Wrong { error, say: why }: Wrong) -> TokenError {
    // It may be gone.
    if !why.is_empty() && say(connection, &why).is_ok() {
        connection.shut_down(Shutdown::Write);
        linger(connection);
    }
    error
}

/// Has what was said last be heard: what is unread when a socket is closed may take it along.
fn linger(connection: &Connection) {
    let began = Instant::now();
    let mut unread = [0; 4096];
    while let Some(left) = LINGER.checked_sub(began.elapsed()) {
        if !matches!(connection.wait_readable_for(Some(left)), Ok(true)) {
            return;
        }
        match connection.read_now(&mut unread) {
            Ok(Some(1..)) => {}
            _ => return,
        }
    }
}

fn say(connection: &Connection, bytes: &[u8]) -> Result<(), TokenError> {
    let mut stream = connection.clone();
    stream.write_all(bytes).and_then(|()| stream.flush()).map_err(broken)
}

/// Reads what has come; nothing at the end.
fn hear(connection: &Connection, room: &mut [u8]) -> Result<usize, TokenError> {
    let mut stream = connection.clone();
    loop {
        match stream.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A peer that closes with bytes unread resets the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
            read => return read.map_err(broken),
        }
    }
}

fn broken(error: io::Error) -> TokenError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => TokenError::Closed,
        _ => TokenError::Io(error),
    }
}

/// TLS 1.3 has a server look at a client's certificate when that has said something already: why it is
/// refused then, TLS says.
#[cfg_attr(not(feature = "tls"), allow(clippy::needless_pass_by_value, reason = "as with it"))]
fn failed(peer: String, source: TokenError) -> Error {
    #[cfg(feature = "tls")]
    {
        let TokenError::Io(error) = source else { return Error::Token { peer, source } };
        match error.downcast::<crate::tls::TlsError>() {
            Ok(source) => Error::Tls { peer, source },
            Err(error) => Error::Token { peer, source: TokenError::Io(error) },
        }
    }
    #[cfg(not(feature = "tls"))]
    {
        Error::Token { peer, source }
    }
}

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

impl From<getrandom::Error> for TokenError {
    fn from(error: getrandom::Error) -> Self {
        Self::Random(error.to_string())
    }
}
