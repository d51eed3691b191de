//! The token of a migration, on the sides that connect and on those that listen.

use std::path::{Path, PathBuf};

use multifd::token::Token;

use crate::failure::{Failure, chain};

/// The token of a command with one side.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of the token")]
pub(crate) struct TokenFile {
    /// Have each connection prove that it is of this migration, by the secret in this file, the same on both
    /// sides (32 bytes or more; a QEMU has none)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The tokens of both sides of a relay.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of the token")]
pub(crate) struct BothTokenFiles {
    /// Have each connection from the source prove that it is of this migration, by the secret in this file,
    /// the same as the source's (32 bytes or more; a QEMU has none)
    #[arg(long, value_name = "FILE")]
    from_token_file: Option<PathBuf>,
    /// Prove on each connection to the destination that it is of this migration, by the secret in this file,
    /// the same as the destination's
    #[arg(long, value_name = "FILE")]
    to_token_file: Option<PathBuf>,
}

impl TokenFile {
    /// The token, if there is one.
    pub(crate) fn token(&self) -> Result<Option<Token>, Failure> {
        self.token_file.as_deref().map(token).transpose()
    }
}

impl BothTokenFiles {
    /// The token of the source, if there is one.
    pub(crate) fn from(&self) -> Result<Option<Token>, Failure> {
        self.from_token_file.as_deref().map(token).transpose()
    }

    /// The token of the destination, if there is one.
    pub(crate) fn to(&self) -> Result<Option<Token>, Failure> {
        self.to_token_file.as_deref().map(token).transpose()
    }
}

fn token(path: &Path) -> Result<Token, Failure> {
    Token::from_file(path).map_err(|error| Failure::new(chain(&error)))
}
