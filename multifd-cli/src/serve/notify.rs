//! What systemd hears of the program, by the protocol of `sd_notify`: that it serves, what it does, that it is well.
//! Where no systemd listens, nothing is said.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;

use sd_notify::NotifyState;

use crate::escape::one_line;
use crate::failure::Failure;

/// The program takes migrations from now on: a unit of `Type=notify` is started. `status` is as of [`status`].
pub(crate) fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// What the program does, in a line that `systemctl status` shows.
pub(crate) fn status(line: &str) {
    say(&[NotifyState::Status(&one_line(line))]);
}

/// The program ends, as soon as what it does is done. `status` is as of [`status`].
pub(crate) fn stopping(status: &str) {
    say(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
}

/// That systemd does not hear it is no reason for migrations to fail.
fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be notified");
    }
}

/// Tells systemd that the program is well, twice in the time of `WatchdogSec=`, until it is dropped. A program
/// that is silent for that time is ended by systemd, and started again.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts a thread that asks `is_well` each time, and is silent where it is not; no thread if systemd does not
    /// watch this process. `is_well` must not wait.
    pub(crate) fn start(
        mut is_well: impl FnMut() -> bool + Send + 'static,
    ) -> Result<Option<Self>, Failure> {
        let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero());
        let Some(pause) = limit.map(|limit| limit / 2) else { return Ok(None) };
        let (stop, stopped) = mpsc::channel::<()>();
        let ping = move || {
            loop {
                if is_well() {
                    say(&[NotifyState::Watchdog]);
                } else {
                    tracing::warn!(
                        "the program is not well: systemd's watchdog is not told otherwise"
                    );
                }
                let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) else { return };
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(ping);
        let thread = thread.map_err(|error| Failure::io("cannot start the watchdog", &error))?;
        Ok(Some(Self { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop = None;
        _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    /// The socket of systemd, which is that of the environment: each test runs itself again with one of its own.
    const SOCKET: &str = "NOTIFY_SOCKET";

    /// Runs the test `name` of this module in a child, whose messages are returned. Its watchdog is to hear from it
    /// within so many microseconds.
    fn heard_from(name: &str, watchdog: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &format!("serve::notify::tests::{name}")]);
        child.env(SOCKET, &path).env("WATCHDOG_USEC", watchdog).env_remove("WATCHDOG_PID");
        let ended = child.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && said.contains("1 passed"), "{said}");
        socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        let messages =
            std::iter::from_fn(|| socket.recv(&mut bytes).ok().map(|n| bytes[..n].to_vec()));
        messages.map(|message| String::from_utf8(message).unwrap()).collect()
    }

    fn is_child() -> bool {
        std::env::var_os(SOCKET).is_some()
    }

    #[test]
    fn systemd_hears_that_the_program_serves_what_it_does_and_that_it_ends() {
        if is_child() {
            ready("no migration");
            status("from\nREADY=1");
            assert!(Watchdog::start(|| true).unwrap().is_none(), "a time of 0 is none");
            return stopping("1 migration is to end");
        }
        let name = "systemd_hears_that_the_program_serves_what_it_does_and_that_it_ends";
        let heard = heard_from(name, "0");
        let expected = [
            "READY=1\nSTATUS=no migration\n",
            "STATUS=from\\nREADY=1\n",
            "STOPPING=1\nSTATUS=1 migration is to end\n",
        ];
        assert_eq!(heard, expected);
    }

    #[test]
    fn the_watchdog_hears_of_the_program_while_it_is_well_and_no_more_once_it_is_dropped() {
        const PAUSE: Duration = Duration::from_millis(5);
        if is_child() {
            let asked = Arc::new(AtomicU32::new(0));
            let own = Arc::clone(&asked);
            let watchdog = Watchdog::start(move || own.fetch_add(1, Ordering::SeqCst) < 3).unwrap();
            let until = Instant::now() + Duration::from_secs(20);
            while asked.load(Ordering::SeqCst) < 6 && Instant::now() < until {
                std::thread::sleep(PAUSE);
            }
            drop(watchdog);
            let in_all = asked.load(Ordering::SeqCst);
            std::thread::sleep(4 * PAUSE);
            assert!(in_all >= 6 && asked.load(Ordering::SeqCst) == in_all);
            return;
        }
        let name =
            "the_watchdog_hears_of_the_program_while_it_is_well_and_no_more_once_it_is_dropped";
        let limit = (2 * PAUSE).as_micros().to_string();
        assert_eq!(heard_from(name, &limit), ["WATCHDOG=1\n"; 3]);
    }
}
