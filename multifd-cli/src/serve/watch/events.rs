//! Events for machines, as lines of JSON: on stdout, and those of them that say who migrated what in
//! an audit file.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use serde::Serialize;

use super::audit::Audit;
use super::clock;
use super::migration::{End, Migration, Moved, Who};
use super::rounds::Round;
use crate::escape;
use crate::failure::{Failure, chain};
use crate::output;

/// Lines that may wait for a reader of stdout that is slow.
const WAITING: usize = 4096;

/// How long the end of the program waits for that reader.
const PATIENCE: Duration = Duration::from_secs(2);

/// What happens in a service.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Event<'a> {
    Listening {
        uri: &'a str,
    },
    Began {
        #[serde(flatten)]
        who: &'a Who,
        from_codec: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        to_codec: Option<&'a str>,
    },
    /// A round of the source is over.
    Round {
        id: u64,
        uuid: &'a str,
        #[serde(flatten)]
        round: &'a Round,
    },
    Ended(Over<'a>),
    /// Connections have been refused for this reason: so many since the last such line, and in all.
    Refused {
        reason: &'a str,
        connections: u64,
        total: u64,
    },
    Stopping {
        running: usize,
    },
    Stopped {
        done: u64,
        failed: u64,
        unclear: u64,
        cancelled: u64,
    },
}

/// A migration that has ended.
#[derive(Debug, Serialize)]
pub(super) struct Over<'a> {
    #[serde(flatten)]
    who: &'a Who,
    began: &'a str,
    seconds: f64,
    cpu_seconds: f64,
    /// How many there were, where the source's syncs tell.
    rounds: u64,
    from: &'a Moved,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a Moved>,
    #[serde(flatten)]
    end: Option<&'a End>,
}

impl<'a> Over<'a> {
    pub(super) fn new(migration: &'a Migration) -> Self {
        Self {
            who: &migration.who,
            began: &migration.began,
            seconds: migration.seconds,
            cpu_seconds: migration.cpu_seconds,
            rounds: migration.rounds.last().map_or(0, |round| round.last),
            from: &migration.from,
            to: migration.to.as_ref(),
            end: migration.end.as_ref(),
        }
    }
}

/// Where events go. Clones share it. What cannot be written is counted, and said once: no migration
/// ends for it.
#[derive(Clone, Debug)]
pub(crate) struct Events(Arc<Sinks>);

#[derive(Debug)]
struct Sinks {
    stdout: Option<Lines>,
    audit: Option<Audit>,
    lost: Arc<Lost>,
}

/// Lines that could not be written.
#[derive(Debug, Default)]
struct Lost {
    stdout: AtomicU64,
    audit: AtomicU64,
}

impl Events {
    /// Events on stdout where `json_lines` are asked for, and in the file `audit`.
    ///
    /// # Errors
    /// An audit file that cannot be written to, or no thread.
    pub(crate) fn new(json_lines: bool, audit: Option<&Path>) -> Result<Self, Failure> {
        let lost = Arc::<Lost>::default();
        let stdout = json_lines.then(|| Lines::to(io::stdout(), Arc::clone(&lost))).transpose()?;
        let audit = audit.map(Audit::open).transpose()?;
        Ok(Self(Arc::new(Sinks { stdout, audit, lost })))
    }

    /// The service listens on this address.
    pub(crate) fn listening(&self, uri: &str) {
        self.say(&Event::Listening { uri });
    }

    /// Waits until everything is written to stdout, if that is read.
    pub(crate) fn finish(&self) {
        if let Some(stdout) = &self.0.stdout {
            stdout.wait(PATIENCE);
        }
    }

    /// Has the event written to stdout; never waits for that.
    pub(super) fn say(&self, event: &Event<'_>) {
        if let Some(stdout) = &self.0.stdout {
            stdout.write(line(event));
        }
    }

    /// Writes the event to the audit file, to the disk if it is `durable`.
    pub(super) fn audit(&self, event: &Event<'_>, durable: bool) {
        let Some(audit) = &self.0.audit else { return };
        if let Err(error) = audit.write(&line(event), durable) {
            let first = self.0.lost.audit.fetch_add(1, Relaxed) == 0;
            if first {
                let path = audit.path().display();
                let failure = Failure::io(format!("cannot write {path}"), &error);
                output::note(&format!(
                    "multifd: migrations go on, but the audit lacks lines: {failure}"
                ));
            }
        }
    }

    /// Lines that could not be written: by the name of where they were to go.
    pub(super) fn lost(&self) -> [(&'static str, u64); 2] {
        let Lost { stdout, audit } = &*self.0.lost;
        [("audit", audit.load(Relaxed)), ("stdout", stdout.load(Relaxed))]
    }
}

/// The line of an event, in which nothing of a peer's text is left that a terminal obeys.
fn line(event: &Event<'_>) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        #[serde(flatten)]
        event: &'a Event<'a>,
    }
    let json = serde_json::to_string(&Line { time: clock::now(), event });
    // Their fields are texts and numbers.
    escape::json(&json.unwrap_or_default()) + "\n"
}

/// Lines that a thread writes, so that who has them written need not wait for a slow reader.
#[derive(Debug)]
struct Lines {
    queue: SyncSender<Item>,
    lost: Arc<Lost>,
}

enum Item {
    Line(String),
    /// Everything before it is written.
    Mark(mpsc::Sender<()>),
}

impl Lines {
    fn to(mut writer: impl Write + Send + 'static, lost: Arc<Lost>) -> Result<Self, Failure> {
        let (queue, items) = mpsc::sync_channel(WAITING);
        let own = Self { queue, lost: Arc::clone(&lost) };
        let write = move || {
            for item in items {
                match item {
                    Item::Line(line) => {
                        let written = writer.write_all(line.as_bytes());
                        if let Err(error) = written.and_then(|()| writer.flush()) {
                            lost.on_stdout(&chain(&error));
                        }
                    }
                    Item::Mark(reached) => _ = reached.send(()),
                }
            }
        };
        let thread = std::thread::Builder::new().name("events".to_owned()).spawn(write);
        thread.map_err(|error| Failure::io("cannot start a thread", &error))?;
        Ok(own)
    }

    fn write(&self, line: String) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.lost.on_stdout("nobody reads it");
        }
    }

    fn wait(&self, most: Duration) {
        let (reached, wait) = mpsc::channel();
        // Where the queue is full, nobody reads.
        if self.queue.try_send(Item::Mark(reached)).is_ok() {
            _ = wait.recv_timeout(most);
        }
    }
}

impl Lost {
    fn on_stdout(&self, why: &str) {
        if self.stdout.fetch_add(1, Relaxed) == 0 {
            output::note(&format!(
                "multifd: migrations go on, but stdout lacks lines of --json-lines: {why}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use serde_json::Value;

    use super::*;

    fn refused(reason: &str) -> Event<'_> {
        Event::Refused { reason, connections: 1, total: 7 }
    }

    #[test]
    fn an_event_is_one_line_that_a_terminal_shows_as_it_is() {
        let hostile = "a\u{1b}[2J\n\u{202e}b";
        let line = line(&refused(hostile));
        assert_eq!(line.chars().filter(|&c| c.is_control() || c == '\u{202e}').count(), 1);
        let event: Value = serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!((&event["event"], &event["reason"]), (&"refused".into(), &hostile.into()));
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read_and_lost_lines_are_counted() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let lost = Arc::<Lost>::default();
        let lines = Lines::to(writer, Arc::clone(&lost)).unwrap();
        let long = "x".repeat(4095) + "\n";
        for _ in 0..WAITING + 1000 {
            lines.write(long.clone());
        }
        let missing = lost.stdout.load(Relaxed);
        assert!(missing > 0 && missing < 1000, "{missing}");
        // What was not lost arrives, once it is read.
        let rest = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all.len())
        });
        drop(lines);
        let arrived = rest.join().unwrap().unwrap() as u64;
        assert_eq!(arrived, (WAITING as u64 + 1000 - missing) * 4096);
    }

    #[test]
    fn a_closed_reader_loses_lines_and_ends_nothing() {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let lost = Arc::<Lost>::default();
        let lines = Lines::to(writer, Arc::clone(&lost)).unwrap();
        lines.write("one\n".to_owned());
        lines.write("two\n".to_owned());
        lines.wait(PATIENCE);
        assert_eq!(lost.stdout.load(Relaxed), 2);
    }
}
