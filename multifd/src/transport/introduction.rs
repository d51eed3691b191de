//! How a connection says which migration it is of, and proves it.

use std::fmt;

use super::Connection;
use crate::error::Error;

/// What a connection says that it is, before anything of the migration is said on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub(crate) migration: MigrationId,
    pub(crate) role: Role,
}

/// One attempt to migrate. Each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MigrationId(pub(crate) [u8; 16]);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "token"), allow(dead_code, reason = "only a token says it"))]
pub(crate) enum Role {
    Main,
    /// The multifd channel with this number.
    Channel(u8),
}

/// Has the two sides of a connection prove to each other that they are of one migration. That ends when
/// the connection is shut down: whoever limits its time does that.
pub(crate) trait Introduce: fmt::Debug + Send + Sync {
    /// The identifier of a new attempt.
    fn new_migration(&self) -> Result<MigrationId, Error>;

    /// As the side that connects: says what the connection is, and wants a proof.
    fn introduce(&self, connection: &Connection, introduction: Introduction) -> Result<(), Error>;

    /// As the side that listens: hears what the connection is, and wants a proof of it.
    fn meet(&self, connection: &Connection) -> Result<Introduction, Error>;
}

/// What a proof is bound to, so that it holds on one connection alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "token"), allow(dead_code, reason = "only a token asks for it"))]
pub(crate) enum Binding {
    /// A connection without TLS of this library's.
    Plain,
    /// TLS 1.3: what the session exports for this, `tls-exporter` of RFC 9266.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "there is no TLS"))]
    Tls([u8; 32]),
    /// TLS whose sessions cannot be told apart for certain.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "there is no TLS"))]
    OldTls,
}

impl Role {
    /// The channel's number, if it is one.
    pub(crate) fn number(self) -> Option<u8> {
        match self {
            Self::Main => None,
            Self::Channel(number) => Some(number),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main => f.write_str("the main channel"),
            Self::Channel(number) => write!(f, "channel {number}"),
        }
    }
}
