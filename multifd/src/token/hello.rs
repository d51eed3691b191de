//! The hello of a connection, as machines of its two sides: no IO, no randomness.
//!
//! ```text
//! connects                                          listens
//!    ── request: which migration, which channel, nonce ──→
//!    ←── answer: nonce, proof over all of that ───────────
//!    ── reply: proof over all of that ───────────────────→
//! ```
//!
//! The format is written down in docs/token.md. All lengths are fixed.

use hmac::{Hmac, Mac};
use multifd_core::channel::MAIN_MAGIC;
use sha2::Sha256;

use super::Token;
use super::error::TokenError;
use crate::transport::{Binding, Introduction, MigrationId, Role};

/// What requests and answers start with. It is not what a main channel, a multifd channel, TLS or a
/// message of the return path starts with.
pub(super) const MAGIC: [u8; 8] = *b"MFDTOKEN";

pub(super) const VERSION: u8 = 1;

/// As long as a multifd channel's initial packet, which a QEMU waits for.
pub(super) const REQUEST: usize = 64;
pub(super) const ANSWER: usize = 80;
pub(super) const REPLY: usize = 40;

/// An answer's bytes that its proof is over.
const ANSWERED: usize = 48;

pub(super) type Nonce = [u8; 32];
type Proof = [u8; 32];

/// What a side comes to. Its value on the wire is in answers and replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good = 0,
    Version = 1,
    OneSidedTls = 2,
    /// The peer has said something else than a hello.
    TokenWanted = 3,
    Malformed = 4,
    Mismatch = 5,
}

/// Why a hello has failed, and what the peer is told of it, which may be nothing.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) error: TokenError,
    pub(super) say: Vec<u8>,
}

/// The side that connects.
#[derive(Debug)]
pub(super) struct Connecting<'a> {
    token: &'a Token,
    request: [u8; REQUEST],
    binding: [u8; 32],
    answer: Vec<u8>,
}

impl<'a> Connecting<'a> {
    pub(super) fn new(
        token: &'a Token,
        introduction: Introduction,
        nonce: Nonce,
        binding: Binding,
    ) -> Result<Self, TokenError> {
        let (kind, binding) = bound(binding)?;
        let (role, channel) = match introduction.role {
            Role::Main => (0, 0),
            Role::Channel(number) => (1, number),
        };
        let mut request = [0; REQUEST];
        request[..8].copy_from_slice(&MAGIC);
        request[8..12].copy_from_slice(&[VERSION, role, channel, kind]);
        request[16..32].copy_from_slice(&introduction.migration.0);
        request[32..].copy_from_slice(&nonce);
        Ok(Self { token, request, binding, answer: Vec::with_capacity(ANSWER) })
    }

    /// What is written first.
    pub(super) fn request(&self) -> &[u8; REQUEST] {
        &self.request
    }

    /// How many bytes of the answer are read next, at most.
    pub(super) fn wanted(&self) -> usize {
        // What is something else is known by its first bytes: no more of it may come.
        let next = if self.answer.len() < 4 { 4 } else { ANSWER };
        next - self.answer.len()
    }

    /// Takes bytes of the answer in. When it is whole and good, gives the reply, which ends the hello.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<[u8; REPLY]>, Wrong> {
        self.answer.extend_from_slice(bytes);
        if let Some(&first) = self.answer.first_chunk() {
            if first != MAGIC[..4] {
                return Err(TokenError::NotAHello { first }.into());
            }
        }
        match self.answer[..].try_into() {
            Ok(answer) => self.judge(&answer).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn judge(&self, answer: &[u8; ANSWER]) -> Result<[u8; REPLY], Wrong> {
        if answer[..8] != MAGIC {
            return Err(TokenError::Malformed.into());
        }
        if answer[8] != VERSION {
            return Err(TokenError::Version { found: answer[8], own: VERSION }.into());
        }
        if answer[9] != Verdict::Good as u8 {
            return Err(refused(answer[9]).into());
        }
        let (said, proof) = answer.split_at(ANSWERED);
        if said[10..16] != [0; 6] {
            return Err(TokenError::Malformed.into());
        }
        let over = [&self.request[..], said, &self.binding];
        if !proves(self.token, LISTENS, over, proof) {
            let say = reply(Verdict::Mismatch, [0; 32]).to_vec();
            return Err(Wrong { error: TokenError::Mismatch, say });
        }
        let over = [&self.request[..], answer, &self.binding];
        Ok(reply(Verdict::Good, prove(self.token, CONNECTS, over).finalize().into_bytes().into()))
    }
}

/// The side that listens.
#[derive(Debug)]
pub(super) struct Listening<'a> {
    token: &'a Token,
    nonce: Nonce,
    kind: u8,
    binding: [u8; 32],
    input: Vec<u8>,
    /// What the request says, and the answer to it.
    answered: Option<(Introduction, [u8; ANSWER])>,
}

/// What comes next on the side that listens.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More is to be read.
    Read,
    /// The answer is to be written.
    Answer([u8; ANSWER]),
    /// The peer has the token, and is this.
    Met(Introduction),
}

impl<'a> Listening<'a> {
    pub(super) fn new(
        token: &'a Token,
        nonce: Nonce,
        binding: Binding,
    ) -> Result<Self, TokenError> {
        let (kind, binding) = bound(binding)?;
        let input = Vec::with_capacity(REQUEST + REPLY);
        Ok(Self { token, nonce, kind, binding, input, answered: None })
    }

    /// Whether nothing has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// How many bytes are read next, at most.
    pub(super) fn wanted(&self) -> usize {
        let next = match (&self.answered, self.input.len()) {
            // What is not a hello is refused by its first bytes, and one of another version before the
            // rest, which may be shorter there.
            (None, ..4) => 4,
            (None, ..9) => 9,
            (None, _) => REQUEST,
            (Some(_), _) => REQUEST + REPLY,
        };
        next - self.input.len()
    }

    /// Takes bytes in, as many as are wanted at most.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Next, Wrong> {
        self.input.extend_from_slice(bytes);
        match &self.answered {
            None => self.request(),
            Some((introduction, answer)) => {
                let Some((request, reply)) = self.input.split_first_chunk::<REQUEST>() else {
                    return Ok(Next::Read);
                };
                let Ok(reply) = reply.try_into() else { return Ok(Next::Read) };
                self.judge(request, answer, reply)?;
                Ok(Next::Met(*introduction))
            }
        }
    }

    fn request(&mut self) -> Result<Next, Wrong> {
        let Some(&first) = self.input.first_chunk::<4>() else { return Ok(Next::Read) };
        if first != MAGIC[..4] {
            // A source hears it on its return path, and can say what is missing. Nobody listens on a
            // channel, which had best fail at once.
            let say = match first == MAIN_MAGIC {
                true => self.refusal(Verdict::TokenWanted),
                false => Vec::new(),
            };
            return Err(Wrong { error: TokenError::NotAHello { first }, say });
        }
        let Some(&head) = self.input.first_chunk::<9>() else { return Ok(Next::Read) };
        if head[..8] != MAGIC {
            return Err(self.wrong(TokenError::Malformed, Verdict::Malformed));
        }
        if head[8] != VERSION {
            let error = TokenError::Version { found: head[8], own: VERSION };
            return Err(self.wrong(error, Verdict::Version));
        }
        let Ok(request) = <[u8; REQUEST]>::try_from(&self.input[..]) else {
            return Ok(Next::Read);
        };
        let malformed = || self.wrong(TokenError::Malformed, Verdict::Malformed);
        let introduction = parse(&request).ok_or_else(malformed)?;
        if request[11] != self.kind {
            return Err(self.wrong(TokenError::OneSidedTls, Verdict::OneSidedTls));
        }
        let mut answer = answer(Verdict::Good);
        answer[16..ANSWERED].copy_from_slice(&self.nonce);
        let over = [&request[..], &answer[..ANSWERED], &self.binding];
        let proof: Proof = prove(self.token, LISTENS, over).finalize().into_bytes().into();
        answer[ANSWERED..].copy_from_slice(&proof);
        self.answered = Some((introduction, answer));
        Ok(Next::Answer(answer))
    }

    fn judge(
        &self,
        request: &[u8; REQUEST],
        answer: &[u8; ANSWER],
        reply: &[u8; REPLY],
    ) -> Result<(), TokenError> {
        let (said, proof) = reply.split_at(8);
        match said {
            [0, 0, 0, 0, 0, 0, 0, 0] => {}
            [verdict, 0, 0, 0, 0, 0, 0, 0] => return Err(refused(*verdict)),
            _ => return Err(TokenError::Malformed),
        }
        match proves(self.token, CONNECTS, [request, answer, &self.binding], proof) {
            true => Ok(()),
            false => Err(TokenError::Mismatch),
        }
    }

    fn wrong(&self, error: TokenError, verdict: Verdict) -> Wrong {
        Wrong { error, say: self.refusal(verdict) }
    }

    fn refusal(&self, verdict: Verdict) -> Vec<u8> {
        answer(verdict).to_vec()
    }
}

/// The labels of the two proofs, so that one does not pass for the other.
const CONNECTS: &[u8; 16] = b"multifd token: C";
const LISTENS: &[u8; 16] = b"multifd token: L";

fn prove(token: &Token, label: &[u8; 16], over: [&[u8]; 3]) -> Hmac<Sha256> {
    // A key of any length is one.
    let mut proof = token.mac();
    proof.update(label);
    over.into_iter().for_each(|bytes| proof.update(bytes));
    proof
}

/// Whether `proof` is right, in a time that does not say where it is wrong.
fn proves(token: &Token, label: &[u8; 16], over: [&[u8]; 3], proof: &[u8]) -> bool {
    prove(token, label, over).verify_slice(proof).is_ok()
}

/// What a proof is bound to, by its kind on the wire.
fn bound(binding: Binding) -> Result<(u8, [u8; 32]), TokenError> {
    match binding {
        Binding::Plain => Ok((0, [0; 32])),
        Binding::Tls(exported) => Ok((1, exported)),
        Binding::OldTls => Err(TokenError::OldTls),
    }
}

fn parse(request: &[u8; REQUEST]) -> Option<Introduction> {
    let role = match request[9..11] {
        [0, 0] => Role::Main,
        [1, number] => Role::Channel(number),
        _ => return None,
    };
    if request[11] > 1 || request[12..16] != [0; 4] {
        return None;
    }
    let migration = MigrationId(request[16..32].try_into().ok()?);
    Some(Introduction { migration, role })
}

/// An answer without nonce and proof.
fn answer(verdict: Verdict) -> [u8; ANSWER] {
    let mut answer = [0; ANSWER];
    answer[..8].copy_from_slice(&MAGIC);
    answer[8..10].copy_from_slice(&[VERSION, verdict as u8]);
    answer
}

fn reply(verdict: Verdict, proof: Proof) -> [u8; REPLY] {
    let mut reply = [0; REPLY];
    reply[0] = verdict as u8;
    reply[8..].copy_from_slice(&proof);
    reply
}

/// What the peer means that refuses this side.
fn refused(verdict: u8) -> TokenError {
    match verdict {
        verdict if verdict == Verdict::OneSidedTls as u8 => TokenError::OneSidedTls,
        verdict if verdict == Verdict::Mismatch as u8 => TokenError::Mismatch,
        _ => TokenError::Malformed,
    }
}

impl From<TokenError> for Wrong {
    fn from(error: TokenError) -> Self {
        Self { error, say: Vec::new() }
    }
}
