//! One migration from this process to itself.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use multifd::core::ram::Ram;
use multifd::core::{MethodStats, MultiFdMethods, Registry};
use multifd::{Destination, Error, PageSet, Source, Stats, Uri};

use super::compare::{Comparison, compare};
use super::guest::Guest;
use crate::arrival;
use crate::cancel::Interrupt;
use crate::cpu::cpu_time;
use crate::failure::{Failure, chain};
use crate::output::Output;
use crate::page::PAGE;
use crate::summary::Summary;

/// A migration to run.
#[derive(Debug)]
pub(super) struct Migration<'a> {
    pub(super) registry: &'a Registry,
    pub(super) codec: &'a Arc<dyn MultiFdMethods>,
    pub(super) level: Option<i32>,
    pub(super) channels: u8,
    pub(super) output: &'a Output,
}

/// The result of a migration.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) summary: Summary,
    /// What the destination's codec has counted.
    pub(super) destination_stats: MethodStats,
    /// CPU time of the whole process, both sides.
    pub(super) cpu_seconds: f64,
    pub(super) comparison: Comparison,
}

impl Migration<'_> {
    /// Resets `guest`, migrates it in three rounds, and compares every page.
    pub(super) fn run(&self, guest: &mut Guest, interrupt: &Interrupt) -> Result<Moved, Failure> {
        tracing::debug!(codec = self.codec.name(), level = self.level, "a migration begins");
        guest.reset()?;
        let loopback = Uri::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
        let destination = Destination::builder(self.registry)
            .compression(Arc::clone(self.codec))
            .channels(self.channels)
            .listen(&loopback)?;
        let uri = destination.uri().clone();
        let token = destination.cancel_token();
        let _watch = interrupt.watch(token.clone());
        let (sent, received) = thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(destination));
            let sent = self.send(guest, &uri, interrupt);
            if sent.is_err() {
                token.cancel();
            }
            (sent, receiver.join().unwrap_or(Err(Error::Panicked)))
        });
        let (clock, stats) = sent.map_err(|failure| blame(failure, &received))?;
        let (ram, destination_stats) = received?;
        Ok(Moved {
            summary: Summary::new(&stats, PAGE, clock.time),
            destination_stats,
            cpu_seconds: clock.cpu.as_secs_f64(),
            comparison: compare(guest.ram(), &ram),
        })
    }

    fn send(
        &self,
        guest: &mut Guest,
        uri: &Uri,
        interrupt: &Interrupt,
    ) -> Result<(Clock, Stats), Failure> {
        let mut clock = Clock::default();
        let ram = Arc::clone(guest.ram());
        let mut source = clock.run(|| {
            Source::builder(self.registry, Arc::clone(&ram))
                .compression(Arc::clone(self.codec))
                .level(self.level)
                .channels(self.channels)
                // Here every page is compared, and said by its place.
                .digests(false)
                .connect(uri)
        })?;
        let _watch = interrupt.watch(source.cancel_token());
        let bar = self.output.bar(self.codec.name(), ram.bytes());
        let _follow = bar.follow(source.progress(), ram.bytes());
        clock.run(|| source.round(&PageSet::all(&ram)))?;
        let dirtied = guest.dirty(1)?;
        tracing::debug!(pages = dirtied.len(), "round 2");
        clock.run(|| source.round(&dirtied))?;
        let dirtied = guest.dirty(2)?;
        tracing::debug!(pages = dirtied.len(), "round 3, the last");
        let stats = clock.run(|| source.finish(&dirtied, None))?;
        Ok((clock, stats))
    }
}

/// What has arrived, and what the codec has counted.
fn receive(destination: Destination) -> Result<(Arc<Ram>, MethodStats), Error> {
    let arrived = destination.receive(|incoming| arrival::provide(incoming, None))?;
    let ram = Arc::clone(&arrived.ram);
    Ok((ram, arrived.confirm()?.method))
}

/// The failure of a migration, from the errors of both sides. Either side may only have seen the
/// other close its connections.
fn blame<T>(sent: Failure, received: &Result<T, Error>) -> Failure {
    match received {
        Ok(_) | Err(Error::Cancelled) => sent,
        Err(error) => Failure::new(format!("destination: {}; source: {sent}", chain(error))),
    }
}

/// The time spent on moving memory: wall-clock time, and CPU time of all cores.
#[derive(Debug, Default)]
struct Clock {
    time: Duration,
    cpu: Duration,
}

impl Clock {
    fn run<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (time, cpu) = (Instant::now(), cpu_time());
        let result = work();
        self.time += time.elapsed();
        self.cpu += cpu_time().saturating_sub(cpu);
        result
    }
}
