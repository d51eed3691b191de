//! The devices, as libqpl uses them: descriptors to whose queue has room, and memory for what comes back.

pub(crate) mod descriptor;
#[allow(unsafe_code, reason = "memory that a device writes")]
pub(crate) mod memory;

use std::cell::Cell;

use iaa_sim::descriptor::Descriptor;
use iaa_sim::memory::OwnMemory;
use iaa_sim::{Config, Devices, Submission};
use qpl_sys::{Job, Status};

use crate::fatal;

/// All devices, at work.
pub(crate) struct Hardware {
    config: Config,
    devices: Devices,
    /// The queues of a device in libqpl's order, that of their priorities.
    queues: Vec<usize>,
}

thread_local! {
    /// The device that this thread tries next, and the queue of any device: each thread begins with the first.
    static NEXT_DEVICE: Cell<usize> = const { Cell::new(0) };
    static NEXT_QUEUE: Cell<usize> = const { Cell::new(0) };
}

impl Hardware {
    pub(crate) fn start(config: &Config) -> Self {
        let devices = Devices::start(config, &OwnMemory)
            .unwrap_or_else(|error| fatal::give_up(&format!("an engine gets no thread: {error}")));
        let mut queues: Vec<_> = (0..config.queues).collect();
        queues.sort_by_key(|&queue| config.queue_priority(queue));
        Self { config: config.clone(), devices, queues }
    }

    /// Submits a descriptor to a queue with room, of a device that fits `numa_id`.
    pub(crate) fn submit(&self, descriptor: &Descriptor, numa_id: i32) -> Status {
        let mut answer = Status::INIT_WORK_QUEUES_NOT_AVAILABLE;
        for _ in 0..self.config.devices {
            let device = NEXT_DEVICE.get() % self.config.devices;
            NEXT_DEVICE.set((device + 1) % self.config.devices);
            if !fits(self.config.numa_node(device), numa_id) {
                continue;
            }
            if self.submit_to(device, descriptor) {
                return Status::OK;
            }
            answer = Status::QUEUES_ARE_BUSY;
        }
        answer
    }

    fn submit_to(&self, device: usize, descriptor: &Descriptor) -> bool {
        for _ in &self.queues {
            let turn = NEXT_QUEUE.get() % self.queues.len();
            if self.devices.submit(device, self.queues[turn], descriptor) == Submission::Accepted {
                return true;
            }
            // A queue that is disabled, or whose device was reset, is as a full one: so ENQCMD answers.
            NEXT_QUEUE.set((turn + 1) % self.queues.len());
        }
        false
    }
}

/// Whether a device of that node may have jobs for `numa_id`: a node's number, or a policy. The
/// machine is taken to have one socket.
fn fits(node: Option<u16>, numa_id: i32) -> bool {
    match (node, numa_id) {
        (None, _) | (_, Job::NUMA_ANY | Job::NUMA_SOCKET) => true,
        (Some(node), Job::NUMA_NODE) => memory::own_node() == u32::from(node),
        (Some(node), number) => number == i32::from(node),
    }
}
