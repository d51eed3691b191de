//! The sending side of a session whose keys the kernel has.

use std::io::{self, ErrorKind};

use rustls::{AlertDescription, SupportedCipherSuite};

use super::super::layer::{Line, Patience};
use super::RECORD;
use super::keys::{Generation, Protection};
use super::sys::{self, Direction};

/// The levels of alerts.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// That this side's next key comes, and none of the peer's is wanted: a message of a handshake (RFC 8446, section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// What can be sent.
pub(super) struct Output {
    protection: Protection,
    /// Of the next keys, where the kernel can take some.
    next: Option<Generation>,
    /// How many records this key may still have.
    left: u64,
    limit: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// That nothing more comes has been said.
    Closed,
    /// What was sent last is not whole.
    Broken,
}

impl Output {
    pub(super) fn new(
        protection: Protection,
        next: Option<Generation>,
        suite: SupportedCipherSuite,
    ) -> Self {
        let limit = match suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        // Some are kept back: one write has more than one record, and an end must always be possible.
        let limit = limit.saturating_sub(1 << 10);
        Self { protection, next, left: limit, limit, state: State::Open }
    }

    /// Makes sure that more may be sent, with the next key if need be.
    pub(super) fn make_sure(&mut self, line: Line<'_>) -> io::Result<()> {
        if self.state != State::Open {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if self.left > 0 {
            return Ok(());
        }
        if self.next.is_none() {
            return Err(io::Error::other(
                "the key is used up, and the kernel takes no other one: use more channels, or TLS without the kernel",
            ));
        }
        self.update_key(line, Patience::AtAnyPace)
    }

    /// Takes note of what one write has sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes.div_ceil(RECORD) as u64);
    }

    /// Sends with the next key from now on. Where there is none, nothing changes.
    pub(super) fn update_key(&mut self, line: Line<'_>, patience: Patience) -> io::Result<()> {
        let Some(next) = &mut self.next else { return Ok(()) };
        if self.state != State::Open {
            return Ok(());
        }
        send_record(line, sys::HANDSHAKE, &KEY_UPDATE, patience)?;
        self.left = self.limit;
        let info = next.next(self.protection);
        let set = info.map(|info| sys::set_keys(line.socket, Direction::Sending, &info));
        match set {
            Some(Ok(())) => Ok(()),
            set => {
                // The peer cannot read what would come now.
                self.state = State::Broken;
                set.unwrap_or_else(|| Err(ErrorKind::Unsupported.into()))
            }
        }
    }

    /// Tells the peer what it has done, if there is room now.
    pub(super) fn alert(&mut self, line: Line<'_>, alert: AlertDescription) {
        if self.state == State::Open {
            self.state = State::Closed;
            // What has failed of receiving stays with the socket, and would fail sending, too.
            _ = line.socket.take_error();
            _ = send_record(line, sys::ALERT, &[FATAL, alert.into()], Patience::Now);
        }
    }

    /// Says that nothing more comes.
    pub(super) fn close(&mut self, line: Line<'_>, patience: Patience) {
        if self.state != State::Open {
            return;
        }
        self.state = State::Closed;
        if patience == Patience::AtAnyPace {
            // The kernel may have taken more than TCP had room for; what it has then is lost when the socket is shut down. With
            // no limit, it returns when TCP has this, too, which is behind all that.
            _ = line.socket.set_write_timeout(None);
        }
        let close = [WARNING, AlertDescription::CloseNotify.into()];
        if let Err(error) = send_record(line, sys::ALERT, &close, patience) {
            tracing::debug!(%error, "saying that nothing more comes");
        }
    }

    /// As if enough had been sent.
    #[cfg(test)]
    pub(super) fn use_up(&mut self) {
        self.left = 0;
    }

    /// Nothing is sent any more.
    pub(super) fn give_up(&mut self) {
        self.state = State::Broken;
    }
}

fn send_record(line: Line<'_>, record: u8, bytes: &[u8], patience: Patience) -> io::Result<()> {
    let flags = match patience {
        Patience::AtAnyPace => 0,
        Patience::Now => libc::MSG_DONTWAIT,
    };
    loop {
        match sys::send_record(line.socket, record, bytes, flags) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error)
                if error.kind() == ErrorKind::WouldBlock && patience == Patience::AtAnyPace => {}
            Err(error) => return Err(error),
        }
    }
}
