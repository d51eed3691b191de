//! What has to hold after a fault, whatever it was.

use multifd::core::ErrorKind;
use multifd::{Error, Unfinished};

use crate::case::{Case, Expected, Fault, Side};
use crate::common::chain;
use crate::guest::device_state;
use crate::line::{Act, Deaf};
use crate::migration::{Ended, Outcome};
use crate::places::{At, Direction, Place, Wire};

/// What an error says it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    Main,
    Channel(u8),
    /// Channels, not one by its number: they are missing, or one was not known yet.
    Channels,
    /// A connection that was being made.
    Connecting,
    /// The other side says that it failed: its own error says why.
    Told,
    /// This side's own doing, or its limits.
    Own,
}

/// Where an error puts the blame; an error that no fault may lead to is none.
fn blame(error: &Error) -> Option<Blame> {
    Some(match error {
        Error::Channel(error) => match (error.place().channel, error.kind()) {
            (_, ErrorKind::Usage(_)) => return None,
            (Some(number), _) => Blame::Channel(number),
            (None, _) => Blame::Channels,
        },
        Error::EndedEarly(number) | Error::AfterLastSync(number) | Error::AheadOfSync(number) => {
            Blame::Channel(*number)
        }
        Error::Main(_)
        | Error::MainEnded { .. }
        | Error::SourceGone
        | Error::SourceLeft
        | Error::DestinationGone
        | Error::DestinationLeft
        | Error::Unconfirmed(_)
        | Error::Block { .. }
        | Error::PageSize { .. }
        | Error::NoDigests => Blame::Main,
        Error::Stalled { waiting_for, .. } if waiting_for.contains("main channel") => Blame::Main,
        Error::Stalled { .. }
        | Error::MissingChannels { .. }
        | Error::NoChannels { .. }
        | Error::LostPackets { .. }
        | Error::OutOfTurn { .. }
        | Error::SourceStopped { .. }
        | Error::Digest { .. } => Blame::Channels,
        Error::Connect { channel: Some(number), .. } => Blame::Channel(*number),
        Error::Connect { channel: None, .. } => Blame::Main,
        Error::Tls { .. } => Blame::Connecting,
        Error::DestinationFailed(_) | Error::DestinationRefused(_) => Blame::Told,
        Error::DestinationClosed(error) | Error::Relay { error, .. } => return blame(error),
        Error::AfterRefusal { .. } => Blame::Channels,
        Error::System { doing: "answering the source", .. } => Blame::Main,
        Error::Cancelled | Error::TimeIsOver { .. } | Error::Caller(_) | Error::DeviceState(_) => {
            Blame::Own
        }
        _ => return None,
    })
}

/// Whether an error that says which channels were waited for says this one.
fn waits_for(error: &Error, channel: u8) -> bool {
    match error {
        Error::Stalled { channels, .. } => channels.is_empty() || channels.contains(&channel),
        Error::AfterRefusal { error, .. } => waits_for(error, channel),
        _ => true,
    }
}

/// The errors of all sides that failed.
fn errors(outcome: &Outcome) -> Vec<(Side, &Error)> {
    let mut errors = Vec::new();
    if let Some(Err(unfinished)) = &outcome.sent {
        errors.push((Side::Source, unfinished.error()));
    }
    if let Some(Some(Err(unfinished))) = &outcome.relayed {
        errors.push((Side::Relay, unfinished.error()));
    }
    if let Some(Err(error)) = outcome.received.as_ref().map(|received| &received.ended) {
        errors.push((Side::Destination, error));
    }
    errors
}

/// Whether no side has failed.
pub(crate) fn is_done(outcome: &Outcome) -> bool {
    errors(outcome).is_empty()
}

/// What the sides have said, for a report.
pub(crate) fn described(outcome: &Outcome) -> String {
    let errors = errors(outcome);
    let mut lines: Vec<_> = errors
        .iter()
        .map(|(side, error)| format!("{side:?}: {} [{error:?}]", chain(*error)))
        .collect();
    lines.push(format!(
        "source {}, relay {}, destination {}, acted {}, waited on {:?}",
        verdict(&outcome.sent),
        outcome.relayed.as_ref().map_or("-", verdict),
        match &outcome.received {
            None => "panicked",
            Some(received) if received.ended.is_ok() => "whole",
            Some(received) if received.vm.is_some() => "arrived, not confirmed",
            Some(_) => "failed",
        },
        outcome.acted,
        outcome.waited_on
    ));
    lines.join("\n    ")
}

fn verdict<T>(ended: &Ended<Result<T, Unfinished>>) -> &'static str {
    match ended {
        None => "panicked",
        Some(Ok(_)) => "done",
        Some(Err(Unfinished::Failed(_))) => "failed",
        Some(Err(Unfinished::Unclear(_))) => "unclear",
    }
}

/// Asks everything of an outcome.
pub(crate) fn check(case: Case, outcome: &Outcome) -> Result<(), String> {
    is_safe(case, outcome)?;
    is_named(case, outcome)
}

/// Asks what has to hold whatever a time limit was too short for.
pub(crate) fn is_safe(case: Case, outcome: &Outcome) -> Result<(), String> {
    ownership(case, outcome)?;
    outcome.guest.is_in(&outcome.guest.ram).map_err(|why| format!("the source's memory: {why}"))?;
    panics(case, outcome)?;
    for (side, error) in errors(outcome) {
        typed(case, outcome, side, error)?;
    }
    expected(case, outcome)
}

/// The destination is whole if and only if the source has said that it is, or may be.
fn ownership(case: Case, outcome: &Outcome) -> Result<(), String> {
    let received = outcome.received.as_ref();
    let is_whole = received.is_some_and(|received| received.vm.is_some() && received.ended.is_ok());
    if let (true, Some((ram, state))) =
        (is_whole, received.and_then(|received| received.vm.as_ref()))
    {
        let is_unchecked = matches!(case.fault, Fault::Unchecked(..));
        match outcome.guest.is_in(ram) {
            Err(_) if is_unchecked => {}
            compared => compared.map_err(|why| format!("taken for whole: {why}"))?,
        }
        // Nothing in the format protects the main channel's own bytes.
        if *state != device_state() && !is_change_of(case.fault, Wire::Main) {
            return Err("taken for whole with another device state".into());
        }
    }
    for (side, ended) in [
        (Side::Source, Some(as_unit(&outcome.sent))),
        (Side::Relay, outcome.relayed.as_ref().map(as_unit)),
    ] {
        let Some(Some(ended)) = ended else { continue };
        match (ended, is_whole) {
            (Ok(()), false) if !may_be_unconfirmed(outcome) && !is_one_way(case) => {
                return Err(format!("{side:?} is done, and the destination is not whole"));
            }
            (Err(Unfinished::Failed(_)), true) if !is_word_turned(case) => {
                return Err(format!("{side:?} has failed, and the destination is whole"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Who has no return path is done when everything is sent.
fn is_one_way(case: Case) -> bool {
    matches!(case.fault, Fault::OneWay(..))
}

/// A confirmation has become a refusal, by its lowest bit: nothing in the format shows it.
fn is_word_turned(case: Case) -> bool {
    let (Fault::Line(place, act) | Fault::Unchecked(place, act)) = case.fault else { return false };
    let last = Place { wire: Wire::Main, direction: Direction::Back, at: At::Byte(7) };
    place == last && act == Act::Flip(1) && !case.way.is_encrypted()
}

fn as_unit<T>(ended: &Ended<Result<T, Unfinished>>) -> Option<Result<(), &Unfinished>> {
    ended.as_ref().map(|ended| ended.as_ref().map(drop))
}

/// The destination has said that it does not know whether its word was heard.
fn may_be_unconfirmed(outcome: &Outcome) -> bool {
    let received = outcome.received.as_ref();
    received.is_some_and(|received| matches!(received.ended, Err(Error::Unconfirmed(_))))
}

fn is_change(act: Act) -> bool {
    matches!(act, Act::Flip(_) | Act::Drop | Act::Double)
}

/// Whether `fault` changes bytes on that connection, from the source.
fn is_change_of(fault: Fault, wire: Wire) -> bool {
    match fault {
        Fault::Line(place, act) | Fault::Unchecked(place, act) | Fault::OneWay(place, act) => {
            is_change(act) && place.wire == wire && place.direction == Direction::Forward
        }
        _ => false,
    }
}

/// No side panics but by the memory that it was given.
fn panics(case: Case, outcome: &Outcome) -> Result<(), String> {
    let relayed = outcome.relayed.as_ref().is_some_and(Option::is_none);
    let panicked = outcome.sent.is_none() || outcome.received.is_none() || relayed;
    match panicked && !breaks_memory(case.fault) {
        true => Err("a side has panicked".into()),
        false => Ok(()),
    }
}

fn breaks_memory(fault: Fault) -> bool {
    use crate::case::Own;
    matches!(fault, Fault::Own(Own::Read | Own::Write, _))
}

/// Each error is one that says what failed and on which thing.
fn typed(case: Case, outcome: &Outcome, side: Side, error: &Error) -> Result<(), String> {
    use crate::case::Failing;
    let may_panic =
        breaks_memory(case.fault) || matches!(case.fault, Fault::Codec(_, _, _, Failing::Panic));
    let inner = if let Error::Relay { error, .. } = error { error } else { error };
    if matches!(inner, Error::Panicked) && may_panic {
        return Ok(());
    }
    let is_cancelled = matches!(inner, Error::Cancelled);
    let cancelled_here = matches!(case.fault, Fault::Cancel(own, _) if own == side);
    if is_cancelled && !cancelled_here && !outcome.waited_on.contains(&side) {
        return Err(format!("{side:?} says that it was cancelled"));
    }
    match blame(error) {
        Some(_) => Ok(()),
        None => Err(format!("{side:?} has an error of another kind: {error:?}")),
    }
}

/// Where a connection was broken, a side names it; where something hangs, what was waited for.
pub(crate) fn is_named(case: Case, outcome: &Outcome) -> Result<(), String> {
    if is_hanging(case.fault) && outcome.acted {
        let waited = |error| !matches!(blame(error), Some(Blame::Own | Blame::Told) | None);
        return match errors(outcome).iter().any(|(_, error)| waited(error)) {
            true => Ok(()),
            false => Err("no side says what it waited for".into()),
        };
    }
    let Fault::Line(place, Act::Cut(_) | Act::Stall) = case.fault else { return Ok(()) };
    let errors = errors(outcome);
    if !outcome.acted || errors.is_empty() {
        return Ok(());
    }
    // Where it was not yet said which it is, or by no number, the side that waited says for what.
    let names = |error: &Error| match (blame(error), place.wire) {
        (_, Wire::Channel(own)) if !waits_for(error, own) => false,
        (Some(Blame::Main), Wire::Main) => true,
        (Some(Blame::Channel(number)), Wire::Channel(own)) => number == own,
        (Some(Blame::Channels), Wire::Channel(_)) => true,
        (Some(Blame::Connecting), _) => true,
        // What the destination has said to the source does not come: all that is left to that is time.
        (Some(Blame::Own), Wire::Main) => {
            place.direction == Direction::Back || !outcome.waited_on.is_empty()
        }
        (Some(Blame::Channels | Blame::Told), Wire::Main) => !outcome.waited_on.is_empty(),
        _ => false,
    };
    match errors.iter().any(|(_, error)| names(error)) {
        true => Ok(()),
        false => Err(format!("no side names {:?}", place.wire)),
    }
}

/// Whether all that a side can notice is that nothing comes.
fn is_hanging(fault: Fault) -> bool {
    use crate::case::{Call, Failing};
    let is_cleanup = matches!(fault, Fault::Codec(_, Call::Cleanup, ..));
    matches!(fault, Fault::Deaf(Deaf::All) | Fault::Codec(_, _, _, Failing::Hang)) && !is_cleanup
}

/// What must succeed has, and what must fail has.
fn expected(case: Case, outcome: &Outcome) -> Result<(), String> {
    match (expectation(case, outcome.acted), is_done(outcome)) {
        (Expected::Success, false) => Err("it should have succeeded".into()),
        (Expected::Failure, true) => Err("it should have failed".into()),
        _ => Ok(()),
    }
}

fn expectation(case: Case, acted: bool) -> Expected {
    use crate::case::{Call, Failing};
    match case.fault {
        Fault::None | Fault::Slow(_) | Fault::Line(_, Act::Pause(_)) => Expected::Success,
        Fault::Deaf(_) | Fault::Mismatch(_) => Expected::Failure,
        // What a channel says back is TLS's alone, and nobody waits for the end of one.
        Fault::Codec(_, Call::Cleanup, _, _) => Expected::Either,
        Fault::Codec(_, _, _, Failing::Error | Failing::Panic | Failing::Hang) | Fault::Own(..)
            if acted =>
        {
            Expected::Failure
        }
        // Nothing has gone wrong.
        Fault::Codec(..) | Fault::Own(..) => Expected::Success,
        Fault::Line(..) | Fault::Unchecked(..) | Fault::OneWay(..) | Fault::Cancel(..) => {
            Expected::Either
        }
    }
}
