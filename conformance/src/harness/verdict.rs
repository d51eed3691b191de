//! How a case ends.

use multifd_core::Error;

/// What a case says in the end: the codec passes, or why not.
pub(crate) type Verdict<T = ()> = Result<T, Stop>;

/// Why a case ends without the codec having passed.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The codec does not do what the case's name says.
    Failed(String),
    /// The case says nothing about this codec, or cannot run here.
    NotApplicable(String),
}

impl Stop {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn not_applicable(reason: impl Into<String>) -> Self {
        Self::NotApplicable(reason.into())
    }
}

/// Says where in a case something failed.
pub(crate) trait Context<T> {
    fn context(self, place: impl FnOnce() -> String) -> Verdict<T>;
}

impl<T> Context<T> for Verdict<T> {
    fn context(self, place: impl FnOnce() -> String) -> Self {
        self.map_err(|stop| match stop {
            Stop::Failed(message) => Stop::Failed(format!("{}: {message}", place())),
            other @ Stop::NotApplicable(_) => other,
        })
    }
}

impl<T> Context<T> for Result<T, Error> {
    fn context(self, place: impl FnOnce() -> String) -> Verdict<T> {
        self.map_err(|error| Stop::Failed(format!("{}: {error}", place())))
    }
}

/// Ends the case as failed, with the message, unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err($crate::harness::Stop::Failed(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;
