//! Cancellation by Ctrl-C and other signals.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use multifd::CancelToken;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::failure::Failure;
use crate::output;

/// Signals within this time are one wish: `timeout` sends SIGTERM to its child, and then to the
/// process group, which its child is in.
const ONE_WISH: Duration = Duration::from_secs(2);

/// How long the wait for signals rests where it fails.
const RETRY: Duration = Duration::from_millis(100);

/// Whether a signal has come, and the migrations that it cancels. The first signal cancels them; one
/// that comes [later](ONE_WISH) ends the program at once, whatever it leaves behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<Mutex<State>>, Arc<Making>);

#[derive(Debug, Default)]
struct State {
    /// The first signal, and when it came.
    signal: Option<(i32, Instant)>,
    watched: Vec<(u64, CancelToken)>,
    next: u64,
    /// What a service's migrations ask, until they are cancelled.
    serving: Option<Interrupt>,
}

/// What a program that ends at once leaves behind, where it is there, and what to say of it.
#[derive(Debug, Default)]
struct Making(Mutex<Vec<(PathBuf, String)>>);

impl Making {
    /// Says `said` of `path` from now on.
    fn set(&self, path: &Path, said: String) {
        let mut made = self.lock();
        // What is gone has been removed, or has another name.
        made.retain(|(other, _)| other != path && other.exists());
        made.push((path.to_owned(), said));
    }

    /// What to say of that which is left behind, if anything is.
    fn leaves(&self) -> Option<String> {
        let made = self.lock();
        let left = made.iter().filter(|(path, _)| path.exists()).map(|(_, said)| &**said);
        let left: Vec<_> = left.collect();
        (!left.is_empty()).then(|| left.join("; "))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(PathBuf, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interrupt {
    /// Handles SIGINT, SIGTERM and SIGHUP, except those that the parent process had ignored.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let cannot = |error| Failure::io("cannot handle signals", &error);
        // A write beyond `ulimit -f` shall fail, not end the program.
        signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map_err(cannot)?;
        let ignored = ignored_signals();
        let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter();
        let wanted = wanted.filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let (woken, wake) = UnixStream::pair().map_err(cannot)?;
        let mut signals =
            SignalDelivery::with_pipe(woken, wake, SignalOnly, wanted).map_err(cannot)?;
        let interrupt = Self::default();
        let own = interrupt.clone();
        let wait = move || {
            loop {
                wait_for_byte(signals.get_read());
                for signal in signals.pending() {
                    own.cancel(signal);
                }
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(cannot)?;
        Ok(interrupt)
    }

    /// Cancels `token` when a signal comes, or at once if one has come, until the result is dropped.
    pub(crate) fn watch(&self, token: CancelToken) -> Watch {
        let mut state = self.lock();
        if state.signal.is_some() {
            token.cancel();
        }
        let number = state.next;
        state.next += 1;
        state.watched.push((number, token));
        Watch { interrupt: self.clone(), number }
    }

    /// What the migrations of a service ask in place of this: the first signal has the service take no more of them,
    /// and a later one cancels them, before yet a later one ends the program.
    pub(crate) fn serving(&self) -> Self {
        let serving = Self(Arc::default(), Arc::clone(&self.1));
        self.lock().serving = Some(serving.clone());
        serving
    }

    /// Cancels the migrations of a service. Returns whether they were not yet.
    pub(crate) fn cancel_serving(&self) -> bool {
        let mut state = self.lock();
        let Some(serving) = state.serving.take() else { return false };
        let signal = state.signal.map_or(SIGTERM, |(signal, _)| signal);
        // The next signal is another wish.
        state.signal = Some((signal, Instant::now()));
        drop(state);
        serving.cancel(signal);
        true
    }

    /// Takes note of a folder that is removed when the program ends by itself.
    pub(crate) fn making(&self, folder: &Path) {
        self.1.set(folder, format!("remove {}", folder.display()));
    }

    /// Takes note that what is in this folder is about to become another's, of which this is to be
    /// said.
    pub(crate) fn putting(&self, folder: &Path, said: String) {
        self.1.set(folder, said);
    }

    /// What to say of that which the program would leave behind if it ended at once.
    #[cfg(test)]
    pub(crate) fn leaves(&self) -> Option<String> {
        self.1.leaves()
    }

    /// Fails if a signal has come.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.lock().signal {
            Some((signal, _)) => Err(Failure::interrupted(signal)),
            None => Ok(()),
        }
    }

    /// Waits for a signal, or if one has come, for the one that ends the program.
    pub(crate) fn wait(&self) {
        let before = self.check().is_err();
        while self.check().is_err() == before {
            std::thread::sleep(RETRY);
        }
    }

    /// The cancellation if a signal has come, else `failure`: a failure after a signal follows from
    /// it. That the guest's whereabouts are not known is said in any case.
    pub(crate) fn or(&self, failure: impl Into<Failure>) -> Failure {
        let failure = failure.into();
        if failure.is_unclear() {
            return failure;
        }
        self.check().err().unwrap_or(failure)
    }

    fn cancel(&self, signal: i32) {
        let mut state = self.lock();
        let now = Instant::now();
        match Wish::of(state.signal.map(|(_, first)| now.saturating_duration_since(first))) {
            Wish::Cancel => state.signal = Some((signal, now)),
            Wish::Same => {}
            Wish::EndAtOnce if state.serving.is_some() => {
                drop(state);
                self.cancel_serving();
                return;
            }
            Wish::EndAtOnce => {
                if let Some(said) = self.1.leaves() {
                    output::note(&format!("multifd: ended at once; {said}"));
                }
                _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        }
        for (_, token) in &state.watched {
            token.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wanted of the program by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Cancel,
    /// Nothing but what an earlier signal wants.
    Same,
    EndAtOnce,
}

impl Wish {
    /// What is wanted by a signal that comes so long after the first; `None` for the first.
    fn of(since_first: Option<Duration>) -> Self {
        match since_first {
            None => Self::Cancel,
            Some(time) if time < ONE_WISH => Self::Same,
            Some(_) => Self::EndAtOnce,
        }
    }
}

/// A migration that a signal cancels.
#[derive(Debug)]
pub(crate) struct Watch {
    interrupt: Interrupt,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.interrupt.lock().watched.retain(|(number, _)| *number != self.number);
    }
}

/// Waits until a signal has come, which writes a byte; at times in vain. Not by signal-hook's own means,
/// which panic where reading fails.
fn wait_for_byte(mut woken: &UnixStream) {
    let read: io::Result<usize> = woken.read(&mut [0]);
    if read.is_err_and(|error| error.kind() != ErrorKind::Interrupted) {
        std::thread::sleep(RETRY);
    }
}

/// The ignored signals as bits, signal 1 first. `nohup`, for example, ignores SIGHUP.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_to_stop_before_its_migrations_are_cancelled() {
        let interrupt = Interrupt::default();
        let serving = interrupt.serving();
        let _watch = serving.watch(CancelToken::new());
        interrupt.cancel(SIGTERM);
        assert!(interrupt.check().is_err() && serving.check().is_ok());
        // One wish with the first.
        interrupt.cancel(SIGTERM);
        assert!(serving.check().is_ok());
        let long_ago = Instant::now().checked_sub(2 * ONE_WISH).unwrap();
        interrupt.lock().signal = Some((SIGTERM, long_ago));
        interrupt.cancel(SIGINT);
        assert!(serving.check().is_err());
        // What comes right behind is the same wish: the program goes on.
        interrupt.cancel(SIGINT);
        assert!(!interrupt.cancel_serving());
    }

    #[test]
    fn what_is_left_behind_is_said_of_all_that_is_there() {
        let (interrupt, folder) = (Interrupt::default(), tempfile::tempdir().unwrap());
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        for path in [&one, &two] {
            std::fs::write(path, "").unwrap();
        }
        interrupt.making(&one);
        interrupt.serving().putting(&two, "look at two".to_owned());
        assert_eq!(interrupt.leaves().unwrap(), format!("remove {}; look at two", one.display()));
        interrupt.putting(&one, "look at one".to_owned());
        assert_eq!(interrupt.leaves().unwrap(), "look at two; look at one");
        std::fs::remove_file(&two).unwrap();
        assert_eq!(interrupt.leaves().unwrap(), "look at one");
        std::fs::remove_file(&one).unwrap();
        assert_eq!(interrupt.leaves(), None);
    }

    #[test]
    fn two_signals_in_a_row_are_one_wish_and_a_later_one_is_another() {
        assert_eq!(Wish::of(None), Wish::Cancel);
        assert_eq!(Wish::of(Some(Duration::ZERO)), Wish::Same);
        assert_eq!(Wish::of(Some(ONE_WISH - Duration::from_nanos(1))), Wish::Same);
        assert_eq!(Wish::of(Some(ONE_WISH)), Wish::EndAtOnce);
    }
}
