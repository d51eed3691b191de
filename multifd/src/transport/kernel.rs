//! A connection that the kernel encrypts, after rustls has shaken hands.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use multifd_core::channel::Parts;
use multifd_core::ram::GuestSlices;
use rustix::io::{ioctl_fionread, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::SupportedCipherSuite;

use self::input::{Control, Input};
use self::keys::{Generation, Protection};
use self::output::Output;
use self::support::Support;
use self::sys::Direction;
use super::Unsaid;
use super::input_lock::InputLock;
#[cfg(feature = "token")]
use super::introduction::Binding;
use super::layer::{Direct, Layer, Line, Now, Patience};
use super::secured::{MOST_UNREAD, Secured, failed, lock, try_lock};
use crate::driver::Socket;
use crate::tls::{Handover, TlsError};

mod input;
mod keys;
mod output;
mod support;
#[allow(unsafe_code, reason = "no crate here has the records' types")]
mod sys;

/// What the kernel is able to go on with.
struct Able {
    suite: SupportedCipherSuite,
    protection: Protection,
    support: Support,
}

/// A TLS session whose keys the kernel has.
///
/// Whoever reads has the input, whoever writes the output, each for as long as the socket takes. In this order: input, output.
pub(super) struct Kernel {
    input: InputLock<Input>,
    output: Mutex<Output>,
    /// The peer wants a new key of this side, too. Whoever has the output sends it.
    wants_key: AtomicBool,
    /// The peer's alert, which ends both directions.
    refused: OnceLock<u8>,
    #[cfg(feature = "token")]
    binding: Binding,
}

impl Kernel {
    /// Has the kernel go on with `secured`, behind whose handshake nothing has been taken out of the socket. Where the
    /// kernel cannot, it goes on as it is.
    pub(super) fn take_over(
        line: Line<'_>,
        secured: Secured,
        handover: &Handover,
    ) -> Result<Box<dyn Layer>, TlsError> {
        match Self::can(line, &secured) {
            Ok(able) => Ok(Box::new(Self::over(line, secured, handover, able)?)),
            Err(why) => {
                handover.fall_back(&why);
                secured.take_all();
                Ok(Box::new(secured))
            }
        }
    }

    fn can(line: Line<'_>, secured: &Secured) -> Result<Able, String> {
        let suite = secured.suite().ok_or("there is no cipher yet")?;
        let name = || format!("the kernel does not know the cipher {:?}", suite.suite());
        let protection = Protection::of(suite).ok_or_else(name)?;
        let support = Support::of(protection)?;
        sys::attach(line.socket).map_err(|error| support::why_not(&error))?;
        Ok(Able { suite, protection, support })
    }

    fn over(
        line: Line<'_>,
        secured: Secured,
        handover: &Handover,
        Able { suite, protection, support }: Able,
    ) -> Result<Self, TlsError> {
        #[cfg(feature = "token")]
        let binding = secured.binding();
        let secrets = secured.into_session().dangerous_extract_secrets()?;
        let unusual = || TlsError::Kernel {
            what: "keys of a session that is not as usual",
            source: ErrorKind::InvalidInput.into(),
        };
        // See Protection::info.
        let is_usual = protection.version == keys::Version::Tls13 || secrets.tx.0 == 1;
        let sending = protection.first(&secrets.tx).filter(|_| is_usual).ok_or_else(unusual)?;
        let receiving = protection.first(&secrets.rx).ok_or_else(unusual)?;
        for (direction, info) in [(Direction::Receiving, receiving), (Direction::Sending, sending)]
        {
            let what = "it does not take the keys";
            sys::set_keys(line.socket, direction, &info)
                .map_err(|source| TlsError::Kernel { what, source })?;
        }
        let next = handover.secrets().zip(suite.tls13()).filter(|_| support.rekeys);
        let [to_send, to_receive] = match next {
            Some((secrets, suite)) => secrets.map(|secret| Some(Generation::new(suite, secret))),
            None => [None, None],
        };
        tracing::debug!(?protection, "the kernel does TLS");
        Ok(Self {
            input: InputLock::new(Input::new(protection, to_receive)),
            output: Mutex::new(Output::new(protection, to_send, suite)),
            wants_key: AtomicBool::new(false),
            refused: OnceLock::new(),
            #[cfg(feature = "token")]
            binding,
        })
    }

    /// Receives by `attempt`, which takes data alone; 0 bytes at the end, `None` where nothing is there and `patience` has
    /// no time. Records that are not of data are taken in between.
    fn receive(
        &self,
        line: Line<'_>,
        input: &mut Input,
        patience: Patience,
        attempt: &mut dyn FnMut() -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let mut lost = None;
        loop {
            self.check()?;
            if let Some(over) = input.over(line)? {
                return Ok(Some(over));
            }
            let error = match attempt() {
                Ok(0) => match lost {
                    None => {
                        input.end();
                        continue;
                    }
                    Some(error) => return Err(self.broken(line, input, error)),
                },
                Ok(count) => {
                    line.count(count);
                    return Ok(Some(count));
                }
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock if patience == Patience::Now => return Ok(None),
                ErrorKind::WouldBlock => input.note_progress(line),
                // The kernel says first that the connection was lost, by a write even, and then what has come before:
                // perhaps an alert that says why. An end behind that is none.
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset if lost.is_none() => {
                    lost = Some(error);
                }
                // A record that is not of data is next.
                _ if error.raw_os_error() == Some(libc::EIO) => self.take_control(line, input)?,
                _ => return Err(self.broken(line, input, error)),
            }
        }
    }

    fn take_control(&self, line: Line<'_>, input: &mut Input) -> io::Result<()> {
        match input.receive_control(line) {
            Ok(Control::Nothing) => Ok(()),
            Ok(Control::KeyWanted) => {
                self.wants_key.store(true, Ordering::SeqCst);
                self.send_key(line);
                Ok(())
            }
            // It is asked again, as the record is still there.
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(self.broken(line, input, error)),
        }
    }

    /// Fails where the peer has refused this side.
    fn check(&self) -> io::Result<()> {
        match self.refused.get() {
            Some(&description) => Err(failed(TlsError::Refused { description })),
            None => Ok(()),
        }
    }

    /// The error of a connection that cannot be read any more. The peer is told, where it is to blame for it.
    fn broken(&self, line: Line<'_>, input: &mut Input, error: io::Error) -> io::Error {
        input.give_up();
        if let Some(TlsError::Refused { description }) = input::cause(&error) {
            _ = self.refused.set(*description);
            return error;
        }
        let (alert, error) = input::blame(error);
        if let (Some(alert), Some(mut output)) = (alert, try_lock(&self.output)) {
            output.alert(line, alert);
        }
        error
    }

    /// Sends a new key of this side's, if one is wanted and there is room now. Where another thread has the output, it does
    /// this when it is done.
    fn send_key(&self, line: Line<'_>) {
        while self.wants_key.load(Ordering::SeqCst) {
            let Some(mut output) = try_lock(&self.output) else { return };
            // Whoever writes next tries again, and sees that it fails.
            if output.update_key(line, Patience::Now).is_err() {
                return;
            }
            self.wants_key.store(false, Ordering::SeqCst);
        }
    }

    /// Writes by `attempt`.
    fn transmit(
        &self,
        line: Line<'_>,
        attempt: &mut dyn FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut output = lock(&self.output);
        self.check()?;
        if self.wants_key.swap(false, Ordering::SeqCst) {
            output.update_key(line, Patience::AtAnyPace)?;
        }
        output.make_sure(line)?;
        let sent = super::connection::at_any_pace(attempt);
        if let Ok(count) = sent {
            output.sent(count);
            line.count(count);
        }
        drop(output);
        self.send_key(line);
        sent.map_err(|error| self.explained(line, error))
    }

    /// The reason of a peer that has closed the connection while it was written to, if it has given one;
    /// else `error`.
    fn explained(&self, line: Line<'_>, error: io::Error) -> io::Error {
        let Some(mut input) = self.input.lock_to_look() else { return error };
        match self.look_at(line, &mut input) {
            Now::Failure => input.failure().unwrap_or(error),
            Now::Nothing | Now::Bytes | Now::End => error,
        }
    }

    /// What there is to be read now.
    fn look_at(&self, line: Line<'_>, input: &mut Input) -> Now {
        if let Some(now) = input.known() {
            return now;
        }
        let mut room = input.lend();
        let mut attempt = || receive_now(line, &mut room);
        let received = self.receive(line, input, Patience::Now, &mut attempt);
        match received {
            Ok(None) => {
                input.give_back(room, 0);
                Now::Nothing
            }
            Ok(Some(count)) => {
                input.give_back(room, count);
                if count == 0 { Now::End } else { Now::Bytes }
            }
            Err(error) => {
                input.fail(error);
                Now::Failure
            }
        }
    }
}

/// Whether the next try may go through, behind which the record is: an error of the socket is said once.
fn is_passing(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, Interrupted, WouldBlock};

    matches!(error.kind(), WouldBlock | Interrupted | BrokenPipe | ConnectionReset)
}

fn receive_now(line: Line<'_>, room: &mut [u8]) -> io::Result<usize> {
    Ok(recv(line.socket, room, RecvFlags::DONTWAIT)?.0)
}

impl Layer for Kernel {
    fn read(&self, line: Line<'_>, room: &mut [u8]) -> io::Result<usize> {
        let mut input = self.input.lock();
        match input.take(room) {
            0 => {
                let mut receive = || Ok(recv(line.socket, &mut *room, RecvFlags::empty())?.0);
                let mut attempt = || self.input.wait(&mut receive);
                let read = self.receive(line, &mut input, Patience::AtAnyPace, &mut attempt);
                // It waits until there is something.
                read.map(Option::unwrap_or_default)
            }
            // It was looked at before.
            taken => Ok(taken),
        }
    }

    fn read_now(&self, line: Line<'_>, room: &mut [u8]) -> io::Result<Option<usize>> {
        let mut input = self.input.lock();
        match input.take(room) {
            0 => {
                let mut attempt = || receive_now(line, room);
                self.receive(line, &mut input, Patience::Now, &mut attempt)
            }
            taken => Ok(Some(taken)),
        }
    }

    fn look(&self, line: Line<'_>) -> io::Result<Now> {
        // Somebody waits for it to say something.
        let Some(mut input) = self.input.lock_to_look() else { return Ok(Now::Nothing) };
        Ok(self.look_at(line, &mut input))
    }

    fn is_quiet(&self, line: Line<'_>, in_the_middle: bool) -> bool {
        // Whoever has it may have taken something out.
        let Some(input) = self.input.lock_to_look() else { return in_the_middle };
        // Nothing is taken out of the socket, which another thread may wait for.
        input.known().is_none() && (in_the_middle || unread(line) == 0)
    }

    fn write(
        &self,
        line: Line<'_>,
        bytes: usize,
        gather: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> io::Result<usize> {
        let mut plain = vec![0; bytes.min(MOST)];
        let count = gather(&mut plain);
        self.transmit(line, &mut || {
            let flags = SendFlags::NOSIGNAL;
            Ok(send(line.socket, &plain[..count], flags)?)
        })
    }

    fn say(&self, line: Line<'_>, message: &[u8]) -> Result<(), Unsaid> {
        let unsaid = |source| Unsaid { source, may_be_heard: false };
        let mut output = lock(&self.output);
        self.check().map_err(unsaid)?;
        output.make_sure(line).map_err(unsaid)?;
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let said = retry_on_intr(|| send(line.socket, message, flags));
        let count = said.map_err(|errno| unsaid(errno.into()))?;
        output.sent(count);
        line.count(count);
        if count == message.len() {
            return Ok(());
        }
        // The rest of it never leaves.
        output.give_up();
        let source = io::Error::new(ErrorKind::WouldBlock, "there is no room for it");
        Err(Unsaid { source, may_be_heard: true })
    }

    fn close(&self, line: Line<'_>, patience: Patience) {
        let output = match patience {
            Patience::AtAnyPace => Some(lock(&self.output)),
            Patience::Now => try_lock(&self.output),
        };
        // Where another thread writes, what it writes is cut off.
        if let Some(mut output) = output {
            output.close(line, patience);
        }
    }

    #[cfg(feature = "token")]
    fn binding(&self) -> Binding {
        self.binding
    }

    fn end(&self, line: Line<'_>) {
        self.close(line, Patience::Now);
        // As of a session in this process, a server's tickets.
        let mut dropped = vec![0; RECORD];
        for _ in 0..MOST_UNREAD {
            match sys::receive_record(line.socket, &mut dropped) {
                Ok((Some(_), _)) => {}
                _ => return,
            }
        }
    }

    fn direct(&self) -> Option<&dyn Direct> {
        Some(self)
    }
}

impl Direct for Kernel {
    fn send(&self, line: Line<'_>, parts: Parts<'_>) -> io::Result<usize> {
        self.transmit(line, &mut || Socket::new(line.socket).send(parts.clone()))
    }

    fn receive_guest(&self, line: Line<'_>, room: GuestSlices<'_>) -> io::Result<usize> {
        let mut input = self.input.lock();
        match input.take_guest(&room) {
            0 => {
                let receive = || Socket::new(line.socket).receive_guest(room);
                let mut attempt = || self.input.wait(receive);
                let read = self.receive(line, &mut input, Patience::AtAnyPace, &mut attempt);
                read.map(Option::unwrap_or_default)
            }
            taken => Ok(taken),
        }
    }
}

/// The most bytes of a record's content.
const RECORD: usize = 16 << 10;

/// The most bytes that are written at once from what is no guest memory.
const MOST: usize = 256 << 10;

/// Bytes that have come and are not decrypted yet, such as those of a record that is not whole.
fn unread(line: Line<'_>) -> u64 {
    ioctl_fionread(line.socket).unwrap_or(0)
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

#[cfg(test)]
mod tests;
