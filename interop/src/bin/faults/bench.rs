//! A migration from image to image, and what has to hold of it whatever breaks.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use multifd_interop::program::Signal;
use tempfile::TempDir;

use crate::random;
use crate::running::{Ended, Running};
use crate::waiting::Waiting;

/// Everything ends within this.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Who has not ended so long after its source waits for another one: the limits given are shorter.
pub(crate) const WAITS: Duration = Duration::from_secs(8);

const PAGES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Side {
    Source,
    Relay,
    Destination,
}

impl Side {
    pub(crate) const ALL: [Self; 3] = [Self::Source, Self::Relay, Self::Destination];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Relay => "relay",
            Self::Destination => "destination",
        }
    }
}

/// Three images, and a folder for the rest.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) program: PathBuf,
    pub(crate) seed: u64,
    folder: TempDir,
    next: AtomicUsize,
    /// How often who waited on could not show it, since the same call failed for another source as well.
    pub(crate) not_shown: AtomicUsize,
}

/// What breaks.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) side: Side,
    /// What the program of that side is run by.
    pub(crate) wrapper: Vec<String>,
    pub(crate) environment: Option<(String, String)>,
    /// A signal, so long after the source was started.
    pub(crate) signal: Option<(Signal, Duration)>,
    /// Options of the program.
    pub(crate) options: Vec<String>,
    /// The image that is sent, if not the bench's.
    pub(crate) image: Option<PathBuf>,
    /// The fault may hit before the program's own code runs, which then says nothing of its own.
    pub(crate) may_be_early: bool,
    /// It comes again in each thread, and so with each connection.
    pub(crate) hits_each_thread: bool,
    /// Nothing fails of it: the migration succeeds.
    pub(crate) is_harmless: bool,
}

impl Fault {
    pub(crate) fn at(side: Side) -> Self {
        Self {
            side,
            wrapper: Vec::new(),
            environment: None,
            signal: None,
            options: Vec::new(),
            image: None,
            may_be_early: false,
            hits_each_thread: false,
            is_harmless: false,
        }
    }
}

/// What is at an image's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Old,
    New,
    /// That of another source, which came second.
    Other,
    /// The program does not take it for an image.
    None,
    Half,
}

impl Bench {
    pub(crate) fn new(program: &Path, seed: u64) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let next = AtomicUsize::new(0);
        let not_shown = AtomicUsize::new(0);
        let bench = Self { program: program.to_owned(), seed, folder, next, not_shown };
        for (number, name) in ["old", "new", "other"].into_iter().enumerate() {
            let (ram, run) = (bench.path("ram"), bench.path("first"));
            fs::write(&ram, memory(number as u64))?;
            fs::create_dir(&run)?;
            let from = ["--ram".to_owned(), ram.display().to_string()];
            bench.clean(&run, &from).map_err(io::Error::other)?;
            fs::rename(run.join("vm"), bench.path(name))?;
            fs::remove_dir_all(run)?;
        }
        Ok(bench)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder for a run, with the old image as `vm`.
    pub(crate) fn run_folder(&self) -> io::Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = self.path(&format!("run{number}"));
        fs::create_dir(&folder)?;
        copy(&self.path("old"), &folder.join("vm"))?;
        Ok(folder)
    }

    /// How long a migration takes from the source's start.
    pub(crate) fn usual_time(&self) -> Result<Duration, String> {
        let mut times = Vec::new();
        for _ in 0..5 {
            let run = self.run_folder().map_err(|error| error.to_string())?;
            let begun = Instant::now();
            self.clean(&run, &self.from())?;
            times.push(begun.elapsed());
            _ = fs::remove_dir_all(run);
        }
        times.sort();
        Ok(times[2])
    }

    fn from(&self) -> [String; 2] {
        ["--from".to_owned(), self.path("new").display().to_string()]
    }

    /// Migrates with a fault, and judges it.
    pub(crate) fn breaks(&self, fault: &Fault) -> Result<(), String> {
        let run = self.run_folder().map_err(|error| error.to_string())?;
        let judged = self.migrate(&run, fault).and_then(|()| self.judge_next(&run));
        _ = fs::remove_dir_all(run);
        judged
    }

    fn migrate(&self, run: &Path, fault: &Fault) -> Result<(), String> {
        let (to, from) = (uri(run, "to"), uri(run, "from"));
        let vm = run.join("vm").display().to_string();
        let with_relay = fault.side == Side::Relay;
        let [channel, progress] = ["--channel-timeout=3s", "--progress-timeout=4s"];
        let recv = ["recv", "--force", "--listen", &to, "--to", &vm, channel, progress];
        let mut recv = self.start(run, Side::Destination, fault, &recv)?;
        let mut relay = None;
        let mut listens = recv.listens()?;
        if listens && with_relay {
            let ends = ["relay", "--listen", &from, "--to", &to, channel, progress];
            let mut started = self.start(run, Side::Relay, fault, &ends)?;
            listens = started.listens()?;
            relay = Some(started);
        }
        let mut send = None;
        if listens {
            let image = fault.image.clone().unwrap_or_else(|| self.path("new"));
            let (image, to) = (image.display().to_string(), if with_relay { &from } else { &to });
            let send_to = ["send", "--from", &image, "--to", to, progress];
            let mut started = self.start(run, Side::Source, fault, &send_to)?;
            if let Some((signal, after)) = fault.signal {
                sleep(after);
                let victim = match (fault.side, &relay) {
                    (Side::Source, _) => &started,
                    (Side::Relay, Some(relay)) => relay,
                    _ => &recv,
                };
                victim.signal(signal);
            }
            send = Some(started.wait(LIMIT));
        }
        let relay_ended = relay.as_mut().map(|relay| relay.wait(WAITS));
        let mut ended = vec![(Side::Source, send.as_ref()), (Side::Relay, relay_ended.as_ref())];
        if let Some(relay) = relay.filter(|_| relay_ended.as_ref().is_some_and(Ended::is_not)) {
            // Of a source that was broken before it had said what it is, both wait for another.
            ended.pop();
            let waiting = Waiting { side: Side::Relay, program: relay, uri: from };
            let behind = Waiting { side: Side::Destination, program: recv, uri: to };
            return self.judge_waiting(run, fault, &ended, waiting, Some(behind));
        }
        let recv_ended = recv.wait(WAITS);
        if recv_ended.is_not() {
            let waiting = Waiting { side: Side::Destination, program: recv, uri: to };
            return self.judge_waiting(run, fault, &ended, waiting, None);
        }
        self.judge(run, fault, send.as_ref(), relay_ended.as_ref(), &recv_ended)
    }

    fn judge(
        &self,
        run: &Path,
        fault: &Fault,
        send: Option<&Ended>,
        relay: Option<&Ended>,
        recv: &Ended,
    ) -> Result<(), String> {
        let found = self.found(run, "vm");
        let all = format!("image {found:?}; send {send:?}; relay {relay:?}; recv {recv:?}");
        let sides = [(Side::Source, send), (Side::Relay, relay), (Side::Destination, Some(recv))];
        for (side, ended) in sides {
            if let Some(ended) = ended {
                let victim = side == fault.side;
                judge_end(fault, victim, ended)
                    .map_err(|why| format!("{}: {why}; {all}", side.name()))?;
            }
        }
        let wrong = |why: &str| Err(format!("{why}; {all}"));
        if !matches!(found, Found::Old | Found::New) {
            return wrong("the image is neither the old one nor the new one");
        }
        let new = found == Found::New;
        if fault.is_harmless && [send, relay, Some(recv)].into_iter().flatten().any(Ended::failed) {
            return wrong("nothing was broken, and it did not succeed");
        }
        if recv.code() == Some(0) && !new {
            return wrong("the destination ends with 0 and has no new image");
        }
        if recv.code() == Some(1) && new {
            return wrong("the destination ends with 1 and has a new image");
        }
        for ended in [send, relay].into_iter().flatten() {
            if ended.code() == Some(0) && !new {
                return wrong("0 without a new image");
            }
            if ended.code() == Some(1) && new {
                return wrong("1 says that the guest is still the source's");
            }
        }
        self.judge_leftovers(run, recv).or_else(|why| wrong(&why))
    }

    /// Only who was killed leaves something, and that is not taken for what it is not.
    fn judge_leftovers(&self, run: &Path, recv: &Ended) -> Result<(), String> {
        for name in leftovers(run) {
            if recv.status.is_some_and(|status| status.signal().is_none())
                && !recv.said.contains(&name)
            {
                return Err(format!("{name} is left without a word"));
            }
            if self.found(run, &name) == Found::Half {
                return Err(format!("{name} is half an image and taken for one"));
            }
        }
        Ok(())
    }

    /// The next migration works, and says what is left.
    fn judge_next(&self, run: &Path) -> Result<(), String> {
        let left = leftovers(run);
        for socket in ["to", "from"] {
            _ = fs::remove_file(run.join(socket));
        }
        let said = self.clean(run, &self.from())?;
        if self.found(run, "vm") != Found::New {
            return Err("the next migration has not brought the new image".to_owned());
        }
        for name in left {
            let empty = fs::read_dir(run.join(&name)).is_ok_and(|mut all| all.next().is_none());
            if !empty && !said.contains(&name) {
                return Err(format!("the next run says nothing of {name}: {said}"));
            }
        }
        let sent = self.path("new");
        if self.is_same(&sent, &sent) {
            Ok(())
        } else {
            Err("the source's image is gone".to_owned())
        }
    }

    /// Migrates with nothing broken. Returns what the destination said.
    fn clean(&self, run: &Path, from: &[String; 2]) -> Result<String, String> {
        let (to, vm) = (uri(run, "clean"), run.join("vm").display().to_string());
        let recv = ["recv", "--force", "--listen", &to, "--to", &vm];
        let mut recv = self.run(run, "clean-recv", &recv)?;
        if !recv.listens()? {
            return Err(format!("the next destination does not listen: {}", recv.said()));
        }
        let send = ["send", &from[0], &from[1], "--to", &to];
        let send = self.run(run, "clean-send", &send)?.wait(LIMIT);
        let recv = recv.wait(LIMIT);
        if send.code() == Some(0) && recv.code() == Some(0) {
            return Ok(recv.said);
        }
        Err(format!("the next migration fails: {send:?}, {recv:?}"))
    }

    /// What is in this folder of a run.
    pub(crate) fn found(&self, run: &Path, name: &str) -> Found {
        let path = run.join(name);
        let show = Command::new(&self.program).arg("show").arg(&path).output();
        if !show.is_ok_and(|shown| shown.status.success()) {
            return Found::None;
        }
        let images = [("new", Found::New), ("old", Found::Old), ("other", Found::Other)];
        let is = images.into_iter().find(|(name, _)| self.is_same(&path, &self.path(name)));
        is.map_or(Found::Half, |(_, found)| found)
    }

    fn is_same(&self, one: &Path, other: &Path) -> bool {
        ["pc.ram", "device-state.bin"].iter().all(|name| {
            let [one, other] = [one, other].map(|image| fs::read(image.join(name)));
            one.is_ok_and(|one| other.is_ok_and(|other| one == other))
        })
    }

    fn start(
        &self,
        run: &Path,
        side: Side,
        fault: &Fault,
        args: &[&str],
    ) -> Result<Running, String> {
        if side != fault.side {
            return self.run(run, side.name(), args);
        }
        let mut words = fault.wrapper.iter().cloned().chain([self.program.display().to_string()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(args).args(&fault.options);
        command.envs(fault.environment.clone());
        Running::start(run, side.name(), command)
    }

    pub(crate) fn run(&self, run: &Path, name: &str, args: &[&str]) -> Result<Running, String> {
        let mut command = Command::new(&self.program);
        command.args(args);
        Running::start(run, name, command)
    }

    /// Runs migrations in another way, and gives what is to be judged: the folder of a run.
    pub(crate) fn judge_image(&self, run: &Path, recv_code: Option<i32>) -> Result<(), String> {
        let found = self.found(run, "vm");
        let expected = if recv_code == Some(0) { Found::New } else { Found::Old };
        if found == expected { Ok(()) } else { Err(format!("{found:?} after {recv_code:?}")) }
    }
}

pub(crate) fn judge_end(fault: &Fault, victim: bool, ended: &Ended) -> Result<(), String> {
    let Some(status) = ended.status else { return Err("hangs".to_owned()) };
    // The language's library panics where a thread has no memory for its stack or no random numbers.
    let by_library = ended.said.contains("panicked at /rustc/");
    if victim && by_library && !matches!(status.code(), Some(0)) {
        return Ok(());
    }
    if ended.said.contains("panicked") {
        return Err("panicked".to_owned());
    }
    if victim && fault.signal.is_some() {
        return Ok(());
    }
    let says =
        ended.said.lines().any(|line| line.starts_with("multifd: ") || line.starts_with("error: "));
    match status.code() {
        Some(0 | 4) => Ok(()),
        Some(1..=3) if says => Ok(()),
        // The loader and the language's runtime have their own words, or none.
        _ if victim && fault.may_be_early => Ok(()),
        None if victim && ended.said.contains("memory allocation of") => Ok(()),
        _ => Err("fails without a word of its own".to_owned()),
    }
}

fn leftovers(run: &Path) -> Vec<String> {
    let names = fs::read_dir(run).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with('.')).collect()
}

fn uri(run: &Path, name: &str) -> String {
    format!("unix:{}", run.join(name).display())
}

pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// RAM with pages of all kinds.
fn memory(seed: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for page in 0..PAGES as u64 {
        let word = |at: u64| match page % 4 {
            0 => 0,
            1 => random(seed + 1, page << 16 | at),
            2 => (page * at) >> 3 | seed,
            _ => page | seed << 8,
        };
        bytes.extend((0..512).flat_map(|at| word(at).to_le_bytes()));
    }
    bytes
}
