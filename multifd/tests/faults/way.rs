//! The ways between a source and a destination, and the codecs on them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::LazyLock;

use multifd::Uri;
use multifd::core::{Compression, Registry};
use multifd::tls::{ClientTls, ServerTls};

use crate::authority::Authority;
use crate::common::any_port;

/// How the two sides are connected; the line is between them, or between one and the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    Tcp,
    Unix,
    Tls,
    /// Source, line, relay, destination.
    BeforeRelay,
    /// Source, relay, line, destination.
    BehindRelay,
    /// As before a relay, with TLS on both of its sides.
    TlsRelay,
}

impl Way {
    pub(crate) const ALL: [Self; 6] =
        [Self::Tcp, Self::Unix, Self::Tls, Self::BeforeRelay, Self::BehindRelay, Self::TlsRelay];

    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Tls => "tls",
            Self::BeforeRelay => "before-relay",
            Self::BehindRelay => "behind-relay",
            Self::TlsRelay => "tls-relay",
        }
    }

    pub(crate) fn has_relay(self) -> bool {
        matches!(self, Self::BeforeRelay | Self::BehindRelay | Self::TlsRelay)
    }

    pub(crate) fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::TlsRelay)
    }

    /// Where a side listens.
    pub(crate) fn listen(self, folder: &Path, name: &str) -> Uri {
        if self == Self::Unix { Uri::Unix(folder.join(name)) } else { any_port() }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Way {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|way| way.name() == text).ok_or(())
    }
}

/// The bundled codecs.
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(crate::common::registry);
    &REGISTRY
}

/// The codecs that migrations are made with. QPL works by its own encoder where there is neither a
/// device nor libqpl.
pub(crate) const CODECS: [Compression; 4] =
    [Compression::None, Compression::Zlib, Compression::Zstd, Compression::Qpl];

/// Both sides' certificates.
pub(crate) fn tls() -> &'static (ClientTls, ServerTls) {
    static TLS: LazyLock<(ClientTls, ServerTls)> = LazyLock::new(|| {
        let folder = Authority::new().folder();
        (folder.client(), folder.server())
    });
    &TLS
}
