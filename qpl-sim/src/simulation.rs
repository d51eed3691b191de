//! The simulation of a process: what happens to a job from its initialisation to its end.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use qpl_sys::{Job, Status};

use crate::config::Config;
use crate::device::{Devices, Slot};
use crate::engine::{Backlog, Work};
use crate::fatal;
use crate::fault::{Fault, Faults};
use crate::job::{Call, Head, Path, Phase, Record, Request};
use crate::software::{self, Outcome};
use crate::table::Table;

/// All there is of it in a process.
pub(crate) struct Simulation {
    pub(crate) jobs: Table,
    pub(crate) config: Config,
    faults: Faults,
    devices: Devices,
    backlog: Backlog,
    /// When the clock was 0.
    began: Instant,
    /// The number of the next job that a device takes.
    number: AtomicU64,
    /// The number of the next initialisation for hardware.
    init: AtomicU64,
    /// When the devices were lost.
    lost_at: AtomicU64,
    /// Set once the threads run.
    started: OnceLock<()>,
}

const NOT_LOST: u64 = u64::MAX;

impl Simulation {
    /// The simulation, as the environment describes it at the first call.
    pub(crate) fn get() -> &'static Self {
        static SIMULATION: OnceLock<Simulation> = OnceLock::new();
        SIMULATION.get_or_init(|| match Config::parse(env::vars_os()) {
            Ok(config) => Self::new(config),
            Err(refused) => fatal::give_up(&format!(
                "the environment describes no device (see the README of qpl-sim):{refused}"
            )),
        })
    }

    fn new(config: Config) -> Self {
        Self {
            jobs: Table::new(),
            faults: Faults::new(&config),
            devices: Devices::new(&config),
            backlog: Backlog::default(),
            began: Instant::now(),
            number: AtomicU64::new(0),
            init: AtomicU64::new(0),
            lost_at: AtomicU64::new(NOT_LOST),
            started: OnceLock::new(),
            config,
        }
    }

    /// Whether a job can be initialised for a path.
    pub(crate) fn can_init(&'static self, path: Path) -> Status {
        if path == Path::Software {
            return Status::OK;
        }
        if self.devices.is_empty() || self.is_lost() {
            return Status::INIT_WORK_QUEUES_NOT_AVAILABLE;
        }
        let number = self.init.fetch_add(1, Ordering::Relaxed);
        if let Some(status) = self.faults.of_init(number) {
            return status;
        }
        self.started.get_or_init(|| {
            let engines = self.config.devices * self.config.engines;
            self.backlog.start(engines, |work, outcome| Self::get().computed(work, outcome));
        });
        Status::OK
    }

    /// Submits a job; one that is not for a device has run when this returns.
    pub(crate) fn submit(&self, call: Call, record: &Arc<Record>, job: &mut Job) -> Status {
        let head = Head::of(job);
        record.begin(call, head);
        let request = match head.request(record.path) {
            Ok(request) => request,
            Err(status) => {
                record.refuse();
                return status;
            }
        };
        let on_device = match record.path {
            Path::Software => None,
            Path::Auto if head.is_for_software() => None,
            Path::Auto => {
                Some(self.submit_to_device(record, request)).filter(|&status| status == Status::OK)
            }
            Path::Hardware => Some(self.submit_to_device(record, request)),
        };
        match on_device {
            None => run_here(record, request, job),
            Some(Status::OK) => Status::OK,
            Some(status) => {
                record.refuse();
                status
            }
        }
    }

    /// Says how a job ended, if it has, and tells the job.
    pub(crate) fn check(&self, call: Call, record: &Record, job: &mut Job) -> Status {
        let mut phase = record.phase();
        let flight = match &mut *phase {
            // What libqpl answers.
            Phase::New | Phase::Ended(_) if record.path == Path::Software => return Status::OK,
            Phase::New => return Status::JOB_NOT_SUBMITTED,
            Phase::Ended(status) | Phase::Faulted(status) => return *status,
            Phase::InFlight(flight) => flight,
        };
        if Head::of(job) != flight.head {
            call.misuse("fields of it were changed while it was in flight");
        }
        let Some(outcome) = flight.outcome else { return Status::BEING_PROCESSED };
        let Some(was_lost) = self.has_ended(flight.due) else { return Status::BEING_PROCESSED };
        if flight.input_crc.is_some_and(|crc| crc != flight.head.input_crc()) {
            call.misuse("its input was changed while it was in flight");
        }
        let outcome = if was_lost { Outcome::failed(Status::LIBRARY_INTERNAL) } else { outcome };
        tell(job, outcome);
        *phase = match outcome.status {
            status @ (Status::PAGE_FAULT | Status::WRITE_PAGE_FAULT) => Phase::Faulted(status),
            status => Phase::Ended(status),
        };
        outcome.status
    }

    /// Blocks until a job has ended, and says how.
    pub(crate) fn wait(&self, call: Call, record: &Record, job: &mut Job) -> Status {
        loop {
            match self.check(call, record, job) {
                Status::BEING_PROCESSED => {}
                status => return status,
            }
            if let Some(due) = record.wait_until_computed() {
                self.doze_until(due);
            }
        }
    }

    fn submit_to_device(&self, record: &Arc<Record>, request: Request) -> Status {
        if !self.config.fits(request.numa_id) {
            return Status::INIT_WORK_QUEUES_NOT_AVAILABLE;
        }
        if self.config.is_instant() && self.config.lost_after.is_none() {
            if let Some(status) = self.submit_at_once(record, request) {
                return status;
            }
        }
        if self.is_lost() {
            return self.faults.of_lost_device(self.number.fetch_add(1, Ordering::Relaxed));
        }
        let now = self.now();
        let Some(slot) = self.devices.take_slot(now) else { return Status::QUEUES_ARE_BUSY };
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        if self.config.lost_after.is_some_and(|jobs| number >= jobs) {
            self.devices.give_back(slot);
            let _ =
                self.lost_at.compare_exchange(NOT_LOST, now, Ordering::AcqRel, Ordering::Acquire);
            return self.faults.of_lost_device(number);
        }
        let fault = self.faults.of(request.operation, number);
        if fault == Some(Fault::Busy) {
            self.devices.give_back(slot);
            return Status::QUEUES_ARE_BUSY;
        }
        self.schedule(record, request, fault, slot, now, number);
        Status::OK
    }

    fn schedule(
        &self,
        record: &Arc<Record>,
        request: Request,
        fault: Option<Fault>,
        slot: Slot,
        now: u64,
        number: u64,
    ) {
        let bytes = request.page_bytes();
        let due = self.devices.schedule(slot, now, bytes, self.faults.jitter(number));
        let input_crc = self.config.checks_input().then(|| request.input_crc());
        record.note(|flight| {
            flight.due = due;
            flight.input_crc = input_crc;
        });
        if fault == Some(Fault::Hang) {
            self.devices.release(slot, due);
        } else {
            self.backlog.push(Work { record: record.clone(), request, fault, slot, due });
        }
    }

    /// Runs a job here and now if it costs next to nothing. `None` if that is not so, or if it is
    /// to meet a fault.
    fn submit_at_once(&self, record: &Record, request: Request) -> Option<Status> {
        if self.faults.can_happen() {
            return None;
        }
        let at_once =
            |input: &[u8], output: &mut [u8]| software::at_once(request.operation, input, output);
        let outcome = request.on_buffers(at_once)?;
        self.number.fetch_add(1, Ordering::Relaxed);
        record.note(|flight| flight.outcome = Some(outcome));
        Some(Status::OK)
    }

    fn computed(&self, work: &Work, outcome: Outcome) {
        let now = self.now();
        // The slot first: whoever sees the job's end may submit at once.
        self.devices.release(work.slot, work.due.max(now));
        work.record.complete(outcome, now);
    }

    fn is_lost(&self) -> bool {
        self.lost_at.load(Ordering::Acquire) != NOT_LOST
    }

    /// Whether a job that was due then has ended, and if so, whether by the loss of its device.
    fn has_ended(&self, due: u64) -> Option<bool> {
        if due == 0 {
            return Some(false);
        }
        let lost_at = self.lost_at.load(Ordering::Acquire);
        (self.now() >= due.min(lost_at)).then_some(lost_at < due)
    }

    /// Sleeps for most of the time until `due`, though never for long: the device may be lost.
    fn doze_until(&self, due: u64) {
        /// What a sleep may take longer than it should.
        const SLACK: Duration = Duration::from_micros(80);
        let left = Duration::from_nanos(due.saturating_sub(self.now()));
        match left.checked_sub(SLACK) {
            Some(time) if !time.is_zero() => thread::sleep(time.min(Duration::from_millis(1))),
            _ => thread::yield_now(),
        }
    }

    /// Nanoseconds of the simulation's clock, never 0.
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64 + 1
    }
}

/// Runs a job on the thread that calls.
fn run_here(record: &Record, request: Request, job: &mut Job) -> Status {
    let outcome =
        request.on_buffers(|input, output| software::run(request.operation, input, output));
    tell(job, outcome);
    *record.phase() = Phase::Ended(outcome.status);
    outcome.status
}

/// Writes into a job how it has ended.
fn tell(job: &mut Job, outcome: Outcome) {
    let Outcome { read, written, crc, .. } = outcome;
    job.total_in = read;
    job.total_out = written;
    job.crc = crc;
    // A total may be a lie; these two stay within what there is.
    let (read, written) = (read.min(job.available_in), written.min(job.available_out));
    job.next_in_ptr = job.next_in_ptr.wrapping_add(read as usize);
    job.available_in -= read;
    job.next_out_ptr = job.next_out_ptr.wrapping_add(written as usize);
    job.available_out -= written;
}
