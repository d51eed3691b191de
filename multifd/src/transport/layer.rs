//! What may be between a connection and its socket: encryption.

use std::fmt;
use std::io;
use std::sync::atomic::AtomicU64;

use socket2::Socket;

use multifd_core::channel::Parts;
use multifd_core::ram::GuestSlices;

use super::{Connection, Unsaid};
use crate::error::Error;

/// Has connections encrypted, before anything else is said on them.
pub(crate) trait Secure: fmt::Debug + Send + Sync {
    /// Does so, within the connection's own time: whoever limits that shuts the connection down. `host`
    /// is the name that it was connected by.
    fn secure(&self, connection: &Connection, host: Option<&str>) -> Result<(), Error>;
}

/// What is between a connection and its socket. One thread reads and another one writes at the same
/// time, and neither holds the other up.
pub(super) trait Layer: fmt::Debug + Send + Sync {
    /// Reads at least one byte, however long that takes; 0 at the end.
    fn read(&self, line: Line<'_>, room: &mut [u8]) -> io::Result<usize>;

    /// As [`read`](Self::read), what is there now; `None` where nothing is.
    fn read_now(&self, line: Line<'_>, room: &mut [u8]) -> io::Result<Option<usize>>;

    /// What there is to be read, without taking it.
    fn look(&self, line: Line<'_>) -> io::Result<Now>;

    /// Whether nothing that has been received is there to be read; `in_the_middle` says what it is where a part of
    /// a record is there, or somebody reads just now.
    fn is_quiet(&self, line: Line<'_>, in_the_middle: bool) -> bool;

    /// Writes some of `bytes` bytes, however long that takes. `gather` puts the first of them into the
    /// room that it is given, and says how many.
    fn write(
        &self,
        line: Line<'_>,
        bytes: usize,
        gather: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> io::Result<usize>;

    /// Writes all of `message` now.
    fn say(&self, line: Line<'_>, message: &[u8]) -> Result<(), Unsaid>;

    /// Says, behind everything that was written, that nothing more comes.
    fn close(&self, line: Line<'_>, patience: Patience);

    /// What a proof on this connection can be bound to.
    #[cfg(feature = "token")]
    fn binding(&self) -> super::introduction::Binding;

    /// The connection is about to be closed.
    fn end(&self, line: Line<'_>);

    /// How pages go past it, if they can.
    fn direct(&self) -> Option<&dyn Direct> {
        None
    }
}

/// A layer that is in the kernel: guest memory is read and written there, without a copy.
pub(super) trait Direct {
    /// As [`Layer::write`].
    fn send(&self, line: Line<'_>, parts: Parts<'_>) -> io::Result<usize>;

    /// As [`Layer::read`].
    fn receive_guest(&self, line: Line<'_>, room: GuestSlices<'_>) -> io::Result<usize>;
}

/// Whether `error` is that of a destination that has refused a connection before it took anything from
/// it. TLS 1.3 has the client write before the server has looked at its certificate. Such a destination
/// cannot have the guest, however much was written.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    #[cfg(feature = "tls")]
    {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<crate::tls::TlsError>());
        cause.is_some_and(crate::tls::TlsError::is_refusal)
    }
    #[cfg(not(feature = "tls"))]
    {
        _ = error;
        false
    }
}

/// What there is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "every layer is behind that feature"))]
pub(super) enum Now {
    Nothing,
    Bytes,
    /// Nothing comes any more.
    End,
    /// An error.
    Failure,
}

/// Whether something may take its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as a write.
    AtAnyPace,
    /// It is left out where it would have to wait.
    Now,
}

/// A socket below a layer, whose bytes count.
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "every layer is behind that feature"))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) socket: &'a Socket,
    pub(super) moved: &'a AtomicU64,
}
