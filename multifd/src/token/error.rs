//! What can go wrong with a token.

use std::io;
use std::path::PathBuf;

use multifd_core::Foreign;
use multifd_core::channel::MAIN_MAGIC;
use multifd_core::wire::MAGIC;

use super::{LEAST, MOST};
use crate::private_file::Unreadable;

/// Why a token cannot be used.
///
/// Its text does not repeat its [`source`](std::error::Error::source): print the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// There is no such file.
    #[error("there is no token in {}: copy the other side's there, or {}", path.display(), make(path))]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the token {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// Every user of this machine can read the file.
    #[error(
        "every user of this machine can get at the token {} (mode {mode:04o}): chmod o= {}",
        path.display(),
        path.display()
    )]
    Public {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file has too few bytes, or too many, for a secret.
    #[error(
        "the token {} has {}, and {LEAST} to {MOST} bytes are wanted: copy the other side's, or {}",
        path.display(),
        count(*bytes),
        make(path)
    )]
    FileLength {
        /// The file.
        path: PathBuf,
        /// Its bytes, without a line's end behind them.
        bytes: usize,
    },
    /// Too few bytes, or too many, for a secret.
    #[error("a token has {LEAST} to {MOST} bytes, and not {0}")]
    Length(usize),
}

impl SetupError {
    pub(super) fn unreadable(path: PathBuf, why: Unreadable) -> Self {
        match why {
            Unreadable::Missing => Self::Missing { path },
            Unreadable::Public { mode } => Self::Public { path, mode },
            Unreadable::Io(source) => Self::Read { path, source },
        }
    }
}

fn make(path: &std::path::Path) -> String {
    format!("make one: (umask 077; head -c 32 /dev/urandom | base64 >{})", path.display())
}

fn count(bytes: usize) -> String {
    match bytes {
        _ if bytes > MOST => "more".to_owned(),
        1 => "1 byte".to_owned(),
        _ => format!("{bytes} bytes"),
    }
}

/// Why a peer is not known to have the token.
///
/// Its text does not repeat its [`source`](std::error::Error::source): print the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The peer's token is another one.
    #[error(
        "its token is another one: give both sides the same file (--token-file; a relay has one for each \
         side); or, where they have TLS, something between them ends it and begins it anew"
    )]
    Mismatch,
    /// The peer has said something else than a hello.
    #[error("what it says starts with {first:02x?}: {}", instead(*first))]
    NotAHello {
        /// Its first bytes.
        first: [u8; 4],
    },
    /// The peer has closed the connection in place of an answer.
    #[error(
        "it closed the connection in place of an answer: it has no token (give it the same file by \
         --token-file, or leave it off here; a QEMU has none), or refuses this side; its own messages say why"
    )]
    NoAnswer,
    /// The peer has closed the connection within the hello.
    #[error("it closed the connection within the token's hello: its own messages say why")]
    Closed,
    /// The peer speaks another version of the hello.
    #[error(
        "it speaks version {found} of the token's hello, and this side version {own}: use the same \
         version of multifd on both sides"
    )]
    Version {
        /// The peer's version.
        found: u8,
        /// This side's version.
        own: u8,
    },
    /// One side has TLS, and the other has not.
    #[error(
        "one of the two sides has TLS on this connection, and the other has not, so that something \
         between them ends it: a token wants the same TLS from end to end"
    )]
    OneSidedTls,
    /// The connection has TLS 1.2, to which nothing can be bound for certain.
    #[error("a token needs TLS 1.3, and this connection has TLS 1.2: allow TLS 1.3 on both sides")]
    OldTls,
    /// The hello is malformed.
    #[error(
        "its token's hello is malformed: a fault of its program, or of the network, or somebody has \
         changed it on its way"
    )]
    Malformed,
    /// The connection failed.
    #[error("the connection failed within the token's hello")]
    Io(#[source] io::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

impl TokenError {
    /// Whether nothing has been said: by a port scanner, or by a health check.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::NoAnswer)
    }

    /// Whether a peer that goes away looks like this from here.
    pub(crate) fn is_disconnect(&self) -> bool {
        matches!(self, Self::NoAnswer | Self::Closed)
    }
}

/// What is not a hello, and what to do.
fn instead(first: [u8; 4]) -> String {
    if first == MAIN_MAGIC || first == MAGIC.to_be_bytes() {
        return "it is a migration without a token: give its source the same file as here (--token-file), or \
                leave it off here; a QEMU has none"
            .to_owned();
    }
    // The alert of a side with TLS.
    if first[..2] == [0x15, 3] {
        return "it speaks TLS: turn TLS on here, too (--tls-creds), or off there".to_owned();
    }
    match Foreign::of(first) {
        Some(foreign) => foreign.to_string(),
        None => "it is not a migration by multifd".to_owned(),
    }
}
