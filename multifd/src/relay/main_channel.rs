//! The main channel of a relay.

use std::sync::Arc;

use super::intake::IntoQueue;
use super::pipe::{CHUNK, Pipe};
use super::return_path::ToSource;
use super::state::{State, Vm};
use super::tap::{Tap, Tapped, Taps, Wire};
use crate::engine::accept::{Acceptor, missing_channels};
use crate::engine::barrier::AT_SYNC;
use crate::engine::channels::Channels;
use crate::engine::hearing::Hearing;
use crate::engine::queue::SYNCS;
use crate::engine::return_path::hear_last_word;
use crate::engine::session::{Failure, Session, Stopped, Waiter, Wake};
use crate::error::{Error, Side};
use crate::stream::{MainDecoder, MainEvent, SyncForm};

/// Follows the main channel from its header to its end, and passes its bytes on: up to the end of an
/// event before it is acted on, and the rest behind it. A sync is passed on only when it is made. Pages
/// alone need nothing, and are passed on with what comes behind them.
pub(super) struct MainChannel<'a> {
    pub(super) session: &'a Arc<Session<State>>,
    pub(super) acceptor: &'a Arc<Acceptor<IntoQueue>>,
    pub(super) channels: &'a Channels,
    pub(super) tap: Option<&'a Arc<dyn Tap>>,
    pub(super) decoder: MainDecoder,
    pub(super) pipe: &'a mut Pipe,
    pub(super) hearing: &'a Hearing<ToSource>,
}

impl MainChannel<'_> {
    /// Follows the channel to its end. Every page has been queued then, and every sync asked for.
    /// Its `greeting` was read to tell the connections apart.
    pub(super) fn run(mut self, greeting: &[u8]) -> Result<(), Failure> {
        self.pipe.came(greeting);
        self.pass_on(greeting)?;
        let mut buffer = [0; CHUNK];
        while !self.decoder.is_over() {
            match self.pipe.read(&mut buffer).map_err(|error| self.pipe.blame(error))? {
                0 => {
                    self.decoder.finish().map_err(|error| self.pipe.blame(error))?;
                    break;
                }
                count => self.pass_on(&buffer[..count])?,
            }
        }
        Ok(())
    }

    fn pass_on(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        let mut rest = chunk;
        let mut passed = 0;
        while let Some(event) =
            self.decoder.next(&mut rest).map_err(|error| self.pipe.blame(error))?
        {
            if matches!(event, MainEvent::Sync) {
                // Its last byte stays here until the destination has all that it will then wait for.
                self.sync()?;
            }
            // Behind the list of blocks there is a sync, of which it cannot be told apart.
            let waits = matches!(event, MainEvent::RamStart { .. });
            if !waits && !matches!(event, MainEvent::ZeroPage { .. } | MainEvent::Page { .. }) {
                let taken = chunk.len() - rest.len();
                self.pipe.write(&chunk[passed..taken])?;
                passed = taken;
                self.count_bytes();
            }
            self.act(event)?;
        }
        // Behind the end of the stream it is not for the relay to say what may come.
        self.pipe.write(&chunk[passed..])?;
        self.count_bytes();
        Ok(())
    }

    fn count_bytes(&self) {
        for progress in [&self.acceptor.intake.codec.progress, &self.channels.progress] {
            progress.set_main_bytes(self.decoder.offset());
        }
    }

    fn act(&self, event: MainEvent) -> Result<(), Failure> {
        match event {
            MainEvent::Configuration(_) => self.open_channels()?,
            MainEvent::OpenReturnPath => {
                self.session.update(Wake::Nobody, |state| state.more.return_path.open())?;
                let (watch, limit) = (self.session.watch(), self.acceptor.door.admission.timeout);
                watch.listens();
                // From now on the source closes the main channel only when it is done.
                watch.set_main(self.pipe.from.stream.connection(), Some(limit));
            }
            MainEvent::RamStart { blocks, sync, .. } => {
                let (page_size, once_a_round) = (self.decoder.page_size(), sync == SyncForm::Flush);
                for progress in [&self.acceptor.intake.codec.progress, &self.channels.progress] {
                    progress.set_ram(page_size, &blocks, once_a_round);
                }
                let vm = Arc::new(Vm { page_size, blocks });
                // The channels from the source wait for it.
                self.session.update(Wake::Receivers, |state| state.more.vm = Some(vm))?;
            }
            MainEvent::ZeroPage { .. } => {
                self.acceptor.intake.codec.progress.count_zero_page();
                self.channels.progress.count_zero_page();
            }
            // No page comes on the channels any more, and the destination may have the guest soon.
            MainEvent::BodyEnd { last: true } | MainEvent::Postcopy => {
                // What has come by now was said too early.
                self.hearing.hear(self.session)?;
                let complete = self.session.update(Wake::Nobody, |state| {
                    // The destination confirms what it has all of: not before the last bytes.
                    state.more.return_path.complete();
                    state.complete()
                })?;
                complete.map_err(Error::on(Side::From))?;
                self.session.watch().calm();
            }
            _ => {}
        }
        Ok(())
    }

    /// Connects the channels to the destination, which announce what the source's do. It sees
    /// nothing of the main channel behind its CONFIGURATION before they are there: it takes the
    /// channels that are there at the first sync for all.
    fn open_channels(&self) -> Result<(), Failure> {
        let Some(announced) = self.acceptor.wait_for_announced()? else {
            let (limit, main) =
                (self.acceptor.door.admission.timeout, self.pipe.from.stream.connection());
            let missing = missing_channels(self.session, limit, Some(main));
            return Err(Error::on(Side::From)(missing).into());
        };
        self.session.update(Wake::Nobody, |state| state.more.announced = Some(announced))?;
        let tapped =
            |link, number| Tapped::new(link, Taps::new(self.tap, Side::To, Wire::Channel(number)));
        let page_size = self.decoder.page_size();
        let started = self.channels.start(self.session, page_size, announced, tapped, explained);
        started.map_err(|failure| failure.map(Error::on(Side::To)))
    }

    /// Waits until every channel from the source is at its SYNC, and until those to the destination
    /// have sent theirs: a QEMU that is told to wait for one that never comes, since its channel has
    /// closed, hangs for ever, deaf to its monitor.
    fn sync(&self) -> Result<(), Failure> {
        self.acceptor.intake.codec.progress.count_sync();
        self.channels.progress.count_sync();
        if !self.session.look(|state| state.barrier.has_synced()) {
            let all = self.acceptor.wait_for_all(self.pipe.from.stream.connection());
            all.map_err(|failure| failure.map(Error::on(Side::From)))?;
            self.session.look(State::check_announced).map_err(Error::on(Side::From))?;
        }
        // Which of them the destination holds up is not known here, and so not said.
        let passed = self.session.wait(Waiter::Main, AT_SYNC, State::pass_sync)?;
        passed.map_err(Error::on(Side::From))?;
        self.session.wake(Wake::Senders);
        self.session.wake(Wake::Receivers);
        Ok(self.wait_for_syncs()?)
    }

    /// Waits until every channel to the destination has sent its SYNC. A source without a return path
    /// may have sent everything and be gone: what is waited for then is room at the destination.
    fn wait_for_syncs(&self) -> Result<(), Stopped> {
        let sent = |state: &mut State| state.more.queue.all_synced().then_some(());
        match self.session.look(|state| state.more.return_path.is_open()) {
            true => self.session.wait(Waiter::Main, SYNCS, sent),
            false => self.session.wait_for_room(Waiter::Main, SYNCS, sent),
        }
    }
}

/// The error of a channel to the destination, where the destination does not say why itself.
fn explained(session: &Session<State>, error: Error) -> Error {
    if error.is_refusal() {
        session.note(|state| state.more.return_path.refuse());
    }
    hear_last_word(session, &error);
    Error::on(Side::To)(error)
}
