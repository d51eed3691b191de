//! The program on a terminal.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::common::{Running, command, memory, recordings, text};

/// The program with a terminal of that width for its output and its messages.
struct OnTerminal {
    child: Child,
    screen: File,
    shown: String,
}

impl OnTerminal {
    fn start(mut command: Command, width: u16) -> Self {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&main).unwrap();
        unlockpt(&main).unwrap();
        let size = Winsize { ws_row: 40, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&main, size).unwrap();
        let name = ptsname(&main, Vec::new()).unwrap();
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        command.env("TERM", "xterm").stdin(Stdio::null());
        let child = command.stdout(open()).stderr(open()).spawn().unwrap();
        Self { child, screen: File::from(main), shown: String::new() }
    }

    /// Waits until it has shown `words`, with which it goes on or waits for somebody.
    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        while !self.shown.contains(words) {
            assert!(self.read(), "it has not shown {words:?}, but: {}", self.shown);
        }
    }

    /// Reads what is shown next; false after the end.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // At the end, Linux says that the terminal is gone.
        let count = self.screen.read(&mut buffer).unwrap_or(0);
        self.shown += &String::from_utf8_lossy(&buffer[..count]);
        count > 0
    }

    /// All that it shows.
    fn end(mut self) -> String {
        while self.read() {}
        self.child.wait().unwrap();
        self.shown
    }

    fn cancel(self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.end();
    }
}

#[test]
fn waiting_says_for_whom() {
    let to = tempfile::tempdir().unwrap();
    let image = to.path().join("vm");
    let recv = ["recv", "-l", "tcp:127.0.0.1:0", "-t", text(&image)];
    let relay = ["relay", "-l", "tcp:127.0.0.1:0", "-t", "tcp:127.0.0.1:9"];
    for args in [&recv[..], &relay] {
        let mut waiting = OnTerminal::start(command(args), 100);
        waiting.wait_for("waiting for a source on tcp:127.0.0.1:");
        waiting.cancel();
    }
}

#[test]
fn a_source_says_that_it_waits_for_the_destination_to_confirm() {
    let folder = tempfile::tempdir().unwrap();
    let (ram, vm) = (folder.path().join("ram"), folder.path().join("vm"));
    fs::write(&ram, memory(2000)).unwrap();
    let (recv, uri) = Running::recv(&["-l", "tcp:127.0.0.1:0", "-t", text(&vm)]);
    let send = OnTerminal::start(command(&["send", "-r", text(&ram), "-t", &uri]), 100);
    let shown = send.end();
    recv.wait().succeeded();
    assert!(shown.contains(&format!("waiting for {uri} to confirm")), "{shown}");
    let last = shown.trim_end().lines().last().unwrap();
    assert!(last.contains(&format!("sent to {uri}: 7.81 MiB of guest memory in ")), "{shown}");
}

#[test]
fn a_table_fits_the_terminal_and_no_word_of_it_is_lost() {
    let shown = |width| OnTerminal::start(command(&["codecs"]), width).end();
    let (narrow, wide) = (shown(70), shown(1000));
    let widest = |shown: &str| shown.lines().map(|line| line.trim_end().len()).max().unwrap();
    assert!(widest(&narrow) <= 70 && widest(&wide) > 70, "{narrow}");
    for word in wide.split_whitespace().filter(|word| word.len() < 20) {
        assert!(narrow.contains(word), "{word}: {narrow}");
    }
}

#[test]
fn a_number_is_whole_on_the_narrowest_terminal() {
    let recording = recordings().into_iter().find(|path| path.ends_with("zstd")).unwrap();
    let args = ["-q", "inspect", text(&recording)];
    let shown = |width| OnTerminal::start(command(&args), width).end();
    let (narrow, wide) = (shown(20), shown(1000));
    for number in wide.split_whitespace().filter(|word| word.parse::<f64>().is_ok()) {
        assert!(narrow.split_whitespace().any(|word| word == number), "{number}: {narrow}");
    }
}
