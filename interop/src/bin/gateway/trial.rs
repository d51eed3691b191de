//! One stream, and what becomes of the QEMU that it was for.

use std::error::Error;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use multifd_interop::Error as Failure;
use multifd_interop::program::Multifd;
use multifd_interop::qemu::{Qemu, Version};

use crate::recording::{Part, Recording, waiting};
use crate::replay::{self, Credentials, To};

/// What does not move for so long hangs: when it is looked at, all connections are closed.
const HANGS: Duration = Duration::from_secs(15);

/// A QEMU to which nobody has come by then waits on, as far as its status says: nothing more is sent to it.
const WAITS: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(20);

/// The way that a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Route {
    /// To the QEMU.
    Straight,
    /// Over TLS to a relay, and from there to the QEMU.
    Relay,
}

impl Route {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Straight => "straight",
            Self::Relay => "through the relay",
        }
    }
}

/// What became of a QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ended with an error of its own.
    Refused,
    /// Its status is that of one that waits for a migration. Whether it takes one is not tried.
    Waits,
    /// It has taken the VM.
    Took,
    /// A signal ended it.
    Died(i32),
    /// It does not end, and does not wait for another migration either.
    Hangs,
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    /// What QEMU said last.
    pub(crate) qemu: String,
    /// What the relay said last, and whether it kept to its limits.
    pub(crate) relay: Option<Relayed>,
}

#[derive(Debug)]
pub(crate) struct Relayed {
    pub(crate) said: String,
    /// It has panicked, or does not end.
    pub(crate) failed: bool,
}

/// Which QEMU, and how it is reached.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) version: Version,
    pub(crate) route: Route,
    pub(crate) credentials: &'a Credentials,
}

impl Setup<'_> {
    /// Sends bytes like those of the recording to a new QEMU.
    pub(crate) fn send(
        &self,
        recording: &Recording,
        wires: &[Vec<u8>],
    ) -> Result<Ended, Box<dyn Error>> {
        let (mut qemu, uri) = waiting(self.version, recording.codec)?;
        qemu.set_patience(HANGS)?;
        let relay = match self.route {
            Route::Straight => {
                replay::send(To::Plain(&uri), wires)?;
                None
            }
            Route::Relay => Some(self.through_relay(&mut qemu, &uri, recording.codec, wires)?),
        };
        let outcome = settle(&mut qemu)?;
        let qemu = last_line(&qemu.stderr());
        Ok(Ended { outcome, qemu, relay })
    }

    fn through_relay(
        &self,
        qemu: &mut Qemu,
        uri: &str,
        codec: &str,
        wires: &[Vec<u8>],
    ) -> Result<Relayed, Box<dyn Error>> {
        let creds = self.credentials.dir().display().to_string();
        let ends = ["relay", "--listen", "tcp:127.0.0.1:0", "--to", uri];
        let codecs = ["--from-compression", codec, "--to-compression", codec];
        let limits = ["--channel-timeout", "2s", "--progress-timeout", "4s"];
        let tls = ["--from-tls-creds", &creds];
        let mut relay = Multifd::start(ends.iter().chain(&codecs).chain(&limits).chain(&tls))?;
        let listens = relay.listening()?;
        replay::send(To::Tls(&listens, self.credentials), wires)?;
        let begun = Instant::now();
        let ended = loop {
            let ended = relay.ended()?;
            if ended.is_some() || begun.elapsed() > HANGS {
                break ended;
            }
            // It has refused who came, and waits for the right one. So does the QEMU.
            if begun.elapsed() > WAITS + WAITS && relay.has_said("refused") && is_untouched(qemu) {
                let said = last_line(&relay.stderr());
                return Ok(Relayed { failed: said.contains("panicked"), said });
            }
            sleep(PAUSE);
        };
        let said = relay.stderr();
        let failed = said.contains("panicked")
            || ended.is_none_or(|status| !matches!(status.code(), Some(0 | 1 | 3)));
        Ok(Relayed { said: last_line(&said), failed })
    }
}

fn is_untouched(qemu: &mut Qemu) -> bool {
    qemu.migration().is_ok_and(|migration| is_of_none(&migration.status))
}

fn is_of_none(status: &str) -> bool {
    matches!(status, "" | "none" | "setup")
}

/// Waits until the QEMU has ended, has the VM, or moves no more.
fn settle(qemu: &mut Qemu) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    loop {
        let migration = qemu.migration();
        if let Some(status) = qemu.ended()? {
            return Ok(status.signal().map_or(Outcome::Refused, Outcome::Died));
        }
        match migration {
            Ok(migration) if migration.status == "completed" => return Ok(Outcome::Took),
            Ok(migration) if is_of_none(&migration.status) && begun.elapsed() > WAITS => {
                return Ok(Outcome::Waits);
            }
            // Or it answers to no command any more, or has closed the socket and is about to end.
            _ if begun.elapsed() > HANGS => return Ok(Outcome::Hangs),
            _ => sleep(PAUSE),
        }
    }
}

fn last_line(said: &str) -> String {
    said.trim_end().lines().next_back().unwrap_or_default().to_owned()
}

/// A stream, where it was tampered with, and how it ended.
#[derive(Debug)]
pub(crate) struct Trial {
    version: Version,
    route: Route,
    codec: &'static str,
    seed: u64,
    pub(crate) part: Part,
    what: String,
    /// `None` if the trial itself failed, which `said` tells.
    pub(crate) outcome: Option<Outcome>,
    /// The relay does not do what a relay is to do.
    pub(crate) relay_failed: bool,
    said: String,
}

impl Trial {
    pub(crate) fn new(
        setup: &Setup<'_>,
        codec: &'static str,
        seed: u64,
        part: Part,
        what: String,
        ended: Result<Ended, Box<dyn Error>>,
    ) -> Self {
        let (outcome, relay_failed, said) = match ended {
            Err(error) => (None, false, error.to_string()),
            Ok(Ended { outcome, qemu, relay }) => {
                let failed = relay.as_ref().is_some_and(|relay| relay.failed);
                let relay = relay.map(|relay| format!("; relay: {}", relay.said));
                (Some(outcome), failed, format!("QEMU: {qemu}{}", relay.unwrap_or_default()))
            }
        };
        let Setup { version, route, .. } = *setup;
        Self { version, route, codec, seed, part, what, outcome, relay_failed, said }
    }

    /// Whether somebody has to look at it.
    pub(crate) fn is_noteworthy(&self) -> bool {
        self.relay_failed || matches!(self.outcome, None | Some(Outcome::Died(_) | Outcome::Hangs))
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, route, codec, seed, part, what, said, .. } = self;
        let outcome = self.outcome.map_or("not tried".to_owned(), |outcome| format!("{outcome:?}"));
        let relay = if self.relay_failed { ", THE RELAY FAILED" } else { "" };
        let (route, part) = (route.name(), part.name());
        write!(f, "--versions {version} --seed {seed} --streams 1 ({route}): {outcome}{relay}; ")?;
        write!(f, "{codec}, {part}: {what}; {said}")
    }
}
