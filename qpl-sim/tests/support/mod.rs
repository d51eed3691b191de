//! Processes with a simulation each, and jobs in them.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};
use std::{any, env, path};

use qpl_sys::{Flags, Job, Library, Operation, Path, Status};

/// Set in a process that a test has started: the simulation reads its settings once.
const CHILD: &str = "MULTIFD_SIM_TEST_CHILD";

/// Printed by such a process once it is through: one that has found no such test succeeds, too.
const DONE: &str = "the test's body is through";

/// Which library a process has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Which {
    Simulated,
    /// libqpl, on the same devices.
    Real,
}

/// Runs `body`, the closure of a test, in a process of its own with these settings of the
/// simulation: variables, those of the devices without `IAA_SIM_`. Returns how that ended; in that process, never.
pub(crate) fn process<F: Fn(&Library)>(settings: &[(&str, &str)], body: F) -> Output {
    process_with(Which::Simulated, settings, body)
}

pub(crate) fn process_with<F: Fn(&Library)>(
    which: Which,
    settings: &[(&str, &str)],
    body: F,
) -> Output {
    if let Some(which) = env::var_os(CHILD) {
        let library = if which == "Real" { real() } else { simulated() };
        body(&library);
        eprintln!("{DONE}");
        std::process::exit(0);
    }
    // The name of a closure's type has that of its test: `binary::test::{{closure}}`.
    let name = any::type_name::<F>();
    let test = name.split("::{{closure}}").next().unwrap().split_once("::").unwrap().1;
    let mut words = if which == Which::Real { runner() } else { Vec::new() };
    words.push(path::absolute(env::args_os().next().unwrap()).unwrap().into());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{which:?}"));
    for (setting, value) in settings {
        command.env(variable(setting), value);
    }
    command.output().unwrap()
}

/// The library's own settings are named in full.
fn variable(setting: &str) -> String {
    if setting.starts_with("QPL_SIM_") { setting.to_owned() } else { format!("IAA_SIM_{setting}") }
}

fn simulated() -> Library {
    let file = qpl_sim::library_file().unwrap();
    // SAFETY: it is the simulation, which has libqpl's functions.
    unsafe { Library::open_file(file.as_os_str()) }.unwrap()
}

/// libqpl, which finds what is loaded already in libaccel-config's place.
fn real() -> Library {
    let file = iaa_sim::library_file().unwrap();
    // SAFETY: what it runs when it is loaded does no harm.
    std::mem::forget(unsafe { libloading::Library::new(file) }.unwrap());
    Library::open().unwrap()
}

/// What `scripts/qpl-library` has cargo start programs by.
fn runner() -> Vec<OsString> {
    let runner = env::var_os("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER").unwrap_or_default();
    let words = runner.as_bytes().split(u8::is_ascii_whitespace);
    words.filter(|word| !word.is_empty()).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

/// Runs `body` in a process of its own, where nothing must fail. Returns what it printed.
pub(crate) fn simulate<F: Fn(&Library)>(settings: &[(&str, &str)], body: F) -> String {
    simulate_with(Which::Simulated, settings, body)
}

pub(crate) fn simulate_with<F: Fn(&Library)>(
    which: Which,
    settings: &[(&str, &str)],
    body: F,
) -> String {
    let output = process_with(which, settings, body);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    let is_done = output.status.success() && said.contains(DONE);
    assert!(is_done, "{}\n{printed}\n{said}", output.status);
    printed
}

/// A job, its memory and its buffers.
pub(crate) struct TestJob {
    library: Library,
    pub(crate) job: *mut Job,
    layout: Layout,
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

impl TestJob {
    /// Memory for a job, not initialised.
    pub(crate) fn memory(library: &Library, path: Path) -> Self {
        let bytes = library.job_size(path).unwrap();
        let layout = Layout::from_size_align(bytes, Job::ALIGN).unwrap();
        // SAFETY: the size is not 0.
        let job = unsafe { alloc_zeroed(layout) }.cast();
        let (input, output) = (Vec::new(), Vec::new());
        Self { library: library.clone(), job, layout, input, output }
    }

    pub(crate) fn new(library: &Library, path: Path) -> Self {
        let job = Self::memory(library, path);
        assert_eq!(job.init(path), Status::OK);
        job
    }

    pub(crate) fn head(&mut self) -> &mut Job {
        // SAFETY: it is memory of a job, which the simulation writes to in calls alone.
        unsafe { &mut *self.job }
    }

    /// Sets the job up to compress `page` into one byte less.
    pub(crate) fn compress(&mut self, page: &[u8]) {
        self.set(Operation::Compress, page.to_vec(), page.len() - 1);
    }

    /// Sets the job up to decompress `stream` into so many bytes.
    pub(crate) fn decompress(&mut self, stream: &[u8], bytes: usize) {
        self.set(Operation::Decompress, stream.to_vec(), bytes);
    }

    fn set(&mut self, operation: Operation, input: Vec<u8>, room: usize) {
        (self.input, self.output) = (input, vec![0xee; room]);
        let head = self.head();
        head.op = operation as u32;
        head.level = Job::LEVEL_1;
        head.flags = Flags::FIRST | Flags::LAST | Flags::OMIT_VERIFY;
        self.again(room);
    }

    /// Sets the job up for the same input once more, with that much room: a job that has ended has
    /// moved on.
    pub(crate) fn again(&mut self, room: usize) {
        let (next_in, available_in) = (self.input.as_mut_ptr(), self.input.len() as u32);
        self.output.resize(room, 0xee);
        let next_out = self.output.as_mut_ptr();
        let head = self.head();
        (head.next_in_ptr, head.available_in) = (next_in, available_in);
        (head.next_out_ptr, head.available_out) = (next_out, room as u32);
    }

    /// What was written, if it is what the job says.
    pub(crate) fn written(&mut self) -> &[u8] {
        let written = self.head().total_out as usize;
        &self.output[..written]
    }

    pub(crate) fn init(&self, path: Path) -> Status {
        // SAFETY: the memory was made for the path, or for a larger one.
        unsafe { self.library.init_job(path, self.job) }
    }

    pub(crate) fn execute(&self) -> Status {
        // SAFETY: as the test has set it up, or to see that it is refused.
        unsafe { self.library.execute_job(self.job) }
    }

    pub(crate) fn submit(&self) -> Status {
        // SAFETY: as the test has set it up, or to see that it is refused.
        unsafe { self.library.submit_job(self.job) }
    }

    pub(crate) fn check(&self) -> Status {
        // SAFETY: the memory is there.
        unsafe { self.library.check_job(self.job) }
    }

    pub(crate) fn wait(&self) -> Status {
        // SAFETY: the memory is there.
        unsafe { self.library.wait_job(self.job) }
    }

    pub(crate) fn fini(&self) -> Status {
        // SAFETY: the memory is there.
        unsafe { self.library.fini_job(self.job) }
    }

    /// Ends the job, and gives its memory back.
    pub(crate) fn finish(self) {
        assert_eq!(self.fini(), Status::OK);
        // SAFETY: it was allocated with that layout, and no job is in it.
        unsafe { dealloc(self.job.cast(), self.layout) };
    }
}

/// A page that shrinks, one for each seed.
pub(crate) fn text(seed: usize, bytes: usize) -> Vec<u8> {
    let words = b"the quick brown fox jumps over the lazy dog and back again";
    (0..bytes).map(|at| words[(at * (1 + at / 300) + seed) % words.len()]).collect()
}

/// A page that does not shrink.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}
