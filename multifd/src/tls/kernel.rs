//! TLS that the kernel does, once rustls has shaken hands.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::KeyLog;
use zeroize::Zeroizing;

/// Who encrypts what is sent, and decrypts what is received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelTls {
    /// This library, by rustls.
    #[default]
    Off,
    /// The kernel, where it can: pages then go straight from and into guest memory as without TLS. Certificates
    /// and keys are still agreed on by rustls. Where the kernel has no TLS (the module `tls`), does not know the cipher,
    /// or the socket is not of TCP, this library does it as with [`Off`](Self::Off), and a warning says why, once.
    IfPossible,
}

/// What one side's configuration says of [`KernelTls`].
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    kernel: KernelTls,
    has_said: Arc<AtomicBool>,
}

impl Wish {
    pub(super) fn new(kernel: KernelTls) -> Self {
        Self { kernel, has_said: Arc::default() }
    }

    /// What a connection needs that the kernel is to take over, if it is. `log` is who is told of its secrets so far.
    pub(super) fn handover(&self, end: End, log: &Arc<dyn KeyLog>) -> Option<Handover> {
        (self.kernel == KernelTls::IfPossible)
            .then(|| Handover { has_said: Arc::clone(&self.has_said), ..Handover::of(end, log) })
    }
}

/// Which side of the session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

/// What it takes to have the kernel take a connection over.
#[derive(Debug)]
pub(crate) struct Handover {
    end: End,
    traffic: Arc<Traffic>,
    has_said: Arc<AtomicBool>,
}

impl Handover {
    pub(crate) fn of(end: End, log: &Arc<dyn KeyLog>) -> Self {
        let traffic = Traffic { secrets: Mutex::default(), log: Arc::clone(log) };
        Self { end, traffic: Arc::new(traffic), has_said: Arc::default() }
    }

    /// Who has to be told of the session's secrets.
    pub(crate) fn key_log(&self) -> Arc<dyn KeyLog> {
        Arc::clone(&self.traffic) as _
    }

    /// TLS 1.3's secrets of what is sent and of what is received.
    pub(crate) fn secrets(&self) -> Option<[Secret; 2]> {
        let [client, server] =
            &*self.traffic.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let (client, server) = (client.clone()?, server.clone()?);
        Some(match self.end {
            End::Client => [client, server],
            End::Server => [server, client],
        })
    }

    /// Says, once for all connections of a side, why the kernel does not do it.
    pub(crate) fn fall_back(&self, why: &str) {
        if !self.has_said.swap(true, Ordering::Relaxed) {
            tracing::warn!("TLS is not done by the kernel, but by this program: {why}");
        }
    }
}

/// A traffic secret, of which keys are derived and the next secret.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

/// The client's and the server's secret of one session. rustls gives keys out, but not what the next ones are
/// derived of.
struct Traffic {
    secrets: Mutex<[Option<Secret>; 2]>,
    log: Arc<dyn KeyLog>,
}

/// As rustls calls them.
const LABELS: [&str; 2] = ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"];

impl KeyLog for Traffic {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if let Some(index) = LABELS.iter().position(|known| *known == label) {
            let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
            secrets[index] = Some(Zeroizing::new(secret.to_vec()));
        }
        if self.log.will_log(label) {
            self.log.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        LABELS.contains(&label) || self.log.will_log(label)
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traffic")
    }
}
