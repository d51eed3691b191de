//! The hello of a connection with a token, written anew from docs/token.md.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{self, Read, Write};

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What a connection says that it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello {
    pub(crate) secret: [u8; 32],
    pub(crate) migration: [u8; 16],
    /// The main channel, or the channel with this number.
    pub(crate) channel: Option<u8>,
    /// What TLS 1.3 exports, where there is TLS.
    pub(crate) binding: Option<[u8; 32]>,
}

impl Hello {
    pub(crate) fn new(secret: [u8; 32], migration: [u8; 16], channel: Option<u8>) -> Self {
        Self { secret, migration, channel, binding: None }
    }

    pub(crate) fn request(&self) -> Vec<u8> {
        let role = u8::from(self.channel.is_some());
        let kind = u8::from(self.binding.is_some());
        let head = [1, role, self.channel.unwrap_or(0), kind, 0, 0, 0, 0];
        [&b"MFDTOKEN"[..], &head, &self.migration, &[7; 32]].concat()
    }

    /// The reply to an answer, which must prove that the other side has the token.
    pub(crate) fn reply(&self, answer: &[u8]) -> Vec<u8> {
        assert_eq!(answer[..16], *b"MFDTOKEN\x01\0\0\0\0\0\0\0");
        let (request, binding) = (self.request(), self.binding.unwrap_or_default());
        let proof = |label: &[u8], answer: &[u8]| {
            let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.secret).unwrap();
            [label, &request, answer, &binding].iter().for_each(|bytes| mac.update(bytes));
            mac
        };
        proof(b"multifd token: L", &answer[..48]).verify_slice(&answer[48..]).unwrap();
        let proof = proof(b"multifd token: C", answer).finalize().into_bytes();
        [&[0; 8][..], &proof].concat()
    }

    /// Says the whole hello.
    pub(crate) fn say(&self, stream: &mut (impl Read + Write)) -> io::Result<()> {
        stream.write_all(&self.request())?;
        let mut answer = [0; 80];
        stream.read_exact(&mut answer)?;
        stream.write_all(&self.reply(&answer))
    }
}

/// The answer of a destination to `request`, without TLS.
pub(crate) fn answer(secret: &[u8; 32], request: &[u8; 64]) -> Vec<u8> {
    let said = [&b"MFDTOKEN\x01\0\0\0\0\0\0\0"[..], &[8; 32]].concat();
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).unwrap();
    let over = [&b"multifd token: L"[..], request, &said, &[0; 32]];
    over.iter().for_each(|bytes| mac.update(bytes));
    [&said[..], &mac.finalize().into_bytes()].concat()
}
