//! One migration with one fault, as text by which it can be repeated: `cut,fin,ch1+f17@tcp/zlib`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use multifd::core::Compression;

use crate::line::{Act, Behaviour, Deaf, End};
use crate::places::{At, Direction, Place, Wire};
use crate::way::Way;

/// A side of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    Source,
    Relay,
    Destination,
}

impl Side {
    pub(crate) const ALL: [Self; 3] = [Self::Source, Self::Relay, Self::Destination];
}

/// A call of a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Setup,
    Work,
    Cleanup,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    Error,
    Panic,
    /// It never comes back.
    Hang,
}

/// What of a side's own fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// The source's RAM cannot be read at the nth time.
    Read,
    /// The destination's RAM cannot be written at the nth time.
    Write,
    /// The reader of the device state fails after so many bytes.
    StateOut,
    /// What takes the device state in fails with its nth piece.
    StateIn,
    /// The destination has no RAM to give.
    Provide,
    /// The destination cannot store what has arrived.
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    Line(Place, Act),
    /// As a changed byte, of a source that says no digests.
    Unchecked(Place, Act),
    /// What a line does where the source has opened no return path: it is done when everything is sent.
    OneWay(Place, Act),
    /// A channel that is 100 times slower than the others.
    Slow(u8),
    Deaf(Deaf),
    /// The other side has another codec.
    Mismatch(Compression),
    Codec(Side, Call, u32, Failing),
    Own(Own, u32),
    /// A cancellation after so many microseconds.
    Cancel(Side, u32),
}

/// What must have become of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Success,
    Failure,
    Either,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) fault: Fault,
    pub(crate) way: Way,
    pub(crate) codec: Compression,
}

/// How long a pause of a stream is.
const PAUSE: Duration = Duration::from_millis(80);

impl Fault {
    /// What the line does.
    pub(crate) fn behaviour(self, way: Way) -> Behaviour {
        let mut behaviour = Behaviour { encrypted: way.is_encrypted(), ..Behaviour::default() };
        match self {
            Self::Line(place, act) | Self::Unchecked(place, act) | Self::OneWay(place, act) => {
                behaviour.act = Some((place, act));
            }
            Self::Slow(channel) => {
                behaviour.rates = Some((100 << 20, Wire::Channel(channel), 1 << 20));
            }
            Self::Deaf(deaf) => behaviour.deaf = deaf,
            _ => {}
        }
        behaviour
    }

    /// The fault's kind, for the table.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Line(_, act) => act_name(act),
            Self::Unchecked(..) => "change without digests",
            Self::OneWay(..) => "without a return path",
            Self::Slow(_) => "slow channel",
            Self::Deaf(_) => "nobody reads",
            Self::Mismatch(_) => "another codec",
            Self::Codec(_, _, _, Failing::Error) => "codec fails",
            Self::Codec(_, _, _, Failing::Panic) => "codec panics",
            Self::Codec(_, _, _, Failing::Hang) => "codec hangs",
            Self::Own(Own::Read | Own::Write, _) => "guest memory fails",
            Self::Own(Own::StateOut | Own::StateIn, _) => "device state fails",
            Self::Own(Own::Provide | Own::Store, _) => "destination has no room",
            Self::Cancel(..) => "cancellation",
        }
    }
}

fn act_name(act: Act) -> &'static str {
    match act {
        Act::Cut(End::Fin) => "cut, FIN",
        Act::Cut(End::Reset) => "cut, RST",
        Act::Stall => "stall for good",
        Act::Pause(_) => "stall that ends",
        Act::Flip(_) => "bits flipped",
        Act::Drop => "byte dropped",
        Act::Double => "byte doubled",
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::None => f.write_str("none")?,
            Fault::Line(place, act) => write!(f, "{},{place}", act_text(act))?,
            Fault::Unchecked(place, act) => write!(f, "unchecked-{},{place}", act_text(act))?,
            Fault::OneWay(place, act) => write!(f, "one-way-{},{place}", act_text(act))?,
            Fault::Slow(channel) => write!(f, "slow,{channel}")?,
            Fault::Deaf(Deaf::One(Wire::Channel(number))) => write!(f, "deaf,{number}")?,
            Fault::Deaf(Deaf::One(Wire::Main)) => f.write_str("deaf,main")?,
            Fault::Deaf(_) => f.write_str("deaf,all")?,
            Fault::Mismatch(other) => write!(f, "mismatch,{}", codec_name(other))?,
            Fault::Codec(side, call, nth, how) => {
                write!(f, "codec,{},{},{nth},{}", name(side), name(call), name(how))?;
            }
            Fault::Own(own, nth) => write!(f, "own,{},{nth}", name(own))?,
            Fault::Cancel(side, micros) => write!(f, "cancel,{},{micros}", name(side))?,
        }
        write!(f, "@{}/{}", self.way, codec_name(self.codec))
    }
}

fn name(value: impl fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

pub(crate) fn codec_name(codec: Compression) -> String {
    codec.to_string()
}

fn act_text(act: Act) -> String {
    match act {
        Act::Cut(End::Fin) => "cut,fin".to_owned(),
        Act::Cut(End::Reset) => "cut,reset".to_owned(),
        Act::Stall => "stall".to_owned(),
        Act::Pause(_) => "pause".to_owned(),
        Act::Flip(by) => format!("flip,{by}"),
        Act::Drop => "drop".to_owned(),
        Act::Double => "double".to_owned(),
    }
}

/// The value of `all` whose name is `text`.
fn named<T: Copy + fmt::Debug>(all: &[T], text: &str) -> Option<T> {
    all.iter().copied().find(|value| name(value) == text)
}

impl FromStr for Case {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (fault, rest) = text.split_once('@').ok_or(())?;
        let (way, codec) = rest.split_once('/').ok_or(())?;
        let codec =
            crate::way::CODECS.into_iter().find(|own| codec_name(*own) == codec).ok_or(())?;
        let words: Vec<&str> = fault.split(',').collect();
        Ok(Self { fault: parse(&words).ok_or(())?, way: way.parse()?, codec })
    }
}

fn parse(words: &[&str]) -> Option<Fault> {
    let number = |text: &str| text.parse().ok();
    Some(match *words {
        ["none"] => Fault::None,
        ["slow", channel] => Fault::Slow(channel.parse().ok()?),
        ["deaf", "all"] => Fault::Deaf(Deaf::All),
        ["deaf", "main"] => Fault::Deaf(Deaf::One(Wire::Main)),
        ["deaf", channel] => Fault::Deaf(Deaf::One(Wire::Channel(channel.parse().ok()?))),
        ["mismatch", codec] => {
            let codec = crate::way::CODECS.into_iter().find(|own| codec_name(*own) == codec)?;
            Fault::Mismatch(codec)
        }
        ["codec", side, call, nth, how] => Fault::Codec(
            named(&Side::ALL, side)?,
            named(&[Call::Setup, Call::Work, Call::Cleanup], call)?,
            number(nth)?,
            named(&[Failing::Error, Failing::Panic, Failing::Hang], how)?,
        ),
        ["own", own, nth] => {
            let all =
                [Own::Read, Own::Write, Own::StateOut, Own::StateIn, Own::Provide, Own::Store];
            Fault::Own(named(&all, own)?, number(nth)?)
        }
        ["cancel", side, micros] => Fault::Cancel(named(&Side::ALL, side)?, number(micros)?),
        [first, ref rest @ .., place] => {
            let place = place.parse().ok()?;
            if let Some(first) = first.strip_prefix("unchecked-") {
                Fault::Unchecked(place, act(first, rest)?)
            } else if let Some(first) = first.strip_prefix("one-way-") {
                Fault::OneWay(place, act(first, rest)?)
            } else {
                Fault::Line(place, act(first, rest)?)
            }
        }
        _ => return None,
    })
}

fn act(first: &str, rest: &[&str]) -> Option<Act> {
    Some(match (first, rest) {
        ("cut", ["fin"]) => Act::Cut(End::Fin),
        ("cut", ["reset"]) => Act::Cut(End::Reset),
        ("stall", []) => Act::Stall,
        ("pause", []) => Act::Pause(PAUSE),
        ("flip", [by]) => Act::Flip(by.parse().ok()?),
        ("drop", []) => Act::Drop,
        ("double", []) => Act::Double,
        _ => return None,
    })
}

/// An act that pauses.
pub(crate) const fn pause() -> Act {
    Act::Pause(PAUSE)
}

#[test]
fn a_case_reads_as_it_is_written() {
    let place = Place { wire: Wire::Channel(1), direction: Direction::Forward, at: At::Field(7) };
    let acts = [
        Act::Cut(End::Fin),
        Act::Cut(End::Reset),
        Act::Stall,
        pause(),
        Act::Flip(4),
        Act::Drop,
        Act::Double,
    ];
    let mut faults: Vec<_> = acts.map(|act| Fault::Line(place, act)).to_vec();
    faults.extend([
        Fault::None,
        Fault::Unchecked(place, Act::Flip(128)),
        Fault::OneWay(place, Act::Cut(End::Fin)),
        Fault::Slow(1),
        Fault::Deaf(Deaf::All),
        Fault::Deaf(Deaf::One(Wire::Main)),
        Fault::Deaf(Deaf::One(Wire::Channel(0))),
        Fault::Mismatch(Compression::Zlib),
        Fault::Codec(Side::Relay, Call::Work, 3, Failing::Hang),
        Fault::Own(Own::StateIn, 0),
        Fault::Cancel(Side::Destination, 12),
    ]);
    for fault in faults {
        let case = Case { fault, way: Way::BeforeRelay, codec: Compression::Qpl };
        assert_eq!(case.to_string().parse(), Ok(case), "{case}");
    }
}
