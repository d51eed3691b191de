//! What can go wrong with TLS.

use std::fmt;
use std::io;
use std::path::PathBuf;

use multifd_core::Foreign;
use multifd_core::channel::MAIN_MAGIC;
use multifd_core::wire::MAGIC;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};
use x509_cert::der::DateTime;

/// Why certificates and keys cannot be used.
///
/// Its text does not repeat its [`source`](std::error::Error::source): print the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A file is not there.
    #[error(
        "there is no {}: a folder for TLS has ca-cert.pem, server-cert.pem and server-key.pem on the \
         side that listens, ca-cert.pem, client-cert.pem and client-key.pem on the side that connects \
         (multifd tls-init makes them)",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// What is in a file, or in a folder, is not as it must be.
    #[error("{} cannot be used for TLS", path.display())]
    Malformed {
        /// The file or the folder.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Every user of this machine can read a private key.
    #[error(
        "every user of this machine can get at the private key {} (mode {mode:04o}): chmod o= {}",
        path.display(),
        path.display()
    )]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A key and a certificate that do not belong together.
    #[error(
        "the private key {} is not that of the certificate {}: take both from one issue",
        key.display(),
        certificate.display()
    )]
    KeyMismatch {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// A server's name that is none.
    #[error("'{name}' is neither a DNS name nor an IP address, which a certificate could be for")]
    Name {
        /// What was given.
        name: String,
    },
}

/// Why there is no TLS with a peer, or no more.
///
/// Its text does not repeat its [`source`](std::error::Error::source): print the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer's certificate is of a CA that is not known here.
    #[error(
        "its certificate is not of a CA in ca-cert.pem here: have both sides' certificates of one CA, or \
         add the other's to ca-cert.pem"
    )]
    UnknownCa,
    /// The server's certificate is for other names.
    #[error(
        "its certificate is {}, not for {expected}: give the right one by --tls-hostname, or have \
             the certificate issued for {expected}",
        names_of(presented)
    )]
    WrongName {
        /// The name that was asked for.
        expected: String,
        /// The names in the certificate's subjectAltName; none where it has none.
        presented: Vec<String>,
    },
    /// The peer's certificate is not valid any more.
    #[error("its certificate expired{}: renew it, or set the clock here", at(*since))]
    Expired {
        /// When, in seconds since 1970, where that is known.
        since: Option<u64>,
    },
    /// The peer's certificate is not valid yet.
    #[error("its certificate is not valid yet{}: set the clock, here or where it was issued", at(*until))]
    NotYetValid {
        /// From when on, in seconds since 1970, where that is known.
        until: Option<u64>,
    },
    /// The CA has revoked the peer's certificate.
    #[error("its certificate is revoked (ca-crl.pem): have a new one issued")]
    Revoked,
    /// What the CA says is revoked is out of date.
    #[error("ca-crl.pem is out of date: get the CA's latest, or remove it")]
    OldRevocations,
    /// The client's certificate has no name that is allowed.
    #[error("it is not allowed: none of its names ({}) is on the allow-list (--tls-allow)", names.join("; "))]
    NotAllowed {
        /// Its names.
        names: Vec<String>,
    },
    /// The client has no certificate.
    #[error(
        "it has no client certificate of a CA in ca-cert.pem here: give it client-cert.pem and \
         client-key.pem of that CA, or let every client in (--tls-no-client-cert)"
    )]
    NoCertificate,
    /// The peer's certificate is wrong in another way.
    #[error("its certificate cannot be accepted: issue another")]
    Certificate(#[source] rustls::Error),
    /// The peer refuses this side.
    #[error("the other side refuses this one: {}", alert(*description))]
    Refused {
        /// The number of TLS's alert.
        description: u8,
    },
    /// The peer does not speak TLS.
    #[error("it does not speak TLS ({}): {}", starts(*first), plain(*first))]
    NotTls {
        /// Its first bytes.
        first: [u8; 4],
    },
    /// The peer has closed the connection in place of an answer.
    #[error(
        "it closed the connection in place of an answer: it does not speak TLS, or refuses this side; its \
         own messages say why"
    )]
    NoAnswer,
    /// The peer has closed the connection during the handshake.
    #[error("it closed the connection during the handshake: its own messages say why")]
    Closed,
    /// The connection has ended within a record.
    #[error("the connection was cut off: it ended within a TLS record")]
    CutOff,
    /// Nothing says which name the server's certificate must be for.
    #[error(
        "an address of this kind has no name that a certificate could be for: say the name of the \
         server's (--tls-hostname)"
    )]
    NoName,
    /// The connection is a stream of the caller's own, or has TLS already.
    #[error("only a socket can be encrypted, once")]
    NotASocket,
    /// The kernel was to encrypt and decrypt, and does not.
    #[error("the kernel cannot do this connection's TLS ({what}): do without it (--tls-kernel)")]
    Kernel {
        /// What it has refused.
        what: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The connection failed.
    #[error("the connection failed during the handshake")]
    Io(#[source] io::Error),
    /// Something else of TLS.
    #[error("TLS failed")]
    Protocol(#[source] rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};

        match error {
            InvalidCertificate(cause) => Self::certificate(cause),
            NoCertificatesPresented => Self::NoCertificate,
            AlertReceived(description) => Self::Refused { description: description.into() },
            error => Self::Protocol(error),
        }
    }
}

impl TlsError {
    fn certificate(error: CertificateError) -> Self {
        use CertificateError::{
            BadSignature, Expired, ExpiredContext, ExpiredRevocationList,
            ExpiredRevocationListContext, NotValidForNameContext, NotValidYet, NotValidYetContext,
            Other, Revoked, UnknownIssuer,
        };

        match error {
            // Of a CA of the same name, in the latter case.
            UnknownIssuer | BadSignature => Self::UnknownCa,
            NotValidForNameContext { expected, presented } => {
                let presented = presented.iter().map(|name| bare(name).to_owned()).collect();
                Self::WrongName { expected: expected.to_str().into_owned(), presented }
            }
            Expired => Self::Expired { since: None },
            ExpiredContext { not_after, .. } => Self::Expired { since: Some(not_after.as_secs()) },
            NotValidYet => Self::NotYetValid { until: None },
            NotValidYetContext { not_before, .. } => {
                Self::NotYetValid { until: Some(not_before.as_secs()) }
            }
            Revoked => Self::Revoked,
            ExpiredRevocationList | ExpiredRevocationListContext { .. } => Self::OldRevocations,
            Other(ref other) => match other.0.downcast_ref::<NotAllowed>() {
                Some(NotAllowed { names }) => Self::NotAllowed { names: names.clone() },
                None => Self::Certificate(error.into()),
            },
            error => Self::Certificate(error.into()),
        }
    }

    /// Whether the peer has refused this side for its certificate, before it took anything from it.
    pub(crate) fn is_refusal(&self) -> bool {
        let Self::Refused { description } = self else { return false };
        matches!(
            AlertDescription::from(*description),
            AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::CertificateRequired
                // Of a certificate whose signature is another CA's.
                | AlertDescription::DecryptError
        )
    }

    /// Whether nothing has been said: by a port scanner, or by a health check.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::NoAnswer)
    }
}

/// A client with none of the names that are allowed, on its way through rustls.
#[derive(Debug)]
pub(super) struct NotAllowed {
    pub(super) names: Vec<String>,
}

impl std::error::Error for NotAllowed {}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none of its names is allowed")
    }
}

/// A name of a certificate as rustls puts it, such as `DnsName("host")`, as it is.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn names_of(presented: &[String]) -> String {
    match presented {
        [] => "without a subjectAltName, which alone says whom it is for".to_owned(),
        names => format!("for {}", names.join(", ")),
    }
}

fn at(seconds: Option<u64>) -> String {
    let time =
        seconds.map(|seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)));
    let time = time.and_then(|time| {
        DateTime::from_unix_duration(std::time::Duration::from_secs(time.as_secs())).ok()
    });
    time.map(|time| format!(" ({time})")).unwrap_or_default()
}

/// What an alert comes to, for whom it was said to.
fn alert(description: u8) -> String {
    let description = AlertDescription::from(description);
    let why = match description {
        // The latter of a CA of the same name.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it does not know the CA of this side's certificate: have both sides' certificates of one CA"
        }
        AlertDescription::CertificateRequired => {
            "it wants a client certificate of a CA that it knows: give client-cert.pem and client-key.pem here"
        }
        AlertDescription::CertificateExpired => {
            "this side's certificate has expired, or is not valid yet"
        }
        AlertDescription::CertificateRevoked => "this side's certificate is revoked",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => {
            "it does not accept this side's certificate, or has an allow-list without its name: its own \
             messages say why"
        }
        AlertDescription::ProtocolVersion => "it speaks neither TLS 1.2 nor TLS 1.3",
        AlertDescription::HandshakeFailure => {
            "it wants a client certificate, or both have no cipher in common: its own messages say why"
        }
        _ => "its own messages say why",
    };
    format!("{why} (alert {description:?})")
}

fn starts(first: [u8; 4]) -> String {
    format!("what it says starts with {first:02x?}")
}

/// What speaks no TLS, and what to do.
fn plain(first: [u8; 4]) -> String {
    if first == MAIN_MAGIC || first == MAGIC.to_be_bytes() {
        return "it is a migration without TLS: turn TLS on there (QEMU's parameter tls-creds, multifd's \
                --tls-creds), or off here"
            .to_owned();
    }
    match Foreign::of(first) {
        Some(Foreign::Token) => {
            "it is a migration with a token and without TLS: turn TLS on there (--tls-creds), \
                                 or off here"
                .to_owned()
        }
        Some(foreign) => foreign.to_string(),
        None => "turn TLS on there, or off here".to_owned(),
    }
}
