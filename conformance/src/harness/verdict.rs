//! How a case ends.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
pub(crate) trait Context {
    fn context(self, place: impl FnOnce() -> String) -> Self;
}

impl<T> Context for Verdict<T> {
    fn context(self, place: impl FnOnce() -> String) -> Self {
        self.map_err(|stop| match stop {
            Stop::Failed(message) => Stop::Failed(format!("{}: {message}", place())),
            other @ Stop::NotApplicable(_) => other,
        })
    }
}

/// The codec's work, whose panic fails the case where it happens: whoever is told adds the place.
pub(crate) fn unwinding<T>(work: impl FnOnce() -> T) -> Verdict<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panicked(&*panic))
}

/// The codec's work, which has to succeed.
pub(crate) fn succeed<T>(doing: &str, work: impl FnOnce() -> Result<T, Error>) -> Verdict<T> {
    unwinding(work)
        .and_then(|done| done.map_err(|error| Stop::failed(error.to_string())))
        .context(|| doing.to_owned())
}

/// What a panic says.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Stop {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Stop::Failed(format!("panicked: {}", text.unwrap_or("without a text")))
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
