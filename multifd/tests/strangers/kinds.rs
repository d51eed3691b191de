//! Kinds of strangers.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use multifd::core::wire::{InitialPacket, Uuid};
use socket2::SockRef;

use crate::common::{announcement, announcement_with_return_path, guest};

/// What a stranger does, and whether it is refused at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ClosesAtOnce,
    Resets,
    Http,
    TlsHello,
    Ssh,
    Silent,
    ThreeBytes,
    Magic,
    MagicAndLeaves,
    MagicAndVersion,
    OldVersion,
    HalfAConfiguration,
    TakenId,
    TakenIdAndLeaves,
    IdPastTheCount,
    AnotherUuid,
    AByteASecond,
    HalfAnInitialPacket,
    HalfAnInitialPacketAndLeaves,
    Garbage,
    SecondMain,
    SecondMainWithReturnPath,
}

impl Kind {
    pub(crate) const ALL: [Self; 22] = [
        Self::ClosesAtOnce,
        Self::Resets,
        Self::Http,
        Self::TlsHello,
        Self::Ssh,
        Self::Silent,
        Self::ThreeBytes,
        Self::Magic,
        Self::MagicAndLeaves,
        Self::MagicAndVersion,
        Self::OldVersion,
        Self::HalfAConfiguration,
        Self::TakenId,
        Self::TakenIdAndLeaves,
        Self::IdPastTheCount,
        Self::AnotherUuid,
        Self::AByteASecond,
        Self::HalfAnInitialPacket,
        Self::HalfAnInitialPacketAndLeaves,
        Self::Garbage,
        Self::SecondMain,
        Self::SecondMainWithReturnPath,
    ];

    /// Whether it is a main channel as a source's is: the first of these has the place.
    pub(crate) fn is_main(self) -> bool {
        matches!(self, Self::SecondMain | Self::SecondMainWithReturnPath)
    }

    /// Whether it is refused as soon as it has been heard, where all channels are there or not.
    pub(crate) fn is_refused_at_once(self, all_are_there: bool) -> bool {
        match self {
            Self::ClosesAtOnce
            | Self::Resets
            | Self::Silent
            | Self::ThreeBytes
            | Self::Magic
            | Self::MagicAndVersion
            | Self::HalfAConfiguration
            | Self::AByteASecond
            | Self::HalfAnInitialPacket => false,
            Self::Http
            | Self::TlsHello
            | Self::Ssh
            | Self::MagicAndLeaves
            | Self::OldVersion
            | Self::IdPastTheCount
            | Self::TakenIdAndLeaves
            | Self::HalfAnInitialPacketAndLeaves
            | Self::Garbage
            | Self::SecondMain
            | Self::SecondMainWithReturnPath => true,
            Self::TakenId | Self::AnotherUuid => all_are_there,
        }
    }

    /// Connects to `address` and does what it does. What is returned keeps the connection.
    pub(crate) fn come(self, address: (&str, u16)) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(address).unwrap();
        if self == Self::Resets {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            return None;
        }
        if self == Self::AByteASecond {
            slowly(stream);
            return None;
        }
        // It may have been shut down in the middle.
        _ = stream.write_all(&self.said());
        (!self.leaves()).then_some(stream)
    }

    /// Whether it closes when it has said what it says.
    pub(crate) fn leaves(self) -> bool {
        matches!(
            self,
            Self::ClosesAtOnce
                | Self::Resets
                | Self::MagicAndLeaves
                | Self::TakenIdAndLeaves
                | Self::HalfAnInitialPacketAndLeaves
        )
    }

    /// What it says.
    pub(crate) fn said(self) -> Vec<u8> {
        let initial = |channel, uuid| InitialPacket::new(uuid, channel).to_bytes();
        let main = b"QEVM\0\0\0\x03\x07\0\0\0\x0apc-q35-9.2";
        match self {
            Self::ClosesAtOnce | Self::Resets | Self::AByteASecond => Vec::new(),
            Self::Http => b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(),
            Self::TlsHello => {
                [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], &[7; 506]].concat()
            }
            Self::Ssh => b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            Self::Silent => Vec::new(),
            Self::ThreeBytes => b"QEV".to_vec(),
            Self::Magic | Self::MagicAndLeaves => main[..4].to_vec(),
            Self::MagicAndVersion => main[..8].to_vec(),
            Self::OldVersion => b"QEVM\0\0\0\x02".to_vec(),
            Self::HalfAConfiguration => main[..18].to_vec(),
            Self::TakenId | Self::TakenIdAndLeaves => initial(0, Uuid::default()).to_vec(),
            Self::IdPastTheCount => initial(2, Uuid::default()).to_vec(),
            Self::AnotherUuid => initial(1, Uuid([9; 16])).to_vec(),
            Self::HalfAnInitialPacket | Self::HalfAnInitialPacketAndLeaves => {
                initial(0, Uuid::default())[..32].to_vec()
            }
            Self::Garbage => {
                (0..64 << 10).map(|at: u32| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect()
            }
            Self::SecondMain => announcement(&guest()),
            Self::SecondMainWithReturnPath => announcement_with_return_path(&guest()),
        }
    }
}

/// Sends an initial packet, a byte a second.
pub(crate) fn slowly(mut stream: impl Write + Send + 'static) {
    std::thread::spawn(move || {
        for byte in InitialPacket::new(Uuid::default(), 0).to_bytes() {
            if stream.write_all(&[byte]).and_then(|()| stream.flush()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}
