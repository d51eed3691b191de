//! What the destination says on the return path.

/// The state of the return path at the side that hears it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReturnPath {
    /// The source has opened it.
    open: bool,
    /// Everything is sent, or the last of it is being sent: the destination may confirm.
    complete: bool,
    heard: Heard,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Heard {
    #[default]
    Nothing,
    /// The destination has everything.
    Confirmed,
    /// The destination has closed without a word.
    Closed,
}

/// A confirmation before everything was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Early;

impl ReturnPath {
    pub(crate) fn open(&mut self) {
        self.open = true;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// The last bytes are about to be sent.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The destination has said that it has everything.
    pub(crate) fn confirm(&mut self) -> Result<(), Early> {
        if !self.complete {
            return Err(Early);
        }
        self.heard = Heard::Confirmed;
        Ok(())
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.heard == Heard::Confirmed
    }

    /// The destination has closed its end.
    pub(crate) fn close(&mut self) {
        if self.heard == Heard::Nothing {
            self.heard = Heard::Closed;
        }
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
