//! Devices with a clock, and threads that do their work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{cmp, fmt, io, thread};

use super::{Device, Faulted, Step, Submission};
use crate::config::Config;
use crate::descriptor::Descriptor;
use crate::engine::Engine;
use crate::memory::Memory;

/// Nanoseconds since the devices began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn now(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// All devices of a configuration, at work until this is dropped.
pub struct Devices {
    devices: Vec<Arc<Device>>,
    clock: Clock,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Devices {
    /// Starts the devices of `config` on a memory.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start<M>(config: &Config, memory: &M) -> io::Result<Self>
    where
        M: Memory + Clone + Send + 'static,
    {
        let devices = (0..config.devices).map(|device| Device::new(config, device)).collect();
        Self::start_all(config, devices, memory)
    }

    pub(crate) fn start_all<M>(
        config: &Config,
        mut devices: Vec<Device>,
        memory: &M,
    ) -> io::Result<Self>
    where
        M: Memory + Clone + Send + 'static,
    {
        // A descriptor that one has refused with a page fault may come to another.
        let faulted = Faulted::default();
        devices.iter_mut().for_each(|device| device.faulted = faulted.clone());
        let mut all = Self {
            devices: devices.into_iter().map(Arc::new).collect(),
            clock: Clock(Instant::now()),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        // More threads than that would only wait for each other.
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        for device in 0..all.devices.len() {
            for thread in 0..cmp::min(config.engines, cpus) {
                all.start_thread(config, device, thread, memory.clone())?;
            }
        }
        Ok(all)
    }

    /// The devices, in order.
    pub fn devices(&self) -> &[Arc<Device>] {
        &self.devices
    }

    /// Submits a descriptor to a queue of a device. Takes no lock and allocates nothing.
    pub fn submit(&self, device: usize, queue: usize, descriptor: &Descriptor) -> Submission {
        match self.devices.get(device) {
            Some(device) => device.submit(queue, descriptor, self.now()),
            None => Submission::Disabled,
        }
    }

    /// Nanoseconds of the devices' clock.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    #[cfg(feature = "libaccel-config")]
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    fn start_thread<M>(
        &mut self,
        config: &Config,
        number: usize,
        thread: usize,
        memory: M,
    ) -> io::Result<()>
    where
        M: Memory + Send + 'static,
    {
        let device = self.devices[number].clone();
        let max_transfer = config.max_transfer;
        let (clock, stop) = (self.clock, self.stop.clone());
        let name = format!("iaa-sim-iax{}-{thread}", number + 1);
        let run = move || {
            crate::thread::become_a_device();
            work(&device, clock, &stop, max_transfer, &memory);
        };
        self.threads.push(thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }
}

/// Does what a device has to do, when it is due.
fn work(
    device: &Device,
    clock: Clock,
    stop: &AtomicBool,
    largest_transfer: u32,
    memory: &impl Memory,
) {
    let mut engine = Engine::with_largest_transfer(largest_transfer);
    while !stop.load(Ordering::Acquire) {
        let seen = device.changed.times();
        let Step::Idle(until) = device.step(clock.now(), &mut engine, memory) else { continue };
        if stop.load(Ordering::Acquire) {
            break;
        }
        let wait = until.map(|until| Duration::from_nanos(until.saturating_sub(clock.now())));
        if wait != Some(Duration::ZERO) {
            device.changed.wait(seen, wait);
        }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for device in &self.devices {
            device.changed.happen_for_all();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Devices {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Devices").field("devices", &self.devices.len()).finish_non_exhaustive()
    }
}
