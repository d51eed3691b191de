//! One migration of a service.

use std::cell::RefCell;
use std::sync::Arc;

use multifd::server::Newcomer;
use multifd::{CpuTime, Progress, Stats, Threads};

use super::service::Service;
use super::watch::board::Running;
use super::watch::migration::{About, Counters, Ended, How};
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::output::Output;

/// A migration that has gone through.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whether the destination has said so.
    pub(crate) confirmed: bool,
    /// Where the VM is stored.
    pub(crate) stored: Option<String>,
    /// What was moved, in words.
    pub(crate) moved: String,
}

/// The names of the codecs of both sides, the destination's where there is one.
pub(crate) type Codecs<'a> = (&'a str, Option<&'a str>);

/// One migration of a service, from when it has begun to its end.
pub(crate) struct Task<'a> {
    service: &'a Service<'a>,
    uuid: String,
    peer: String,
    certificate: Option<String>,
    codecs: Codecs<'a>,
    cpu_time: CpuTime,
    /// Once its counters are known.
    running: RefCell<Option<Running>>,
}

impl<'a> Task<'a> {
    pub(super) fn new(service: &'a Service<'a>, codecs: Codecs<'a>, newcomer: &Newcomer) -> Self {
        Self {
            service,
            codecs,
            uuid: newcomer.uuid().to_string(),
            peer: newcomer.peer(),
            certificate: newcomer.certificate().map(str::to_owned),
            cpu_time: CpuTime::new(),
            running: RefCell::default(),
        }
    }

    /// What cancels it.
    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.service.interrupt
    }

    pub(crate) fn output(&self) -> &Output {
        self.service.output
    }

    /// Its threads, whose CPU time is its own.
    pub(crate) fn threads(&self) -> Threads {
        Threads::new().cpu_time(&self.cpu_time)
    }

    /// Its counters, of each side, are to be seen from now on.
    pub(crate) fn begin(&self, from: Progress, to: Option<Progress>) {
        self.put(from.into(), to.map(Counters::from));
    }

    fn put(&self, from: Counters, to: Option<Counters>) {
        let (cpu_time, (from_codec, to_codec)) = (self.cpu_time.clone(), self.codecs);
        let running = self.service.board.begin(About {
            uuid: self.uuid.clone(),
            peer: self.peer.clone(),
            certificate: self.certificate.clone(),
            from,
            to,
            from_codec: from_codec.to_owned(),
            to_codec: to_codec.map(str::to_owned),
            cpu: Arc::new(move || cpu_time.so_far()),
        });
        let (id, Self { uuid, peer, .. }) = (running.id(), self);
        self.output().tell(&format!("migration {id}: VM {uuid} from {peer}"));
        self.running.replace(Some(running));
    }

    /// Sees it to its end by `migrate`, in a log span of its own.
    pub(super) fn run(self, migrate: impl FnOnce(&Self) -> Result<Done, Failure>) {
        let Self { uuid, peer, .. } = &self;
        let span = tracing::error_span!("migration", %uuid, from = %peer);
        let _in_its_name = span.enter();
        let counted = self.cpu_time.count_this_thread();
        let done = migrate(&self);
        drop(counted);
        if self.running.borrow().is_none() {
            // It failed before there was anything to count.
            self.put(Counters::from(Stats::default()), None);
        }
        let Some(running) = self.running.take() else { return };
        let (id, output) = (running.id(), self.output());
        match &done {
            Ok(Done { moved, .. }) => output.tell(&format!("migration {id}: done: {moved}")),
            // What ends a service's migration ends nothing else: it must be seen, also with --quiet.
            Err(failure) => crate::output::note(&format!("multifd: migration {id}: {failure}")),
        }
        running.end(ended(done));
    }
}

fn ended(done: Result<Done, Failure>) -> Ended {
    match done {
        Ok(Done { confirmed, stored, .. }) => {
            Ended { how: How::Done { confirmed }, why: None, stored }
        }
        Err(failure) => {
            let how = match () {
                () if failure.is_unclear() => How::Unclear,
                () if failure.is_cancelled() => How::Cancelled,
                () => How::Failed,
            };
            Ended { how, why: Some(failure.to_string()), stored: None }
        }
    }
}
