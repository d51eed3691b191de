//! Why connections are not taken in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multifd_core::{ErrorKind, PeerError};

use super::greeting::Unfit;
use crate::error::Seconds;
use crate::transport::Role;

/// Why a connection is not taken in. The migration goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// What it sent, or that it failed.
    #[error("{}", chain(.0))]
    Said(#[from] multifd_core::Error),
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("it did not say what it is within {}", Seconds(*.0))]
    Silent(Duration),
    #[error("it closed within the first bytes of its main channel")]
    CutOff,
    #[error("it closed before it sent more than its initial packet")]
    LeftEarly,
    #[error("no main channel came within {} of it: start the migration anew", Seconds(*.0))]
    NoMain(Duration),
    #[error("it was the oldest of too many that had not said what they are")]
    GaveWay,
    #[error("too many channels wait here already")]
    TooMany,
    /// Its attempt was given up before its main channel came: nothing is wrong with that.
    #[error("it left before its main channel came")]
    GivenUp,
    #[error("another migration is under way here: try again when that is over")]
    Busy,
    #[error("it comes from no network that is allowed")]
    NotAllowed,
    #[error("its TLS handshake was not done within {}", Seconds(*.0))]
    SlowHandshake(Duration),
    #[error("no TLS with it: {0}")]
    NoTls(String),
    #[error(
        "it left right behind the TLS handshake: it may not accept the certificate here, of another CA or \
         for another name; its own messages say why"
    )]
    LeftBehindTls,
    #[error("it has not proven that it is of the migration (token): {0}")]
    NotIntroduced(String),
    #[error(
        "it has proven that it is {role}, and says that it is {found}: its program has a fault, or somebody \
         has changed it on its way (TLS keeps them from that)"
    )]
    OtherRole { role: Role, found: Role },
    #[error("no thread could be started for it: {0}")]
    NoThread(std::io::Error),
    #[error(
        "no multifd channel came within {} of its main channel: at a QEMU, turn the capability multifd on",
        Seconds(*.0)
    )]
    NoChannels(Duration),
    #[error(
        "another migration from the same host began at the same moment, and which channel is of which cannot be \
         told: start them one after the other, or have both sides use a token"
    )]
    Indistinct,
    #[error("there are as many migrations here as there may be: try again when one is over")]
    Full,
    #[error("no new migration is taken here any more: it is being stopped")]
    Stopping,
    #[error("the migration that it is of is over")]
    Over,
    #[error("the program here has not taken its migration: it says why")]
    NotTaken,
}

/// How many connections were refused, by reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Refusals {
    pub(crate) fn count(&self, refusal: &Refusal) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(refusal.reason()).or_default() += 1;
    }

    /// All so far.
    pub(crate) fn so_far(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(&reason, &count)| (reason, count)).collect()
    }
}

impl Refusal {
    /// The reason in a word or two, for counts.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Said(_) | Self::Unfit(_) => "malformed",
            Self::Silent(_) => "silent",
            Self::CutOff | Self::LeftEarly | Self::GivenUp => "left_early",
            Self::NoMain(_) => "no_main_channel",
            Self::NoChannels(_) => "no_channels",
            Self::GaveWay | Self::TooMany => "too_many_waiting",
            Self::Busy => "busy",
            Self::NotAllowed => "network",
            Self::SlowHandshake(_) | Self::NoTls(_) | Self::LeftBehindTls => "tls",
            Self::NotIntroduced(_) | Self::OtherRole { .. } => "token",
            Self::NoThread(_) => "no_thread",
            Self::Indistinct => "indistinct",
            Self::Full => "full",
            Self::Stopping => "stopping",
            Self::Over => "over",
            Self::NotTaken => "not_taken",
        }
    }

    /// Whether the connection had said which channel it is: the two sides may not have agreed on it.
    pub(crate) fn is_of_channel(&self) -> bool {
        let Self::Said(error) = self else { return matches!(self, Self::LeftEarly) };
        matches!(
            error.kind(),
            ErrorKind::Peer(
                PeerError::Uuid { .. }
                    | PeerError::ChannelId { .. }
                    | PeerError::DuplicateChannel { .. }
            )
        )
    }
}

impl From<PeerError> for Refusal {
    fn from(error: PeerError) -> Self {
        Self::Said(error.into())
    }
}

/// An error and its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line += &format!(": {error}");
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use multifd_core::wire::Uuid;

    use super::*;

    #[test]
    fn only_what_has_said_which_channel_it_is_may_be_a_channel_of_the_sources() {
        let (expected, found) = (Uuid([1; 16]), Uuid([2; 16]));
        for error in [
            PeerError::Uuid { expected, found },
            PeerError::ChannelId { id: 3, channels: 2 },
            PeerError::DuplicateChannel { id: 0 },
        ] {
            assert!(Refusal::from(error).is_of_channel());
        }
        assert!(Refusal::LeftEarly.is_of_channel());
        for refusal in [
            PeerError::Truncated.into(),
            Refusal::Said(multifd_core::Error::reading(io::ErrorKind::ConnectionReset.into())),
            Unfit::Version(2).into(),
            Refusal::CutOff,
            Refusal::Busy,
        ] {
            assert!(!refusal.is_of_channel(), "{refusal}");
        }
    }

    #[test]
    fn an_error_is_said_with_its_causes() {
        let error = multifd_core::Error::reading(io::Error::other("no route"));
        let line = Refusal::from(error).to_string();
        assert!(line.ends_with(": no route") && line.len() > ": no route".len(), "{line}");
    }
}
