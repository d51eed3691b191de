//! A service: migrations one after another and at once, until it is told to stop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multifd::server::{Newcomer, Server};
use multifd::{Listener, Uri};

use super::activation;
use super::guard::Guard;
use super::memory;
use super::notify::{self, Watchdog};
use super::task::{Codecs, Done, Task};
use super::watch::board::Board;
use super::watch::http;
use super::watch::options::Watching;
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::units;

/// How a command serves.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of a service")]
pub(crate) struct Serve {
    /// Take migrations one after another, and at once, until SIGTERM or Ctrl-C: then those that run may end, and a
    /// second signal cancels them
    #[arg(long)]
    pub(crate) serve: bool,
    /// The most migrations at once; further sources are told that there is no place
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        requires = "serve",
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    most_migrations: u16,
    /// How long migrations may take to end when the service is to stop; they are cancelled then
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10m",
        requires = "serve",
        value_parser = units::wait,
        allow_negative_numbers = true
    )]
    stop_timeout: Duration,
    #[command(flatten)]
    watching: Watching,
}

/// Where a service listens.
pub(crate) enum Listen {
    At(Uri),
    /// On sockets that systemd has passed on.
    Passed(Vec<Listener>),
}

/// A command that serves.
pub(crate) struct Service<'a> {
    server: Server,
    pub(super) board: Board,
    /// What tells it to stop.
    signals: Interrupt,
    /// What cancels the migrations that run.
    pub(super) interrupt: Interrupt,
    stop_timeout: Duration,
    is_over: AtomicBool,
    /// Migrations that have been taken and have not ended.
    running: Arc<AtomicUsize>,
    pub(super) output: &'a Output,
    _http: Option<http::Server>,
}

/// How often is looked whether the service is to stop, and whether those that run have ended.
const OFTEN: Duration = Duration::from_millis(50);

impl Serve {
    /// Where the service listens: at `listen`, or on the sockets that systemd has passed on. To be called before
    /// any thread is started.
    pub(crate) fn listen(&self, listen: Option<&Uri>) -> Result<Listen, Failure> {
        if let Some(uri) = listen {
            return Ok(Listen::At(uri.clone()));
        }
        let passed = if self.serve { activation::listeners()? } else { Vec::new() };
        if passed.is_empty() {
            return Err(Failure::usage(
                "nothing says where to listen: give --listen, or with --serve a socket of systemd's",
            ));
        }
        Ok(Listen::Passed(passed))
    }

    /// Starts a service that is `what`: relay or recv.
    pub(crate) fn start<'a>(
        &self,
        what: &'static str,
        guard: Guard,
        listen: Listen,
        signals: Interrupt,
        output: &'a Output,
    ) -> Result<Service<'a>, Failure> {
        let most = usize::from(self.most_migrations);
        let events = self.watching.events()?;
        let listeners = match listen {
            Listen::At(uri) => vec![Listener::bind(&uri)?],
            Listen::Passed(passed) => passed,
        };
        let uris: Vec<_> = listeners.iter().map(|listener| listener.uri().clone()).collect();
        guard.check(&uris)?;
        guard.warn(&uris, output);
        let server = guard.into_server().most_migrations(most).listen_on(listeners)?;
        let refusals = server.refusals();
        let refused = move || {
            let refusals = refusals().into_iter();
            refusals.map(|(reason, count)| (reason.to_owned(), count)).collect()
        };
        let board = Board::new(what, events.clone(), refused);
        board.set_limit(most);
        let http = self.watching.server(&board)?;
        for uri in server.uris() {
            // Also with --quiet: a program that asked for port 0 waits for this line.
            output::note(&format!("listening on {uri}"));
            events.listening(&uri.to_string());
        }
        if let Some(http) = &http {
            output::note(&format!("metrics on {}", http.uri()));
        }
        Ok(Service {
            server,
            board,
            interrupt: signals.serving(),
            signals,
            stop_timeout: self.stop_timeout,
            is_over: AtomicBool::new(false),
            running: Arc::default(),
            output,
            _http: http,
        })
    }
}

impl Service<'_> {
    fn say_running(&self, running: usize) {
        if self.signals.check().is_ok() {
            notify::status(&format!("{} under way", are(running)));
        }
    }

    /// Has `migrate` see each migration to its end, each in a thread of its own, until the service has stopped.
    pub(crate) fn run(
        &self,
        codecs: Codecs<'_>,
        migrate: impl Fn(Newcomer, &Task<'_>) -> Result<Done, Failure> + Sync,
    ) -> Result<(), Failure> {
        let (is_open, running) = (self.server.is_open(), Arc::clone(&self.running));
        let _watchdog = Watchdog::start(move || is_open() || running.load(Ordering::Acquire) > 0)?;
        notify::ready("waiting for sources");
        let served = thread::scope(|scope| {
            let stop = thread::Builder::new().name("stop".to_owned());
            let stop = stop.spawn_scoped(scope, || self.stop());
            stop.map_err(|error| Failure::io("cannot start a thread", &error))?;
            let served = loop {
                let newcomer = match self.server.next() {
                    Ok(newcomer) => newcomer,
                    Err(_) if self.signals.check().is_err() => break Ok(()),
                    Err(error) => break Err(Failure::from(error)),
                };
                let counted = Counted::new(self);
                let (migrate, task) = (&migrate, Task::new(self, codecs, &newcomer));
                let run = move || {
                    let run = || task.run(|task| migrate(newcomer, task));
                    // It ends itself alone, and has said so on the board.
                    _ = catch_unwind(AssertUnwindSafe(run));
                    drop(counted);
                };
                let migration = thread::Builder::new().name("migration".to_owned());
                if let Err(error) = migration.spawn_scoped(scope, run) {
                    // It has been dropped, and so refused.
                    tracing::warn!(%error, "a migration is refused: no thread can be started for it");
                }
            };
            self.is_over.store(true, Ordering::Release);
            served
        });
        self.board.stopped();
        served
    }

    /// Waits until the service is to stop, and until the migrations have ended, which it cancels after a time.
    fn stop(&self) {
        while self.signals.check().is_ok() && !self.is_over.load(Ordering::Acquire) {
            thread::sleep(OFTEN);
        }
        self.server.stop_taking();
        self.board.set_stopping();
        let (began, mut said) = (Instant::now(), String::new());
        // Those that have begun and have not been taken yet count as well.
        while self.server.running() + self.running.load(Ordering::Acquire) > 0 {
            if began.elapsed() >= self.stop_timeout {
                self.signals.cancel_serving();
            }
            let now = match (self.interrupt.check(), self.running.load(Ordering::Acquire)) {
                (Err(_), running) => format!("stopping: {} cancelled", are(running)),
                (Ok(()), running) => format!("stopping: {} to end", are(running)),
            };
            if said != now {
                notify::stopping(&now);
                self.output.tell(&now);
                said = now;
            }
            thread::sleep(OFTEN);
        }
        self.server.cancel_token().cancel();
    }
}

/// As the beginning of what becomes of so many migrations.
fn are(migrations: usize) -> String {
    if migrations == 1 {
        "1 migration is".to_owned()
    } else {
        format!("{migrations} migrations are")
    }
}

/// A migration that has been taken, until it has ended.
struct Counted<'a>(&'a Service<'a>);

impl<'a> Counted<'a> {
    fn new(service: &'a Service<'a>) -> Self {
        let before = service.running.fetch_add(1, Ordering::AcqRel);
        service.say_running(before + 1);
        Self(service)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let before = self.0.running.fetch_sub(1, Ordering::AcqRel);
        if before == 1 {
            memory::give_back();
        }
        self.0.say_running(before - 1);
    }
}

/// Whether a text has a place for the VM's UUID.
pub(crate) fn differs(text: &str) -> bool {
    text.contains(UUID)
}

/// Fails where a text has a place for what only a service knows, for a command that does not serve.
pub(crate) fn check_plain(text: &str) -> Result<(), Failure> {
    match [UUID, TIME].into_iter().find(|place| text.contains(place)) {
        Some(place) => Err(Failure::usage(format!(
            "{place} in --to is for --serve: give it, or a name as it is to be"
        ))),
        None => Ok(()),
    }
}

/// `text` with the VM's UUID and the time in it, where that has a place for them.
pub(crate) fn fill_in(text: &str, uuid: multifd::core::wire::Uuid) -> String {
    // Without what file names and URIs should not have.
    let time = super::watch::clock::now().replace(['-', ':'], "");
    text.replace(UUID, &uuid.to_string()).replace(TIME, &time)
}

const UUID: &str = "{uuid}";
const TIME: &str = "{time}";

#[cfg(test)]
mod tests {
    use multifd::core::wire::Uuid;

    use super::*;

    #[test]
    fn the_uuid_and_the_time_are_filled_in_wherever_they_have_a_place() {
        let filled = fill_in("a/{uuid}-{time}/{uuid}", Uuid([0xab; 16]));
        let uuid = "abababab-abab-abab-abab-abababababab";
        let rest = filled.strip_prefix(&format!("a/{uuid}-20")).unwrap();
        let (time, last) = rest.split_once('/').unwrap();
        assert_eq!(last, uuid);
        assert!(time.len() == "261126T205848.042Z".len() && time.ends_with('Z'), "{time}");
        assert!(differs("a-{uuid}") && !differs("{time}") && !differs("a/{}{vm}"));
        assert!(check_plain("a/{}{vm}").is_ok());
        assert!(check_plain("{uuid}").is_err() && check_plain("a/{time}").is_err());
        assert_eq!(fill_in("plain", Uuid::default()), "plain");
    }
}
