//! Other things than a migration by multifd, which are known by their first bytes.

use std::fmt;

/// What a connection or a file is that is neither a main channel nor a multifd channel, by its first
/// four bytes. Its text says what it is and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// The first message of a TLS client.
    Tls,
    /// A file of `virsh save`.
    LibvirtSave,
    /// A request of HTTP.
    Http,
    /// The greeting of SSH.
    Ssh,
    /// A migration whose connections prove by a token that they are of it.
    Token,
}

/// What the hello of a connection with a token starts with.
pub(crate) const TOKEN: [u8; 4] = *b"MFDT";

impl Foreign {
    /// What starts with these bytes, if it is known.
    pub fn of(first: [u8; 4]) -> Option<Self> {
        match &first {
            // A handshake record of any version.
            [0x16, 0x03, ..] => Some(Self::Tls),
            b"Libv" => Some(Self::LibvirtSave),
            b"GET " | b"POST" | b"PUT " | b"HEAD" => Some(Self::Http),
            b"SSH-" => Some(Self::Ssh),
            &TOKEN => Some(Self::Token),
            _ => None,
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => {
                "it is TLS, which is not spoken here: turn TLS off on the source (QEMU's parameter \
                 tls-creds, libvirt's --tls), or receive it with certificates (--tls-creds of multifd \
                 recv and relay)"
            }
            Self::LibvirtSave => {
                "it is a file of libvirt (virsh save), not a migration over connections: migrate with \
                 multifd instead, by virsh migrate --parallel"
            }
            Self::Http => "it is HTTP: something else than a migration connects here",
            Self::Ssh => "it is SSH: something else than a migration connects here",
            Self::Token => {
                "its source has a token, and this side has none: give this side the same file \
                 (--token-file), or leave it off at the source"
            }
        })
    }
}

/// `first` as the end of a sentence that says what starts with it.
pub(crate) fn described(first: [u8; 4]) -> String {
    match Foreign::of(first) {
        Some(foreign) => foreign.to_string(),
        None => "it is not a migration by multifd".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_migration_is_known_by_its_first_bytes() {
        for (first, expected) in [
            (&[0x16, 0x03, 0x01, 0x02], Some(Foreign::Tls)),
            (b"Libv", Some(Foreign::LibvirtSave)),
            (b"GET ", Some(Foreign::Http)),
            (b"SSH-", Some(Foreign::Ssh)),
            (b"MFDT", Some(Foreign::Token)),
            (b"QEVM", None),
            (&[0x11, 0x22, 0x33, 0x44], None),
            (&[0x16, 0x04, 0, 0], None),
        ] {
            assert_eq!(Foreign::of(*first), expected, "{first:02x?}");
        }
    }
}
