//! The messages of Cloud Hypervisor's migration protocol, and how they are waited for. All numbers are little endian.
//!
//! ```text
//! request   u16 command, u16 version of Start, 4 bytes of nothing, u64 bytes that follow
//! response  u16 status, 6 bytes of nothing, u64 bytes that follow
//! ```

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};

use super::CloudHypervisorError;

/// The only version of the protocol.
pub(super) const VERSION: u16 = 0;

const MESSAGE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Start = 1,
    Config = 2,
    State = 3,
    Memory = 4,
    Complete = 5,
    Abandon = 6,
    MemoryFd = 7,
    CompletePaused = 8,
    PageFault = 9,
}

impl Command {
    fn parse(number: u16) -> Result<Self, CloudHypervisorError> {
        Ok(match number {
            1 => Self::Start,
            2 => Self::Config,
            3 => Self::State,
            4 => Self::Memory,
            5 => Self::Complete,
            6 => Self::Abandon,
            7 => Self::MemoryFd,
            8 => Self::CompletePaused,
            9 => Self::PageFault,
            other => return Err(CloudHypervisorError::UnknownCommand(other)),
        })
    }

    /// Its name in Cloud Hypervisor's documentation.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "Start",
            Self::Config => "Config",
            Self::State => "State",
            Self::Memory => "Memory",
            Self::Complete => "Complete",
            Self::Abandon => "Abandon",
            Self::MemoryFd => "MemoryFd",
            Self::CompletePaused => "CompletePaused",
            Self::PageFault => "PageFault",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) version: u16,
    /// Bytes that follow.
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 1,
    Error = 2,
}

/// A connection whose messages have a limit of time each.
#[derive(Debug)]
pub(super) struct Line {
    stream: UnixStream,
    limit: Duration,
}

impl Line {
    pub(super) fn new(stream: UnixStream, limit: Duration) -> Self {
        Self { stream, limit: limit.max(Duration::from_millis(1)) }
    }

    pub(super) fn request(&self, what: &'static str) -> Result<Request, CloudHypervisorError> {
        let message = self.message(what)?;
        let command = Command::parse(u16::from_le_bytes([message[0], message[1]]))?;
        let version = u16::from_le_bytes([message[2], message[3]]);
        Ok(Request { command, version, bytes: bytes_of(&message) })
    }

    /// Waits for the answer to `command`, which must be yes.
    pub(super) fn expect_ok(&self, command: Command) -> Result<(), CloudHypervisorError> {
        let message = self.message(command.name())?;
        match u16::from_le_bytes([message[0], message[1]]) {
            status if status == Status::Ok as u16 => Ok(()),
            status if status == Status::Error as u16 => {
                Err(CloudHypervisorError::Refused(command.name()))
            }
            other => Err(CloudHypervisorError::UnknownAnswer(other)),
        }
    }

    /// Fails where the other side has gone, or has said something.
    pub(super) fn expect_silence(&self) -> Result<(), CloudHypervisorError> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let mut first = [0_u8; 2];
        match rustix::io::retry_on_intr(|| recv(&self.stream, &mut first[..], flags)) {
            Err(Errno::AGAIN) => Ok(()),
            Ok((2.., _)) => match Command::parse(u16::from_le_bytes(first))? {
                Command::Abandon => Err(CloudHypervisorError::Abandoned),
                found => {
                    let wanted = "an answer to Complete";
                    Err(CloudHypervisorError::Unexpected { found: found.name(), wanted })
                }
            },
            Ok(_) => Err(CloudHypervisorError::Closed("it was told that the VM is safe")),
            Err(errno) => {
                Err(CloudHypervisorError::system("looking at Cloud Hypervisor")(errno.into()))
            }
        }
    }

    pub(super) fn respond(&self, status: Status) -> Result<(), CloudHypervisorError> {
        self.write(&message(status as u16, 0), "answering Cloud Hypervisor")
    }

    /// Says `command`, with what follows it.
    pub(super) fn say(&self, command: Command, payload: &[u8]) -> Result<(), CloudHypervisorError> {
        self.write(&message(command as u16, payload.len() as u64), "telling Cloud Hypervisor")?;
        self.write(payload, "telling Cloud Hypervisor")
    }

    /// The `bytes` bytes that follow a request.
    pub(super) fn payload(
        &self,
        what: &'static str,
        bytes: u64,
        limit: u64,
    ) -> Result<Vec<u8>, CloudHypervisorError> {
        if bytes > limit {
            return Err(CloudHypervisorError::TooLong { what, bytes, limit });
        }
        // As it comes, not as it is claimed.
        let mut payload = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while (payload.len() as u64) < bytes {
            let most = (bytes - payload.len() as u64).min(buffer.len() as u64) as usize;
            let count = self.read(&mut buffer[..most], what, Instant::now())?;
            payload.extend_from_slice(&buffer[..count]);
        }
        Ok(payload)
    }

    /// A slot's number with the descriptor of its memory.
    pub(super) fn memory(&self) -> Result<(u32, File), CloudHypervisorError> {
        const WHAT: &str = "a slot's descriptor";
        let (mut number, mut filled, mut found) = ([0; 4], 0, Vec::<OwnedFd>::new());
        let began = Instant::now();
        while filled < number.len() {
            self.set_read_timeout(began, WHAT)?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut room = [IoSliceMut::new(&mut number[filled..])];
            let received = recvmsg(&self.stream, &mut room, &mut control, RecvFlags::CMSG_CLOEXEC);
            found.extend(control.drain().flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
                _ => Vec::new(),
            }));
            match received.map_err(io::Error::from).map(|received| received.bytes) {
                Ok(0) => return Err(CloudHypervisorError::Closed(WHAT)),
                Ok(count) => filled += count,
                Err(error) => self.go_on_after(error, WHAT)?,
            }
        }
        let slot = u32::from_le_bytes(number);
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(descriptor), None) => Ok((slot, File::from(descriptor))),
            (None, _) => Err(slot_error(slot, "came without a descriptor")),
            (Some(_), Some(_)) => Err(slot_error(slot, "came with more than one descriptor")),
        }
    }

    /// Says the memory of a slot.
    pub(super) fn say_memory(&self, slot: u32, memory: &File) -> Result<(), CloudHypervisorError> {
        const DOING: &str = "handing memory to Cloud Hypervisor";
        let number = slot.to_le_bytes();
        self.write(&message(Command::MemoryFd as u16, number.len() as u64), DOING)?;
        let descriptors = [memory.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(&self.stream, &[IoSlice::new(&number)], &mut control, SendFlags::NOSIGNAL)
        });
        let sent = sent.map_err(|errno| CloudHypervisorError::system(DOING)(errno.into()))?;
        // The descriptor has gone with the first byte.
        self.write(&number[sent..], DOING)
    }

    fn message(&self, what: &'static str) -> Result<[u8; MESSAGE], CloudHypervisorError> {
        let (mut message, mut filled, began) = ([0; MESSAGE], 0, Instant::now());
        while filled < MESSAGE {
            filled += self.read(&mut message[filled..], what, began)?;
        }
        Ok(message)
    }

    /// Reads at least one byte, of what has begun to be waited for at `began`.
    fn read(
        &self,
        room: &mut [u8],
        what: &'static str,
        began: Instant,
    ) -> Result<usize, CloudHypervisorError> {
        loop {
            self.set_read_timeout(began, what)?;
            match (&self.stream).read(room) {
                Ok(0) => return Err(CloudHypervisorError::Closed(what)),
                Ok(count) => return Ok(count),
                Err(error) => self.go_on_after(error, what)?,
            }
        }
    }

    fn set_read_timeout(
        &self,
        began: Instant,
        waiting_for: &'static str,
    ) -> Result<(), CloudHypervisorError> {
        let left = self.limit.checked_sub(began.elapsed()).filter(|left| !left.is_zero());
        let silent = CloudHypervisorError::Silent { waiting_for, limit: self.limit };
        let set = self.stream.set_read_timeout(Some(left.ok_or(silent)?));
        set.map_err(CloudHypervisorError::system("setting a limit of time"))
    }

    /// Whether reading goes on after `error`.
    fn go_on_after(
        &self,
        error: io::Error,
        waiting_for: &'static str,
    ) -> Result<(), CloudHypervisorError> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Err(CloudHypervisorError::Silent { waiting_for, limit: self.limit })
            }
            ErrorKind::ConnectionReset => Err(CloudHypervisorError::Closed(waiting_for)),
            _ => Err(CloudHypervisorError::System {
                doing: "hearing Cloud Hypervisor",
                source: error,
            }),
        }
    }

    fn write(&self, bytes: &[u8], doing: &'static str) -> Result<(), CloudHypervisorError> {
        let set = self.stream.set_write_timeout(Some(self.limit));
        set.map_err(CloudHypervisorError::system("setting a limit of time"))?;
        (&self.stream).write_all(bytes).map_err(|source| match source.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                CloudHypervisorError::Closed("it had heard everything")
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                CloudHypervisorError::Silent { waiting_for: "room for more", limit: self.limit }
            }
            _ => CloudHypervisorError::System { doing, source },
        })
    }
}

fn message(first: u16, bytes: u64) -> [u8; MESSAGE] {
    // The version of Start is 0, as all the rest is.
    const { assert!(VERSION == 0) };
    let mut message = [0; MESSAGE];
    message[..2].copy_from_slice(&first.to_le_bytes());
    message[8..].copy_from_slice(&bytes.to_le_bytes());
    message
}

fn bytes_of(message: &[u8; MESSAGE]) -> u64 {
    message[8..].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

pub(super) fn slot_error(slot: u32, why: &str) -> CloudHypervisorError {
    CloudHypervisorError::Slot { slot, why: why.to_owned() }
}
