//! The simulation of a process: what happens to a job from its initialisation to its end.

use std::sync::OnceLock;
use std::time::Duration;
use std::{env, thread};

use iaa_sim::completion::Completion;
use qpl_sys::{Job, Operation, Status};

use crate::config::Config;
use crate::hardware::descriptor::{self, OnDevice};
use crate::hardware::{Hardware, memory};
use crate::job::{Call, Flight, Head, Path, Phase, Record, Request, Step};
use crate::refusals::Refusals;
use crate::table::Table;
use crate::{at_once, ending, fatal, software};

/// All there is of it in a process.
pub(crate) struct Simulation {
    pub(crate) jobs: Table,
    pub(crate) config: Config,
    refusals: Refusals,
    hardware: OnceLock<Hardware>,
}

impl Simulation {
    /// The simulation, as the environment describes it at the first call.
    pub(crate) fn get() -> &'static Self {
        static SIMULATION: OnceLock<Simulation> = OnceLock::new();
        SIMULATION.get_or_init(|| match Config::parse(env::vars_os()) {
            Ok(config) => Self::new(config),
            Err(refused) => fatal::give_up(&format!(
                "the environment describes no device (see the READMEs of qpl-sim and iaa-sim):{refused}"
            )),
        })
    }

    fn new(config: Config) -> Self {
        Self {
            jobs: Table::new(),
            refusals: Refusals::new(&config),
            hardware: OnceLock::new(),
            config,
        }
    }

    /// Whether a job can be initialised for a path.
    pub(crate) fn can_init(&self, path: Path) -> Status {
        match path {
            Path::Hardware if self.hardware().is_none() => Status::INIT_WORK_QUEUES_NOT_AVAILABLE,
            Path::Hardware => self.refusals.of_init().unwrap_or(Status::OK),
            Path::Auto | Path::Software => Status::OK,
        }
    }

    /// The devices, if there are any.
    fn hardware(&self) -> Option<&Hardware> {
        let config = &self.config.devices;
        (config.devices > 0).then(|| self.hardware.get_or_init(|| Hardware::start(config)))
    }

    /// Submits a job; one that is not for a device has run when this returns.
    pub(crate) fn submit(&self, call: Call, record: &Record, job: &mut Job) -> Status {
        record.begin(call);
        let head = Head::of(job);
        let request = match head.request(record.path) {
            Ok(request) => request,
            Err(status) => {
                *record.phase() = Phase::New;
                return status;
            }
        };
        (job.total_in, job.total_out, job.crc) = (0, 0, 0);
        let status = match record.path {
            Path::Software => return run_here(record, &request, job),
            Path::Auto if head.is_for_software() => return run_here(record, &request, job),
            Path::Auto | Path::Hardware => self.submit_to_device(record, head, request, job),
        };
        match status {
            Status::OK => Status::OK,
            _ if record.path == Path::Auto => run_here(record, &request, job),
            status => {
                *record.phase() = Phase::New;
                status
            }
        }
    }

    fn submit_to_device(
        &self,
        record: &Record,
        head: Head,
        request: Request,
        job: &mut Job,
    ) -> Status {
        let Some(hardware) = self.hardware() else { return Status::INIT_WORK_QUEUES_NOT_AVAILABLE };
        if let Some(status) = self.refusals.of_submission() {
            return status;
        }
        if self.config.at_once {
            if let Some(status) = at_once::run(&request, job) {
                *record.phase() = Phase::Done(Head::of(job), status);
                return Status::OK;
            }
        }
        let device = Some(self.on_device(record));
        let descriptor = match request.operation {
            Operation::Compress => descriptor::compress(&request.buffers, device),
            Operation::Decompress => descriptor::decompress(&request.buffers, device),
        };
        let input_crc = self.config.checks_input().then(|| request.buffers.input_crc());
        let flight = Flight { head, request, descriptor, step: Step::First, input_crc };
        record.memory().clear();
        let mut phase = record.phase();
        let status = hardware.submit(&flight.descriptor, request.numa_id);
        if status == Status::OK {
            *phase = Phase::InFlight(flight);
        }
        status
    }

    fn on_device<'a>(&self, record: &'a Record) -> OnDevice<'a> {
        OnDevice { memory: record.memory(), blocks_on_fault: self.config.devices.block_on_fault }
    }

    /// Says how a job ended, if it has, and tells the job.
    pub(crate) fn check(&self, call: Call, record: &Record, job: &mut Job) -> Status {
        let mut phase = record.phase();
        let was_refused = matches!(*phase, Phase::Refused(_));
        let flight = match &mut *phase {
            // What libqpl answers.
            Phase::New | Phase::Ended(_) if record.path == Path::Software => return Status::OK,
            Phase::New => return Status::JOB_NOT_SUBMITTED,
            Phase::Ended(status) | Phase::Faulted(status) => return *status,
            Phase::Done(head, status) => {
                let status = *status;
                if Head::of(job) != *head {
                    call.misuse(CHANGED_FIELDS);
                }
                *phase = Phase::Ended(status);
                return status;
            }
            Phase::InFlight(flight) | Phase::Refused(flight) => flight,
        };
        if Head::of(job) != flight.head {
            call.misuse(CHANGED_FIELDS);
        }
        let next = if was_refused {
            self.submit_next(record, flight)
        } else {
            let Some(completion) = record.memory().completion() else {
                return Status::BEING_PROCESSED;
            };
            if flight.input_crc.is_some_and(|crc| crc != flight.request.buffers.input_crc()) {
                call.misuse("its input was changed while it was in flight");
            }
            self.next(record, flight, &completion, job)
        };
        // Software begins anew, which it cannot once the job has moved on.
        let falls_back = record.path == Path::Auto && flight.step == Step::First;
        let request = flight.request;
        let status = match next {
            Next::Ends(status) => status,
            Next::Refused if falls_back => Status::QUEUES_ARE_BUSY,
            Next::Goes => {
                phase.is_in_flight(true);
                return Status::BEING_PROCESSED;
            }
            Next::Refused => {
                phase.is_in_flight(false);
                return Status::QUEUES_ARE_BUSY;
            }
        };
        *phase = match status {
            Status::PAGE_FAULT | Status::WRITE_PAGE_FAULT => Phase::Faulted(status),
            status => Phase::Ended(status),
        };
        drop(phase);
        match status {
            Status::OK | Status::MORE_OUTPUT_NEEDED => status,
            _ if falls_back => run_here(record, &request, job),
            status => status,
        }
    }

    /// What comes after a descriptor that has completed.
    fn next(
        &self,
        record: &Record,
        flight: &mut Flight,
        completion: &Completion,
        job: &mut Job,
    ) -> Next {
        if let Some(write) = ending::page_fault(completion) {
            if !record.met_page_fault() && completion.fault_address != 0 {
                memory::touch(completion.fault_address, write);
                record.meets_page_fault();
                return self.submit_next(record, flight);
            }
        }
        let status = match (flight.step, flight.request.operation) {
            (Step::Verify { crc }, _) => return Next::Ends(ending::verified(completion, crc)),
            (Step::First, Operation::Compress) => {
                ending::compressed(&flight.request, completion, job)
            }
            (Step::First, Operation::Decompress) => ending::decompressed(completion, true, job),
        };
        if status != Status::OK || !flight.request.verifies {
            return Next::Ends(status);
        }
        // The job has moved on.
        flight.head = Head::of(job);
        flight.step = Step::Verify { crc: job.crc };
        flight.descriptor = descriptor::verify(
            flight.request.buffers.output,
            job.total_out,
            job.next_out_ptr,
            self.on_device(record),
        );
        self.submit_next(record, flight)
    }

    /// Submits another descriptor of a job in flight.
    fn submit_next(&self, record: &Record, flight: &Flight) -> Next {
        record.memory().clear();
        let numa_id = flight.request.numa_id;
        match self.hardware().map(|hardware| hardware.submit(&flight.descriptor, numa_id)) {
            Some(Status::OK) => Next::Goes,
            // libqpl says of all of them that the queues are busy.
            _ => Next::Refused,
        }
    }

    /// Runs a job to its end.
    pub(crate) fn execute(&self, call: Call, record: &Record, job: &mut Job) -> Status {
        let is_compression = job.op == Operation::Compress as u32;
        let status = match self.submit(call, record, job) {
            Status::OK if record.path != Path::Software => self.wait(call, record, job),
            status => return status,
        };
        if status != Status::OK && is_compression {
            // Where the caller waits, libqpl tells of checksums whatever the end.
            (job.crc, job.xor_checksum, job.last_bit_offset) = (0, 0, 0);
        }
        status
    }

    /// Blocks until a job has ended, and says how.
    pub(crate) fn wait(&self, call: Call, record: &Record, job: &mut Job) -> Status {
        /// Checks before the wait is left to the clock.
        const CHECKS: u32 = 200;
        let mut checks = 0;
        loop {
            match self.check(call, record, job) {
                Status::BEING_PROCESSED if checks < CHECKS => thread::yield_now(),
                Status::BEING_PROCESSED => thread::sleep(Duration::from_micros(50)),
                status => return status,
            }
            checks += 1;
        }
    }
}

const CHANGED_FIELDS: &str = "fields of it were changed while it was in flight";

/// What becomes of a job that one of its descriptors has ended of.
enum Next {
    /// It goes on with another one.
    Goes,
    /// Another one was refused.
    Refused,
    Ends(Status),
}

/// Runs a job on the thread that calls.
fn run_here(record: &Record, request: &Request, job: &mut Job) -> Status {
    let status = software::run(request, job);
    *record.phase() = Phase::Ended(status);
    status
}
