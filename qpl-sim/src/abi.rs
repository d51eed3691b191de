//! libqpl's eight functions.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use qpl_sys::{Job, Status};

use crate::fatal;
use crate::job::{Call, Path, Record};
use crate::simulation::Simulation;
use crate::table::Entry;

/// Bytes of a job for each path, as libqpl 1.9.0 has them.
const JOB_BYTES: [u32; 3] = [830_784, 188_736, 740_864];

/// Where in its memory a job's first pointer to itself points. libqpl has such pointers, too: a
/// job that was moved is known by them.
const STATE_OFFSET: usize = size_of::<Job>().next_multiple_of(Job::ALIGN);

/// The least alignment of a job, that of its fields.
const LEAST_ALIGN: usize = align_of::<Job>();

/// `qpl_get_library_version`: a string that is always there.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qpl_get_library_version() -> *const c_char {
    Simulation::get().config.version.as_ptr()
}

/// `qpl_get_job_size`: the bytes that a job for `path` takes.
///
/// # Safety
/// `bytes` is null, or may be written.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qpl_get_job_size(path: u32, bytes: *mut u32) -> Status {
    guarded("qpl_get_job_size", || {
        Simulation::get();
        if bytes.is_null() {
            return Status::NULL_PTR;
        }
        let Some(&size) = JOB_BYTES.get(path as usize) else { return Status::PATH };
        // SAFETY: it is not null, so it may be written, as the caller promises.
        unsafe { bytes.write(size) };
        Status::OK
    })
}

/// `qpl_init_job`: makes a job for `path` of memory.
///
/// # Safety
/// `job` is null, or points to as many bytes as [`qpl_get_job_size`] says, that stay the job's
/// until [`qpl_fini_job`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qpl_init_job(path: u32, job: *mut Job) -> Status {
    guarded("qpl_init_job", || {
        let path = match path {
            0 => Path::Auto,
            1 => Path::Hardware,
            2 => Path::Software,
            _ => return Status::PATH,
        };
        if job.is_null() {
            return Status::NULL_PTR;
        }
        let call = call("qpl_init_job", job);
        let simulation = Simulation::get();
        if let Some(Entry::Live(record)) = simulation.jobs.get(call.address) {
            record.end(call, true);
        }
        match simulation.can_init(path) {
            Status::OK => {}
            status => return status,
        }
        // SAFETY: the caller gives this memory to the job, more of it than is written here.
        unsafe { write_head(job, path) };
        simulation.jobs.set(call.address, Entry::Live(Record::new(path)));
        Status::OK
    })
}

/// `qpl_execute_job`: runs a job to its end.
///
/// # Safety
/// As for [`qpl_submit_job`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qpl_execute_job(job: *mut Job) -> Status {
    // SAFETY: as the caller promises.
    unsafe {
        on_job("qpl_execute_job", job, |call, record, job| {
            Simulation::get().execute(call, record, job)
        })
    }
}

/// `qpl_submit_job`: has a job run.
///
/// # Safety
/// `job` is null, or was initialised and nothing else uses it. Its input may be read and its output
/// written, in the lengths that it says, until [`qpl_check_job`] or [`qpl_wait_job`] tells of its
/// end.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qpl_submit_job(job: *mut Job) -> Status {
    // SAFETY: as the caller promises.
    unsafe {
        on_job("qpl_submit_job", job, |call, record, job| {
            Simulation::get().submit(call, record, job)
        })
    }
}

/// `qpl_check_job`: says how a job ended, if it has.
///
/// # Safety
/// `job` is null, or was initialised and nothing else uses it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qpl_check_job(job: *mut Job) -> Status {
    // SAFETY: as the caller promises.
    unsafe {
        on_job("qpl_check_job", job, |call, record, job| Simulation::get().check(call, record, job))
    }
}

/// `qpl_wait_job`: blocks until a job has ended, and says how.
///
/// # Safety
/// As for [`qpl_check_job`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qpl_wait_job(job: *mut Job) -> Status {
    // SAFETY: as the caller promises.
    unsafe {
        on_job("qpl_wait_job", job, |call, record, job| Simulation::get().wait(call, record, job))
    }
}

/// `qpl_fini_job`: ends a job. Its memory is the caller's again.
///
/// # Safety
/// As for [`qpl_check_job`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn qpl_fini_job(job: *mut Job) -> Status {
    // SAFETY: as the caller promises.
    unsafe {
        on_job("qpl_fini_job", job, |call, record, job| {
            record.end(call, false);
            Simulation::get().jobs.set(call.address, Entry::Finished);
            job.data_ptr.compress_state_ptr = ptr::null_mut();
            Status::OK
        })
    }
}

/// Does something with a job that was initialised; aborts if it was not.
///
/// # Safety
/// As for [`qpl_check_job`].
unsafe fn on_job(
    function: &'static str,
    job: *mut Job,
    then: impl FnOnce(Call, &Record, &mut Job) -> Status,
) -> Status {
    guarded(function, || {
        if job.is_null() {
            return Status::NULL_PTR;
        }
        let call = call(function, job);
        match Simulation::get().jobs.get(call.address) {
            Some(Entry::Live(record)) => {
                // SAFETY: a job was initialised there, is aligned, and the caller keeps others away.
                then(call, &record, unsafe { &mut *job })
            }
            Some(Entry::Finished) => call.misuse("it was finished with qpl_fini_job"),
            // SAFETY: the caller says that there is a job.
            None => match unsafe { origin(job) } {
                Some(origin) => call
                    .misuse(&format!("it was moved: qpl_init_job initialised it at {origin:#x}")),
                None => call.misuse("it was never initialised with qpl_init_job, or that failed"),
            },
        }
    })
}

/// The address of the live job whose bytes these are, if they are a copy.
///
/// # Safety
/// `job` points to memory of a job's size, whatever is in it.
unsafe fn origin(job: *const Job) -> Option<usize> {
    // SAFETY: the memory is there, and any bits are a pointer.
    let state = unsafe { (*job).data_ptr.compress_state_ptr };
    let origin = state.addr().checked_sub(STATE_OFFSET)?;
    matches!(Simulation::get().jobs.get(origin), Some(Entry::Live(_))).then_some(origin)
}

/// Writes the fields as they are after initialisation.
///
/// # Safety
/// `job` points to memory of a job's size that may be written, and is aligned.
unsafe fn write_head(job: *mut Job, path: Path) {
    // SAFETY: as the caller promises.
    unsafe { job.write_bytes(0, 1) };
    // SAFETY: all of its bytes are zero, which all of its fields can be.
    let head = unsafe { &mut *job };
    let state = job.cast::<u8>().wrapping_add(STATE_OFFSET);
    if path != Path::Software {
        head.numa_id = Job::NUMA_SOCKET;
    }
    head.data_ptr.compress_state_ptr = state;
    head.data_ptr.decompress_state_ptr = state;
    head.data_ptr.analytics_state_ptr = state;
    head.data_ptr.middle_layer_buffer_ptr = state;
    head.data_ptr.hw_state_ptr = state;
    head.data_ptr.path = match path {
        Path::Auto => 0,
        Path::Hardware => 1,
        Path::Software => 2,
    };
}

fn call(function: &'static str, job: *const Job) -> Call {
    let call = Call { function, address: job.addr() };
    if call.address % LEAST_ALIGN != 0 {
        call.misuse(&format!("its address is not a multiple of {LEAST_ALIGN}"));
    }
    call
}

/// Keeps panics from C code.
fn guarded(function: &str, run: impl FnOnce() -> Status) -> Status {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| fatal::give_up(&format!("{function} panicked")))
}
