//! Processes that have loaded the simulation, and what a program does with its queues.

use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use std::{any, env, path, ptr, thread};

/// Set in a process that a test has started: the simulation reads its settings once.
const CHILD: &str = "IAA_TEST_CHILD";

/// Printed by such a process once it is through: one that has found no such test succeeds, too.
const DONE: &str = "the test's body is through";

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `body`, the closure of a test, in a process of its own with these settings of the simulation.
/// Returns how that ended; in that process, never.
pub(crate) fn process<F: Fn()>(settings: &[(&str, &str)], body: F) -> Output {
    if env::var_os(CHILD).is_some() {
        body();
        eprintln!("{DONE}");
        std::process::exit(0);
    }
    // The name of a closure's type has that of its test: `binary::test::{{closure}}`.
    let name = any::type_name::<F>();
    let test = name.split("::{{closure}}").next().unwrap().split_once("::").unwrap().1;
    let mut words = runner();
    words.push(path::absolute(env::args_os().next().unwrap()).unwrap().into());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1");
    for (setting, value) in settings {
        command.env(format!("IAA_SIM_{setting}"), value);
    }
    command.output().unwrap()
}

/// Runs `body` in a process of its own, where nothing must fail. Returns what that said.
pub(crate) fn simulate<F: Fn()>(settings: &[(&str, &str)], body: F) -> String {
    let output = process(settings, body);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8_lossy(&output.stdout);
    let is_done = output.status.success() && said.contains(DONE);
    assert!(is_done, "{}\n{printed}\n{said}", output.status);
    said
}

/// What `scripts/qpl-library` has cargo start programs by.
fn runner() -> Vec<OsString> {
    let runner = env::var_os("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER").unwrap_or_default();
    let words = runner.as_bytes().split(u8::is_ascii_whitespace);
    let words = words.filter(|word| !word.is_empty());
    words.map(|word| std::ffi::OsStr::from_bytes(word).to_owned()).collect()
}

/// Waits for something, for as long as a busy machine may need.
pub(crate) fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < LIMIT, "no {what} after {LIMIT:?}");
        thread::yield_now();
    }
}

/// Loads the simulation for good, as libqpl would.
pub(crate) fn load() -> &'static libloading::Library {
    let file = iaa_sim::library_file().unwrap();
    // SAFETY: what it runs when it is loaded does no harm.
    Box::leak(Box::new(unsafe { libloading::Library::new(file) }.unwrap()))
}

/// A device as libaccel-config's functions show it.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) numa_node: c_int,
    pub(crate) queues: Vec<SeenQueue>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct SeenQueue {
    pub(crate) id: c_int,
    pub(crate) priority: c_int,
    pub(crate) block_on_fault: c_int,
    pub(crate) path: String,
}

type Handle = *mut c_void;

/// All devices, by a walk such as libqpl's.
pub(crate) fn walk() -> Vec<Seen> {
    let library = load();
    macro_rules! function {
        ($name:literal, fn($($argument:ty),*) -> $result:ty) => {{
            type Function = unsafe extern "C" fn($($argument),*) -> $result;
            // SAFETY: the function of that name has that type.
            *unsafe { library.get::<Function>($name.to_bytes_with_nul()) }.unwrap()
        }};
    }
    let mut context = ptr::null_mut();
    let new = function!(c"accfg_new", fn(*mut Handle) -> c_int);
    // SAFETY: there is room for a handle.
    assert_eq!(unsafe { new(&mut context) }, 0);
    // Each function takes a handle alone, and reads nothing through it.
    let number = |function: unsafe extern "C" fn(Handle) -> c_int, handle| {
        // SAFETY: as said.
        unsafe { function(handle) }
    };
    let next = |function: unsafe extern "C" fn(Handle) -> Handle, handle| {
        // SAFETY: as said.
        unsafe { function(handle) }
    };
    let mut seen = Vec::new();
    let mut device = next(function!(c"accfg_device_get_first", fn(Handle) -> Handle), context);
    while !device.is_null() {
        let state = function!(c"accfg_device_get_state", fn(Handle) -> c_int);
        assert_eq!(number(state, device), 1, "enabled");
        let name = function!(c"accfg_device_get_devname", fn(Handle) -> *const c_char);
        // SAFETY: as said.
        let name = unsafe { name(device) };
        // SAFETY: it is a text that ends in a NUL and stays.
        let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap().to_owned();
        let numa_node =
            number(function!(c"accfg_device_get_numa_node", fn(Handle) -> c_int), device);
        let mut queues = Vec::new();
        let mut queue = next(function!(c"accfg_wq_get_first", fn(Handle) -> Handle), device);
        while !queue.is_null() {
            let is = |function| number(function, queue);
            assert_eq!(is(function!(c"accfg_wq_get_state", fn(Handle) -> c_int)), 1, "enabled");
            assert_eq!(is(function!(c"accfg_wq_get_mode", fn(Handle) -> c_int)), 0, "shared");
            queues.push(SeenQueue {
                id: is(function!(c"accfg_wq_get_id", fn(Handle) -> c_int)),
                priority: is(function!(c"accfg_wq_get_priority", fn(Handle) -> c_int)),
                block_on_fault: is(function!(c"accfg_wq_get_block_on_fault", fn(Handle) -> c_int)),
                path: path_of(
                    function!(
                        c"accfg_wq_get_user_dev_path",
                        fn(Handle, *mut c_char, usize) -> c_int
                    ),
                    queue,
                ),
            });
            queue = next(function!(c"accfg_wq_get_next", fn(Handle) -> Handle), queue);
        }
        seen.push(Seen { name, numa_node, queues });
        device = next(function!(c"accfg_device_get_next", fn(Handle) -> Handle), device);
    }
    seen
}

fn path_of(
    function: unsafe extern "C" fn(Handle, *mut c_char, usize) -> c_int,
    queue: Handle,
) -> String {
    let mut room = [1_u8; 63];
    // SAFETY: there is so much room.
    let short = unsafe { function(queue, room.as_mut_ptr().cast(), 3) };
    assert!(short < 0 && room == [1; 63], "nothing is written where there is no room");
    // SAFETY: there is so much room.
    let length = unsafe { function(queue, room.as_mut_ptr().cast(), room.len()) };
    assert_eq!(room[length as usize], 0);
    String::from_utf8(room[..length as usize].to_vec()).unwrap()
}

/// The file of the only queue, open as libqpl opens it.
pub(crate) fn open_queue() -> File {
    let [device] = walk().try_into().unwrap();
    open(&device.queues[0].path)
}

pub(crate) fn open(path: &str) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Maps a queue's page as libqpl does, if it can be mapped.
pub(crate) fn map(file: &File) -> Option<usize> {
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    let fd = file.as_raw_fd();
    // SAFETY: it takes memory that nothing has yet.
    let page = unsafe { libc::mmap(ptr::null_mut(), 0x1000, libc::PROT_WRITE, flags, fd, 0) };
    (page != libc::MAP_FAILED).then(|| page.addr())
}

/// A completion record, which the device writes.
#[repr(C, align(64))]
pub(crate) struct Record([AtomicU8; 64]);

impl Record {
    pub(crate) fn new() -> &'static Self {
        // Never freed: a device may write to it when a test has ended.
        Box::leak(Box::new(Self([const { AtomicU8::new(0) }; 64])))
    }

    pub(crate) fn status(&self) -> u8 {
        self.0[0].load(Ordering::Acquire)
    }

    pub(crate) fn error(&self) -> u8 {
        self.0[1].load(Ordering::Acquire)
    }

    pub(crate) fn wait(&self) -> u8 {
        wait_for("completion record", || self.status() != 0);
        self.status()
    }
}

pub(crate) const NO_OPERATION: u8 = 0;
pub(crate) const DECOMPRESS: u8 = 0x42;

/// A descriptor with that record, on a mebibyte that is not there: at 1K a second, it takes an engine
/// longer than any test.
pub(crate) fn descriptor(opcode: u8, record: &'static Record) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[4] = 0x0c;
    bytes[7] = opcode;
    bytes[8..16].copy_from_slice(&ptr::from_ref(record).addr().to_le_bytes());
    for at in [16, 24, 40] {
        bytes[at..at + 8].copy_from_slice(&0x10_u64.to_le_bytes());
    }
    for at in [32, 48, 52] {
        bytes[at..at + 4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    }
    bytes
}
