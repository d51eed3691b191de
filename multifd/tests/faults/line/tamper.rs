//! What is done to the bytes of one direction of a connection.

use std::time::{Duration, Instant};

use super::{Act, End};
use crate::places::{At, Fields, Form};

/// A direction's bytes on their way: those that have come and have not been passed on.
#[derive(Debug)]
pub(super) struct Tamper {
    act: Option<(At, Act)>,
    fields: Fields,
    /// What has come before.
    pub(super) bytes: u64,
    pub(super) fields_begun: u64,
    /// Passed on as fast as can be.
    pub(super) out: Vec<u8>,
    /// Held back, for a time or for ever.
    held: Vec<u8>,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Passing,
    /// Nothing is passed on until then.
    Paused(Instant),
    Stalled,
    /// What is out is passed on, then the connection ends.
    Cut(End),
}

impl Tamper {
    pub(super) fn new(act: Option<(At, Act)>, form: Form) -> Self {
        let (out, held) = (Vec::new(), Vec::new());
        let state = State::Passing;
        Self { act, fields: Fields::new(form), bytes: 0, fields_begun: 0, out, held, state }
    }

    /// Takes the next bytes. Returns whether the act has been carried out.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        let start = self.bytes;
        let begun = self.fields.take(bytes);
        let before = self.fields_begun;
        self.bytes += bytes.len() as u64;
        self.fields_begun += begun.len() as u64;
        let Some((at, act)) = self.act else {
            self.pass(bytes);
            return false;
        };
        let place = match at {
            At::Byte(place) => (start..=self.bytes).contains(&place).then_some(place),
            At::Field(field) => field
                .checked_sub(before)
                .and_then(|field| begun.get(usize::try_from(field).ok()?).copied()),
        };
        let Some(place) = place else {
            self.pass(bytes);
            return false;
        };
        let index = usize::try_from(place - start).unwrap();
        if index == bytes.len() && matches!(act, Act::Flip(_) | Act::Drop | Act::Double) {
            // It is the next byte that is changed.
            self.act = Some((At::Byte(place), act));
            self.pass(bytes);
            return false;
        }
        self.act = None;
        let (before, behind) = bytes.split_at(index);
        self.pass(before);
        self.carry_out(act, behind);
        true
    }

    fn carry_out(&mut self, act: Act, behind: &[u8]) {
        match act {
            Act::Cut(end) => self.state = State::Cut(end),
            Act::Stall => self.state = State::Stalled,
            Act::Pause(pause) => {
                self.state = State::Paused(Instant::now() + pause);
                self.pass(behind);
            }
            Act::Flip(by) => {
                self.out.push(behind[0] ^ by);
                self.pass(&behind[1..]);
            }
            Act::Drop => self.pass(&behind[1..]),
            Act::Double => {
                self.out.push(behind[0]);
                self.pass(behind);
            }
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        match self.state {
            State::Passing => self.out.extend(bytes),
            State::Paused(_) => self.held.extend(bytes),
            State::Stalled | State::Cut(_) => {}
        }
    }

    /// Whether more may be read.
    pub(super) fn wants_more(&self) -> bool {
        self.out.is_empty() && self.state == State::Passing
    }

    /// How long until it goes on.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        let State::Paused(until) = self.state else { return None };
        let left = until.checked_duration_since(Instant::now());
        if left.is_none() {
            self.state = State::Passing;
            self.out.append(&mut self.held);
        }
        left
    }
}
