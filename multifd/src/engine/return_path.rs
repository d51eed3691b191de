//! What the destination says on the return path.

use std::time::Duration;

use super::session::{Session, Waiter};
use crate::error::Error;

/// How long a side whose connection broke waits for the destination's word on why.
pub(crate) const LAST_WORD: Duration = Duration::from_secs(3);

/// The most answers that a destination may send unasked.
const MOST_UNASKED: u64 = 1024;

/// How many answers a destination has sent that nobody asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unasked(u64);

impl Unasked {
    /// An answer has come.
    pub(crate) fn add(&mut self) -> Result<(), Error> {
        self.0 += 1;
        if self.0 > MOST_UNASKED { Err(Error::TooManyAnswers) } else { Ok(()) }
    }
}

/// The state of the return path at the side that hears it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReturnPath {
    /// The source has opened it.
    open: bool,
    /// The byte that completes the stream may have been written: the destination may confirm.
    complete: bool,
    heard: Heard,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Heard {
    #[default]
    Nothing,
    /// The destination has everything.
    Confirmed,
    /// The destination has said that it failed.
    Refused,
    /// The destination has closed without a word that can be relied on.
    Closed,
}

/// Whose the guest is, as far as this side can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Source,
    Destination,
    Unclear,
}

impl ReturnPath {
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The byte that completes the stream is about to be written. Without it a destination has no
    /// VM that it could run.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The destination has said that it has everything.
    pub(crate) fn confirm(&mut self) -> Result<(), Error> {
        if !self.complete {
            return Err(Error::EarlyConfirmation);
        }
        self.hear(Heard::Confirmed);
        Ok(())
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.heard == Heard::Confirmed
    }

    /// The destination has said that it failed.
    pub(crate) fn refuse(&mut self) {
        self.hear(Heard::Refused);
    }

    /// The destination has said that it failed, with `status`. Destinations say 1. Another number may be
    /// the 0 of one that has the guest, with a bit or a byte changed on its way: nothing in the format
    /// would show it.
    pub(crate) fn refuse_with(&mut self, status: u32) {
        self.hear(if status == 1 { Heard::Refused } else { Heard::Closed });
    }

    /// The first word counts: who has said that the guest is there, or is not, cannot take it back, since
    /// this side has acted on it.
    fn hear(&mut self, word: Heard) {
        if self.heard == Heard::Nothing {
            self.heard = word;
        }
    }

    /// Whose the guest is, of a migration that ends as it is. It depends on what was written and
    /// heard alone, not on the error that ended it.
    pub(crate) fn owner(&self) -> Owner {
        match self.heard {
            Heard::Confirmed => Owner::Destination,
            Heard::Refused => Owner::Source,
            Heard::Nothing | Heard::Closed if self.complete => Owner::Unclear,
            Heard::Nothing | Heard::Closed => Owner::Source,
        }
    }

    /// The destination has closed its end.
    pub(crate) fn close(&mut self) {
        self.hear(Heard::Closed);
    }

    /// Whether the destination may still say something on why it failed.
    pub(crate) fn may_speak(&self) -> bool {
        self.open && self.heard == Heard::Nothing
    }

    /// Whether the destination has said its last.
    pub(crate) fn is_over(&self) -> bool {
        self.heard != Heard::Nothing
    }
}

/// Gives a destination that closed a connection time to say why on the return path: its word fails
/// the migration first, says more than the broken pipe, and is for the source to hear.
pub(crate) fn hear_last_word<S>(session: &Session<S>, error: &Error)
where
    S: AsRef<ReturnPath> + Send + 'static,
{
    if error.is_disconnect() && session.look(|state| state.as_ref().may_speak()) {
        _ = session
            .wait_for::<()>(Waiter::Main, "the destination's last word", LAST_WORD, |_| None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Step = fn(&mut ReturnPath);

    fn path(steps: &[Step]) -> ReturnPath {
        let mut path = ReturnPath::default();
        steps.iter().for_each(|step| step(&mut path));
        path
    }

    #[test]
    fn the_guest_is_the_sources_until_the_stream_may_be_complete() {
        assert_eq!(path(&[]).owner(), Owner::Source);
        assert_eq!(path(&[ReturnPath::open]).owner(), Owner::Source);
        assert_eq!(path(&[ReturnPath::open, ReturnPath::close]).owner(), Owner::Source);
        assert_eq!(path(&[ReturnPath::open, |path| path.refuse_with(2)]).owner(), Owner::Source);
    }

    #[test]
    fn from_then_on_only_the_destinations_word_says_whose_it_is() {
        for open in [&[][..], &[ReturnPath::open as Step]] {
            let end = |last: &[Step]| path(&[open, &[ReturnPath::complete], last].concat()).owner();
            assert_eq!(end(&[]), Owner::Unclear);
            assert_eq!(end(&[ReturnPath::close]), Owner::Unclear);
            assert_eq!(end(&[ReturnPath::refuse]), Owner::Source);
            assert_eq!(end(&[|path| path.refuse_with(1)]), Owner::Source);
            // One byte of a confirmation has changed.
            assert_eq!(end(&[|path| path.refuse_with(1 << 19)]), Owner::Unclear);
            assert_eq!(end(&[|path| path.refuse_with(2)]), Owner::Unclear);
            let confirm = |path: &mut ReturnPath| path.confirm().unwrap();
            assert_eq!(end(&[confirm]), Owner::Destination);
            assert_eq!(end(&[confirm, ReturnPath::close]), Owner::Destination);
            assert_eq!(end(&[confirm, ReturnPath::refuse]), Owner::Destination);
            assert_eq!(end(&[ReturnPath::refuse, confirm]), Owner::Source);
            assert_eq!(end(&[ReturnPath::refuse, ReturnPath::close]), Owner::Source);
        }
    }

    #[test]
    fn a_destination_may_speak_on_an_open_path_until_it_has_said_its_last() {
        let (silent, open) = (path(&[]), path(&[ReturnPath::open]));
        assert!(!silent.may_speak() && !silent.is_over());
        assert!(open.may_speak() && !open.is_over());
        for last in [ReturnPath::close as Step, ReturnPath::refuse] {
            let over = path(&[ReturnPath::open, last]);
            assert!(!over.may_speak() && over.is_over());
        }
    }

    #[test]
    fn a_path_is_open_once_it_was_opened_and_confirmed_by_that_word_alone() {
        let confirm = |path: &mut ReturnPath| path.confirm().unwrap();
        let cases: [(&[Step], bool, bool); 6] = [
            (&[], false, false),
            (&[ReturnPath::open], true, false),
            (&[ReturnPath::complete, confirm], false, true),
            (&[ReturnPath::open, ReturnPath::complete, confirm], true, true),
            (&[ReturnPath::open, ReturnPath::complete, ReturnPath::refuse], true, false),
            (&[ReturnPath::open, ReturnPath::complete, ReturnPath::close], true, false),
        ];
        for (steps, open, confirmed) in cases {
            let path = path(steps);
            assert_eq!((path.is_open(), path.is_confirmed()), (open, confirmed), "{path:?}");
        }
    }

    #[test]
    fn the_1025th_answer_that_nobody_asked_for_is_an_error() {
        let mut unasked = Unasked::default();
        for _ in 0..MOST_UNASKED {
            unasked.add().unwrap();
        }
        assert!(matches!(unasked.add(), Err(Error::TooManyAnswers)));
    }

    #[test]
    fn a_confirmation_before_the_end_of_the_stream_is_an_error_and_gives_nothing_away() {
        let mut path = path(&[ReturnPath::open]);
        assert!(matches!(path.confirm(), Err(Error::EarlyConfirmation)));
        assert_eq!(path.owner(), Owner::Source);
    }
}
