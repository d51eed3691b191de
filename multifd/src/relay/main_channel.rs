//! The main channel of a relay.

use std::io::Read;
use std::sync::Arc;

use multifd_core::PageSize;

use super::forward::{Forward, blame};
use super::from::IntoQueue;
use super::state::{State, Vm};
use super::stopped;
use super::to::{Destination, Sending};
use crate::destination::accept::{Acceptor, wait_for_all};
use crate::destination::state::State as Incoming;
use crate::driver::MainReader;
use crate::error::{Error, Side};
use crate::session::{Session, Wake};
use crate::stream::MainEvent;

/// Follows the main channel from its header to its end, while its bytes pass by.
pub(super) struct MainChannel<'a, R> {
    pub(super) session: &'a Arc<Session<State>>,
    pub(super) acceptor: &'a Arc<Acceptor<IntoQueue>>,
    pub(super) destination: &'a Destination,
    pub(super) from_channels: u8,
    /// Where the threads of the channels to the destination go.
    pub(super) sending: &'a mut Vec<Sending>,
    pub(super) reader: MainReader<R>,
    /// What the reader reads from; it holds back what comes.
    pub(super) forward: Forward,
}

impl<R: Read> MainChannel<'_, R> {
    /// Follows the channel to its end. Every page has been queued then, and every sync asked for.
    pub(super) fn run(mut self) -> Result<PageSize, Error> {
        while let Some(event) =
            self.reader.next_event().map_err(|error| blame(error, Side::From))?
        {
            for progress in [&self.acceptor.intake.progress, &self.destination.progress] {
                progress.set_main_bytes(self.reader.decoder().offset());
            }
            match event {
                MainEvent::Configuration(_) => self.open_channels()?,
                MainEvent::OpenReturnPath => {
                    let open = |state: &mut State| state.return_path = true;
                    self.session.update(Wake::Nobody, open).map_err(stopped)?;
                }
                MainEvent::RamStart { blocks, .. } => {
                    let vm = Arc::new(Vm { page_size: self.page_size(), blocks });
                    // The channels from the source wait for it.
                    self.session.update(Wake::Main, |state| state.set_vm(&vm)).map_err(stopped)?;
                }
                MainEvent::Sync => self.sync()?,
                MainEvent::ZeroPage { .. } => {
                    self.acceptor.intake.progress.count_zero_page();
                    self.destination.progress.count_zero_page();
                }
                MainEvent::BodyEnd { last: true } => {
                    let complete = |state: &mut State| state.as_mut().complete();
                    let complete = self.session.update(Wake::Nobody, complete);
                    complete.map_err(stopped)?.map_err(Error::on(Side::From))?;
                }
                _ => {}
            }
        }
        Ok(self.page_size())
    }

    fn page_size(&self) -> PageSize {
        self.reader.decoder().page_size()
    }

    /// Connects the channels to the destination, under the UUID that the source's have.
    fn open_channels(&mut self) -> Result<(), Error> {
        let limit = self.acceptor.timeout;
        let uuid = |state: &mut State| state.as_mut().uuid();
        let Some(uuid) = self.session.wait_for(limit, uuid).map_err(stopped)? else {
            let (channels, seconds) = (self.from_channels.into(), limit.as_secs());
            let missing = Error::MissingChannels { connected: 0, channels, seconds };
            return Err(Error::on(Side::From)(missing));
        };
        let page_size = self.page_size();
        self.destination.start_channels(self.session, page_size, uuid, self.sending)?;
        // Only now: a destination takes the channels that are there at the first sync for all.
        let released = self.forward.release().map_err(Error::system("writing to the main channel"));
        released.map_err(Error::on(Side::To))
    }

    /// Waits until every channel from the source is at its SYNC. Then those to the destination send
    /// theirs.
    fn sync(&self) -> Result<(), Error> {
        self.acceptor.intake.progress.count_sync();
        self.destination.progress.count_sync();
        let has_synced = |state: &State| AsRef::<Incoming>::as_ref(state).has_synced();
        if !self.session.look(has_synced) {
            let accept_waiting = || self.acceptor.accept_waiting();
            let (channels, limit) = (self.from_channels, self.acceptor.timeout);
            let all = wait_for_all(self.session, &accept_waiting, channels, limit);
            all.map_err(Error::on(Side::From))?;
        }
        let passed = self.session.wait(Wake::Channels, State::pass_sync).map_err(stopped)?;
        passed.map_err(Error::on(Side::From))?;
        // The channels from the source, which wait as this thread does.
        self.session.update(Wake::Main, |_| ()).map_err(stopped)
    }
}
