//! Keys as the kernel takes them.

use rustls::crypto::tls13::OkmBlock;
use rustls::{CipherSuite, ConnectionTrafficSecrets, SupportedCipherSuite, Tls13CipherSuite};
use zeroize::Zeroizing;

use crate::tls::Secret;

/// How the records of a session are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protection {
    pub(super) version: Version,
    pub(super) cipher: Cipher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// Those that rustls and the kernel have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Protection {
    #[cfg(test)]
    pub(super) const ALL: [Self; 6] = {
        use Cipher::{Aes128Gcm, Aes256Gcm, ChaCha20Poly1305};
        use Version::{Tls12, Tls13};
        [
            Self { version: Tls12, cipher: Aes128Gcm },
            Self { version: Tls12, cipher: Aes256Gcm },
            Self { version: Tls12, cipher: ChaCha20Poly1305 },
            Self { version: Tls13, cipher: Aes128Gcm },
            Self { version: Tls13, cipher: Aes256Gcm },
            Self { version: Tls13, cipher: ChaCha20Poly1305 },
        ]
    };

    pub(super) fn of(suite: SupportedCipherSuite) -> Option<Self> {
        use CipherSuite as S;

        let cipher = match suite.suite() {
            S::TLS13_AES_128_GCM_SHA256
            | S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Cipher::Aes128Gcm,
            S::TLS13_AES_256_GCM_SHA384
            | S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Cipher::Aes256Gcm,
            S::TLS13_CHACHA20_POLY1305_SHA256
            | S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Cipher::ChaCha20Poly1305,
            _ => return None,
        };
        let version = if suite.tls13().is_some() { Version::Tls13 } else { Version::Tls12 };
        Some(Self { version, cipher })
    }

    fn key_len(self) -> usize {
        match self.cipher {
            Cipher::Aes128Gcm => 16,
            Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => 32,
        }
    }

    /// The kernel's `struct tls12_crypto_info_…`: version and cipher, each as a number of this machine, the nonce's
    /// counted or mixed part, the key, the nonce's other part, and the number of the next record.
    pub(super) fn info(self, key: &[u8], iv: [u8; 12], sequence: u64) -> Zeroizing<Vec<u8>> {
        let version = match self.version {
            Version::Tls12 => libc::TLS_1_2_VERSION,
            Version::Tls13 => libc::TLS_1_3_VERSION,
        };
        let cipher = match self.cipher {
            Cipher::Aes128Gcm => libc::TLS_CIPHER_AES_GCM_128,
            Cipher::Aes256Gcm => libc::TLS_CIPHER_AES_GCM_256,
            Cipher::ChaCha20Poly1305 => libc::TLS_CIPHER_CHACHA20_POLY1305,
        };
        let (salt, mixed) = match self.cipher {
            Cipher::ChaCha20Poly1305 => iv.split_at(0),
            _ => iv.split_at(4),
        };
        let mut explicit = mixed.to_vec();
        if self.version == Version::Tls12 && salt.len() == 4 {
            // Each record of TLS 1.2 with AES-GCM says its nonce. rustls mixes the record's number into the first, the
            // kernel counts up from what it gets: from the first one itself, it would use that a second time, after the
            // handshake's last record, which gives the key away. With the number added no two are the same as long as the
            // handshake had one record: the caller makes sure of that.
            let first = explicit.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
            explicit = first.wrapping_add(sequence).to_be_bytes().to_vec();
        }
        let mut info = Zeroizing::new(Vec::with_capacity(64));
        info.extend_from_slice(&version.to_ne_bytes());
        info.extend_from_slice(&cipher.to_ne_bytes());
        info.extend_from_slice(&explicit);
        info.extend_from_slice(key);
        info.extend_from_slice(salt);
        info.extend_from_slice(&sequence.to_be_bytes());
        info
    }

    /// Of a session's first keys, whose next record has this number; `None` of other ciphers.
    pub(super) fn first(
        self,
        (sequence, secrets): &(u64, ConnectionTrafficSecrets),
    ) -> Option<Zeroizing<Vec<u8>>> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};

        let (Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv }) =
            secrets
        else {
            return None;
        };
        let iv = iv.as_ref().try_into().ok()?;
        (key.as_ref().len() == self.key_len()).then(|| self.info(key.as_ref(), iv, *sequence))
    }

    /// Of keys that mean nothing.
    pub(super) fn trial(self) -> Zeroizing<Vec<u8>> {
        self.info(&[1; 32][..self.key_len()], [2; 12], 0)
    }
}

/// The secret of one direction of a TLS 1.3 session, of which the next keys come (RFC 8446, sections 7.2 and 7.3).
pub(super) struct Generation {
    suite: &'static Tls13CipherSuite,
    secret: Secret,
}

impl Generation {
    pub(super) fn new(suite: &'static Tls13CipherSuite, secret: Secret) -> Self {
        Self { suite, secret }
    }

    /// Goes on to the next. Returns its keys, whose next record is the first.
    pub(super) fn next(&mut self, protection: Protection) -> Option<Zeroizing<Vec<u8>>> {
        self.secret = self.expand("traffic upd", self.secret.len())?;
        let key = self.expand("key", protection.key_len())?;
        let iv = self.expand("iv", 12)?;
        Some(protection.info(&key, iv[..].try_into().ok()?, 0))
    }

    /// HKDF-Expand-Label without a context.
    fn expand(&self, label: &str, len: usize) -> Option<Secret> {
        let expander = self.suite.hkdf_provider.expander_for_okm(&OkmBlock::new(&self.secret));
        let mut output = Zeroizing::new(vec![0; len]);
        let (len, label_len) = ((len as u16).to_be_bytes(), [(6 + label.len()) as u8]);
        let info: [&[u8]; 5] = [&len, &label_len, b"tls13 ", label.as_bytes(), &[0]];
        expander.expand_slice(&info, &mut output).ok()?;
        Some(output)
    }
}
