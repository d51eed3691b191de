//! What can go wrong with a migration.

use std::fmt;
use std::io;
use std::time::Duration;

use multifd_core::wire::BlockName;
use multifd_core::{ErrorKind, PageSize, PeerError, UsageError};

use crate::driver::MainChannelError;
use crate::engine::return_path::Owner;
use crate::stream::{StreamError, StreamErrorKind};
use crate::transport::{Uri, is_refusal};

/// Why a migration failed: the first error of any of its channels.
///
/// Its text does not repeat its [`source`](std::error::Error::source): print the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A multifd channel failed.
    #[error(transparent)]
    Channel(#[from] multifd_core::Error),
    /// The main channel failed.
    #[error("main channel")]
    Main(#[from] MainChannelError),
    /// The caller asked for something that cannot be.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// Guest memory was to be sent without a copy where it cannot be.
    #[error("zero-copy send is not possible here, so leave it off")]
    ZeroCopy(#[source] io::Error),
    /// More channels than the format can number, or none.
    #[error("{0} channels are not possible: 1 to 255")]
    ChannelCount(usize),
    /// No connection to the destination.
    #[error("cannot connect {}", to_connect(*channel, uri))]
    Connect {
        /// The channel's number; `None` for the main channel, which is the first.
        channel: Option<u8>,
        /// The destination's address.
        uri: Uri,
        /// The failure.
        source: io::Error,
    },
    /// No TLS with a peer.
    #[cfg(feature = "tls")]
    #[error("no TLS with {peer}")]
    Tls {
        /// Who it is.
        peer: String,
        /// Why.
        source: crate::tls::TlsError,
    },
    /// A peer is not known to have the token.
    #[cfg(feature = "token")]
    #[error("no agreement on a token with {peer}")]
    Token {
        /// Who it is.
        peer: String,
        /// Why.
        source: crate::token::TokenError,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {uri}{}", listen_hint(source))]
    Listen {
        /// The address.
        uri: Uri,
        /// The failure.
        source: io::Error,
    },
    /// The system refused a thread, a socket option or a message.
    #[error("{doing} failed")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The failure.
        source: io::Error,
    },
    /// The program's own function for new threads failed: see [`Threads`](crate::Threads).
    #[error("what thread {name} does first failed: the migration's threads must begin by it")]
    Thread {
        /// The thread's name.
        name: String,
        /// The failure.
        source: io::Error,
    },
    /// Not all channels connected in time.
    #[error(
        "{connected} of {channels} channels connected within {}: {}{refused}",
        Seconds(*limit), missing_hint(*main_ended)
    )]
    MissingChannels {
        /// Channels that did.
        connected: usize,
        /// Channels that are agreed.
        channels: usize,
        /// How long was waited.
        limit: Duration,
        /// The source had closed its main channel by then.
        main_ended: bool,
        /// Connections that were refused by then: one of them may be the channel's.
        refused: Refused,
    },
    /// The source closed the main channel, and its channels do not go on.
    #[error(
        "the source closed the main channel, and {waiting_for} was still waited for: it failed or \
         gave up, its own messages say why"
    )]
    MainEnded {
        /// What was waited for.
        waiting_for: &'static str,
    },
    /// The source does nothing more, and has ended a channel, or had one refused, before.
    #[error(
        "the source stopped: a channel of it ended or was refused, and no byte has come for {} \
         of the main channel, which had more to come: its own messages say why",
        Seconds(*idle)
    )]
    SourceStopped {
        /// For how long nothing moved.
        idle: Duration,
    },
    /// The other side does nothing.
    #[error(
        "no byte has come from {peer} or gone there for {}, while {waiting_for} was waited \
         for{missing}: the other side, the network or a codec's device hangs; where it is only slow, set a \
         longer progress timeout",
        Seconds(*idle),
        missing = missing_channels(channels)
    )]
    Stalled {
        /// What was waited for.
        waiting_for: &'static str,
        /// The channels that it was waited for, if it was for channels.
        channels: Vec<u8>,
        /// From whom.
        peer: String,
        /// For how long nothing moved.
        idle: Duration,
    },
    /// The migration has taken longer than it may.
    #[error("the migration is not over after {}: allow it more time", Seconds(*limit))]
    TimeIsOver {
        /// The limit that was set.
        limit: Duration,
    },
    /// No channel connected in time.
    #[error(
        "no channel connected within {}, only the main channel: the source does not use \
         multifd (turn the capability on there), or its further connections do not get through",
        Seconds(*limit)
    )]
    NoChannels {
        /// How long was waited.
        limit: Duration,
    },
    /// The source has not waited for the confirmation.
    #[error(
        "the source went away before it could be told that its VM has arrived: its guest goes on \
         there"
    )]
    SourceGone,
    /// The confirmation was broken off while it was sent. The source may have heard it or not.
    #[error(
        "sending the confirmation failed, and it is not known whether the source has heard it: look \
         there before the guest goes on at either side"
    )]
    Unconfirmed(#[source] io::Error),
    /// The destination answers more than it was asked.
    #[error(
        "the destination sends answers without end on the return path, which nobody has asked for"
    )]
    TooManyAnswers,
    /// A confirmation of what has not been sent.
    #[error("the destination confirmed the migration before everything was sent to it")]
    EarlyConfirmation,
    /// A second main channel, among streams that were given.
    #[error("a second main channel connected; one migration at a time")]
    SecondMain,
    /// Packets of the source never came, so that its pages are not all here.
    #[error(
        "{packets} packets were sent on a channel that is not here (the first is number {first}), and \
         their pages are lost: set the same number of channels on both sides{refused}"
    )]
    LostPackets {
        /// How many there were.
        packets: u64,
        /// The lowest number of them.
        first: u64,
        /// Connections that were refused: one of them may be the channel's.
        refused: Refused,
    },
    /// Channels of one source that do not announce the same.
    #[error(
        "some channels announce digests of the source's RAM, and others do not: a channel is not the \
         source's; migrate again"
    )]
    MixedDigests,
    /// A relay has announced its channels as those of somebody else than the source.
    #[error(
        "somebody else's channel was here before the source's, and what it announced has been passed on: \
         migrate again"
    )]
    Forestalled,
    /// At a [`Server`](crate::server::Server) without a token, a channel of another VM came from the same host for
    /// which there is no main channel: this migration may have its main channel.
    #[error(
        "a channel of another VM came from the same host, without a main channel of its own: the two may have been \
         taken for each other, so neither goes on; migrate again, one after the other, or have both sides use a token"
    )]
    Indistinct,
    /// A packet's number came before, or is lower than that of the one before it.
    #[error(
        "packet {number} came twice, behind a later one of its channel, or with too many gaps before it: a \
         channel is not the source's, or the source numbers its packets wrongly"
    )]
    OutOfTurn {
        /// The packet's number.
        number: u64,
    },
    /// The source went away or hangs, and channels had been refused, which may be why.
    #[error("the migration failed{refused}")]
    AfterRefusal {
        /// What was refused.
        refused: Refused,
        /// How the migration failed.
        #[source]
        error: Box<Error>,
    },
    /// A channel ended while the main channel had more to come.
    #[error("channel {0} ended before the migration was complete: the source failed or went away")]
    EndedEarly(u8),
    /// Pages after the last sync.
    #[error("channel {0} carries pages or a SYNC after the last sync of the main channel")]
    AfterLastSync(u8),
    /// Pages before the set-up's SYNC, when a destination need not know its RAM yet. A relay passes none
    /// on.
    #[error("channel {0} carries pages before its first SYNC, that of the set-up")]
    BeforeFirstSync(u8),
    /// Pages while the channel's own SYNC is pending.
    #[error("channel {0} goes on before the main channel has come to the same SYNC")]
    AheadOfSync(u8),
    /// The source's RAM does not fit this side's.
    #[error("the source's RAM block '{name}' has {bytes} bytes: {why}")]
    Block {
        /// The block's name.
        name: BlockName,
        /// Its length at the source, in bytes.
        bytes: u64,
        /// What does not fit.
        why: String,
    },
    /// What has arrived is not what the source has sent.
    #[error(
        "the RAM block '{name}' that has arrived is not the one that the source sent: a bit has \
         flipped on the way, or a codec or a relay has a fault; migrate again, and over TLS if it is \
         the network"
    )]
    Digest {
        /// The block's name.
        name: BlockName,
    },
    /// What the source would say of its RAM is not there.
    #[error(
        "the source's channels announce digests of its RAM, and none have come: its VMDESCRIPTION has \
         changed on the way; migrate again"
    )]
    NoDigests,
    /// The RAM that was to be sent is not what it should be.
    #[error(
        "the RAM block '{name}' does not hold what it should: its memory or its file has changed; \
         nothing was handed over"
    )]
    Changed {
        /// The block's name.
        name: BlockName,
    },
    /// The RAM given has pages of another size than the source's.
    #[error("the source's pages have {announced}, those of the RAM given are of {own}")]
    PageSize {
        /// The size of the source's pages.
        announced: PageSize,
        /// The page size of the RAM that was given.
        own: PageSize,
    },
    /// The caller could not provide for or store what arrived: see [`Error::caller`].
    #[error("this side cannot take the VM in")]
    Caller(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The device state that was to be sent cannot be read.
    #[error("the device state cannot be read")]
    DeviceState(#[source] io::Error),
    /// The destination said that it failed.
    #[error(
        "the destination reports failure (status {0}{changed}): its own messages say why; the guest's \
         memory here is untouched",
        changed = changed_hint(*.0)
    )]
    DestinationFailed(u32),
    /// The destination went away before it said that it has everything.
    #[error(
        "the destination closed the connection before it confirmed the migration: its own \
         messages say why; the guest's memory here is untouched"
    )]
    DestinationGone,
    /// A relay's connections with one side failed.
    #[error("{side}")]
    Relay {
        /// The side.
        side: Side,
        /// What failed there.
        #[source]
        error: Box<Error>,
    },
    /// The destination said, through a relay, that it failed.
    #[error(
        "the destination reports failure (status {0}{changed}), and the source has been told: the \
         destination's own messages say why",
        changed = changed_hint(*.0)
    )]
    DestinationRefused(u32),
    /// The source of a relay closed before the destination had confirmed.
    #[error("the source closed the main channel before the destination had confirmed")]
    SourceLeft,
    /// The destination of a relay closed before the migration was over.
    #[error(
        "the destination closed the main channel before the migration was over: its own messages \
         say why"
    )]
    DestinationLeft,
    /// The destination closed a connection while it was written to, and did not say why.
    #[error(
        "the destination closed a connection (its own messages say why, and the guest's memory \
         here is untouched)"
    )]
    DestinationClosed(#[source] Box<Self>),
    /// The guest dirties its memory too fast for its downtime, and the time for it is over.
    #[error(
        "the time for the migration is over after {rounds} whole rounds, and sending the rest would \
         take longer than the downtime of {} ms: allow more of either, or slow the guest down",
        downtime.as_micros() as f64 / 1e3
    )]
    NotConverging {
        /// Rounds that have been sent.
        rounds: u32,
        /// How long sending the rest may take.
        downtime: Duration,
    },
    /// The VMM could not do with its guest what a migration needs.
    #[error("the VMM failed")]
    Guest(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A codec, or something given to the migration, panicked.
    #[error(
        "a thread of the migration panicked: a codec, or the memory of the guest, is at fault; its \
         message is on stderr"
    )]
    Panicked,
    /// A connection that was handed in is one too many.
    #[error(
        "the connection is not taken in: the migration has all its channels, or too many connections \
         wait to be its channels"
    )]
    NotTakenIn,
    /// The migration has failed before.
    #[error("the migration is over: it has failed before")]
    Over,
    /// The migration was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// How a migration ended that was not finished: why, and whose the guest is. Exactly one side may
/// run it.
///
/// Its text does not repeat its [`source`](std::error::Error::source): print the whole chain.
#[allow(clippy::exhaustive_enums, reason = "the guest is here, or nobody on this side knows")]
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// The destination does not have the guest and cannot come to have it: it goes on at the
    /// source.
    #[error(transparent)]
    Failed(Error),
    /// The destination has been sent everything, or may have been, and has not said whether it has
    /// the guest. The guest stays stopped here until somebody has looked there.
    #[error(
        "it is not known whether the destination has the guest: look there before the guest goes on \
         at the source"
    )]
    Unclear(#[source] Error),
}

impl Unfinished {
    /// The verdict on a migration that `error` ended; it is done all the same where the guest is the
    /// destination's.
    pub(crate) fn judge(owner: Owner, error: Error) -> Result<(), Self> {
        match owner {
            Owner::Source => Err(Self::Failed(error)),
            Owner::Unclear => Err(Self::Unclear(error)),
            Owner::Destination => {
                tracing::warn!(%error, "after the destination has confirmed");
                Ok(())
            }
        }
    }

    /// What ended the migration.
    pub fn error(&self) -> &Error {
        let (Self::Failed(error) | Self::Unclear(error)) = self;
        error
    }
}

/// For the steps before [`finish`](crate::Source::finish): while they fail, the destination cannot
/// have the guest.
impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Connections that came to a receiving side, and were refused: a port scanner's, say, or a channel that
/// the two sides have not agreed on. The migration goes on without them.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Refused {
    /// How many there were.
    pub connections: u64,
    /// How many of them had said that they were a channel, and came from the main channel's host.
    pub channels: u64,
    /// The last of these, or the last of all if there were none: where it came from, and why it was
    /// refused.
    pub last: Option<String>,
}

impl Refused {
    /// Takes note of a connection from `peer`, which may be a channel of the source's.
    pub(crate) fn add(&mut self, peer: &str, why: &str, is_channel: bool) {
        self.connections += 1;
        self.channels += u64::from(is_channel);
        if is_channel || self.channels == 0 {
            self.last = Some(format!("{peer}: {why}"));
        }
    }
}

/// As the rest of a sentence; nothing where there were none.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, last) = match (self.connections, &self.last) {
            (0, _) | (_, None) => return Ok(()),
            (1, Some(last)) => return write!(f, "; 1 connection was refused: {last}"),
            (connections, Some(last)) => (connections, last),
        };
        write!(f, "; {connections} connections were refused, among them {last}")
    }
}

/// The two sides of a relay.
#[allow(clippy::exhaustive_enums, reason = "there is no third")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the migration comes from.
    From,
    /// Where it goes.
    To,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::From => "from the source",
            Self::To => "to the destination",
        })
    }
}

impl Error {
    /// Why the caller of a migration cannot take in what arrives: an error of its own, or a text.
    pub fn caller(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Caller(error.into())
    }

    /// Only `connected` of `channels` channels have connected within `limit`, of a source that has
    /// closed its main channel by then or not.
    pub(crate) fn missing_channels(
        connected: usize,
        channels: usize,
        limit: Duration,
        main_ended: bool,
        refused: Refused,
    ) -> Self {
        match connected {
            0 if !main_ended && refused.connections == 0 => Self::NoChannels { limit },
            _ => Self::MissingChannels { connected, channels, limit, main_ended, refused },
        }
    }

    /// The error, where it says what was refused, with what has been by now.
    pub(crate) fn with_refused(self, now: Refused) -> Self {
        match self {
            Self::Relay { side, error } => {
                Self::Relay { side, error: Box::new(error.with_refused(now)) }
            }
            Self::LostPackets { packets, first, .. } => {
                Self::LostPackets { packets, first, refused: now }
            }
            error => error,
        }
    }

    /// The error of a source that went away, with the channels that had been refused, if it may have
    /// gone for that.
    pub(crate) fn after(self, refused: &Refused) -> Self {
        let goes = match &self {
            Self::Relay { side: Side::From, .. } => {
                let Self::Relay { side, error } = self else { return self };
                return Self::Relay { side, error: Box::new(error.after(refused)) };
            }
            Self::EndedEarly(_)
            | Self::MainEnded { .. }
            | Self::SourceStopped { .. }
            | Self::Stalled { .. } => true,
            Self::Main(MainChannelError::Read { .. }) => true,
            Self::Main(MainChannelError::Stream(error)) => {
                matches!(error.kind, StreamErrorKind::Truncated { .. })
            }
            Self::Channel(error) => {
                matches!(error.kind(), ErrorKind::Io { .. } | ErrorKind::Peer(PeerError::Truncated))
            }
            _ => false,
        };
        match goes && refused.channels > 0 {
            true => Self::AfterRefusal { refused: refused.clone(), error: Box::new(self) },
            false => self,
        }
    }

    /// The error with the channels that were waited for, where it is that it was for `what` in vain.
    pub(crate) fn lacking(self, what: &str, channels: Vec<u8>) -> Self {
        match self {
            Self::Stalled { waiting_for, peer, idle, .. } if waiting_for == what => {
                Self::Stalled { waiting_for, channels, peer, idle }
            }
            error => error,
        }
    }

    /// The error of a handshake as that of a channel, or of the main channel.
    pub(crate) fn of_channel(self, channel: Option<u8>) -> Self {
        match (self, channel) {
            #[cfg(feature = "tls")]
            (Self::Tls { peer, source }, Some(number)) => {
                Self::Tls { peer: format!("{peer}, channel {number}"), source }
            }
            #[cfg(feature = "token")]
            (Self::Token { peer, source }, Some(number)) => {
                Self::Token { peer: format!("{peer}, channel {number}"), source }
            }
            (error, _) => error,
        }
    }

    /// The error as that of one side of a relay.
    pub(crate) fn on(side: Side) -> impl Fn(Self) -> Self {
        move |error| match error {
            Self::Relay { .. } => error,
            error => Self::Relay { side, error: Box::new(error) },
        }
    }

    /// The error of a thread that was not started, for another who is to know of it.
    pub(crate) fn again(&self) -> Self {
        let again = |source: &io::Error| match source.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(source.kind(), source.to_string()),
        };
        match self {
            Self::Thread { name, source } => {
                Self::Thread { name: name.clone(), source: again(source) }
            }
            Self::System { doing, source } => Self::System { doing, source: again(source) },
            Self::Panicked => Self::Panicked,
            _ => Self::Over,
        }
    }

    /// Whether a peer has gone without a word.
    pub(crate) fn is_silence(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls { source, .. } => source.is_silence(),
            #[cfg(feature = "token")]
            Self::Token { source, .. } => source.is_silence(),
            _ => false,
        }
    }

    pub(crate) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }

    /// Whether a destination has refused a connection before it took anything from it.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Relay { error, .. } => error.is_refusal(),
            Self::Channel(error) => match error.kind() {
                ErrorKind::Io { source, .. } => is_refusal(source),
                _ => false,
            },
            Self::Main(MainChannelError::Write { source, .. }) => is_refusal(source),
            _ => false,
        }
    }

    /// Whether the other side's going away looks like this from here, and may have a better
    /// reason than this one.
    pub(crate) fn is_disconnect(&self) -> bool {
        let source = match self {
            Self::Relay { error, .. } => return error.is_disconnect(),
            Self::Channel(error) => match error.kind() {
                ErrorKind::Io { source, .. } => source,
                _ => return false,
            },
            Self::Main(MainChannelError::Write { source, .. }) => source,
            #[cfg(feature = "token")]
            Self::Token { source, .. } => return source.is_disconnect(),
            // A destination that has failed listens no more. One that does not answer has had its time, also
            // for a word.
            Self::Connect { source, .. } => return source.kind() != io::ErrorKind::TimedOut,
            _ => return false,
        };
        matches!(source.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
    }
}

impl From<StreamError> for Error {
    fn from(error: StreamError) -> Self {
        Self::Main(error.into())
    }
}

/// A time in a message, in seconds: below ten to a millisecond, above to a tenth. No limit is said to be 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            0 => write!(f, "{} s", self.0.as_secs_f64()),
            millis @ 1..10_000 => write!(f, "{} s", millis as f64 / 1e3),
            millis => write!(f, "{} s", (millis / 100) as f64 / 10.0),
        }
    }
}

/// What cannot be connected where, and what to look for.
fn to_connect(channel: Option<u8>, uri: &Uri) -> String {
    match channel {
        None => format!("to {uri} (is the destination listening there?)"),
        Some(number) => {
            format!(
                "channel {number} to {uri} (the main channel is connected: do more get through?)"
            )
        }
    }
}

/// As an addition to what is waited for.
fn missing_channels(channels: &[u8]) -> String {
    let numbers = channels.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    match channels {
        [] => String::new(),
        [_] => format!(" (missing: channel {numbers})"),
        _ => format!(" (missing: channels {numbers})"),
    }
}

/// As part of a status that is not the one that destinations say.
fn changed_hint(status: u32) -> &'static str {
    if status == 1 { "" } else { ", which may have changed on its way" }
}

fn missing_hint(main_ended: bool) -> &'static str {
    if main_ended {
        "the source has closed its main channel, its own messages say why; or set the same number of \
         channels on both sides"
    } else {
        "set the same number of channels on both sides"
    }
}

fn listen_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => " (another program, or an earlier run, has it; pick another)",
        io::ErrorKind::AddrNotAvailable => " (it is not an address of this machine)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_seconds_and_none_that_is_short_as_0() {
        for (micros, said) in [
            (120_003_000, "120 s"),
            (12_570_000, "12.5 s"),
            (9_999_900, "9.999 s"),
            (2_000_000, "2 s"),
            (50_000, "0.05 s"),
            (20, "0.00002 s"),
            (0, "0 s"),
        ] {
            assert_eq!(Seconds(Duration::from_micros(micros)).to_string(), said);
        }
    }

    #[test]
    fn a_destination_that_refuses_a_connection_may_say_why_and_one_that_is_silent_has_had_its_time()
    {
        for (kind, may_say) in [
            (io::ErrorKind::ConnectionRefused, true),
            (io::ErrorKind::NotFound, true),
            (io::ErrorKind::TimedOut, false),
        ] {
            let error = Error::Connect { channel: Some(1), uri: Uri::Unnamed, source: kind.into() };
            assert_eq!(error.is_disconnect(), may_say, "{kind}");
            let relayed = Error::on(Side::To)(error);
            assert_eq!(relayed.is_disconnect(), may_say, "{kind}");
        }
    }
}
