//! The main channel of a destination.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use multifd_core::PageSize;
use multifd_core::ram::Ram;

use super::accept::wait_for_all;
use super::state::State;
use super::{Incoming, stopped};
use crate::driver::MainReader;
use crate::error::Error;
use crate::progress::Progress;
use crate::session::{Session, Wake};
use crate::stream::{BlockInfo, Configuration, MainEvent, ReturnMessage, SyncForm};

/// What the main channel has said.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) configuration: Configuration,
    pub(super) section_id: u32,
    pub(super) blocks: Vec<BlockInfo>,
    pub(super) sync_form: SyncForm,
    pub(super) footers: bool,
    pub(super) device_state: Vec<u8>,
}

/// Follows the main channel from its header to its end.
pub(super) struct MainChannel<'a, R, W> {
    pub(super) session: &'a Session<State>,
    pub(super) progress: &'a Progress,
    pub(super) reader: MainReader<R>,
    /// Where answers go, and whether the source has opened that way.
    pub(super) answers: &'a mut Answers<W>,
    /// Takes note of every connection that has been made by now.
    pub(super) accept_waiting: &'a dyn Fn() -> Result<(), Error>,
    pub(super) channels: u8,
    pub(super) channel_timeout: Duration,
}

/// The return path.
#[derive(Debug)]
pub(super) struct Answers<W> {
    pub(super) writer: Option<W>,
    pub(super) open: bool,
}

impl<W: Write> Answers<W> {
    /// Sends `message`, if the source has opened the return path.
    pub(super) fn send(&mut self, message: ReturnMessage) -> Result<(), Error> {
        match &mut self.writer {
            Some(writer) if self.open => {
                writer.write_all(&message.to_bytes()).map_err(Error::system("answering the source"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: Read, W: Write> MainChannel<'_, R, W> {
    /// Follows the channel to its end. `provide` gives the RAM. Every page is in place then.
    pub(super) fn run(
        mut self,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
    ) -> Result<(Said, Arc<Ram>), Error> {
        let mut said = Said::default();
        self.set_up(&mut said)?;
        let ram = self.provide(&said, provide)?;
        self.session.update(Wake::Channels, |state| state.set_ram(&ram)).map_err(stopped)?;
        let blocks = find_blocks(&said.blocks, &ram)?;
        while let Some(event) = self.reader.next_event()? {
            self.progress.set_main_bytes(self.reader.decoder().offset());
            match event {
                MainEvent::Sync => self.sync()?,
                MainEvent::ZeroPage { block, offset } => {
                    blocks[block].receive_zero(offset, ram.page_size().bytes());
                    self.progress.count_zero_page();
                }
                MainEvent::Page { block, offset, data } => {
                    blocks[block].mark_received(offset);
                    blocks[block].write(offset, &data);
                }
                MainEvent::DeviceState(bytes) => said.device_state = bytes,
                event => self.command(&event)?,
            }
        }
        self.session.update(Wake::Nobody, State::complete).map_err(stopped)??;
        said.footers = self.reader.decoder().footers();
        Ok((said, ram))
    }

    /// Reads up to the announcement of the RAM.
    fn set_up(&mut self, said: &mut Said) -> Result<(), Error> {
        while let Some(event) = self.reader.next_event()? {
            match event {
                MainEvent::Configuration(configuration) => said.configuration = configuration,
                MainEvent::RamStart { section_id, blocks, sync, .. } => {
                    (said.section_id, said.blocks, said.sync_form) = (section_id, blocks, sync);
                    return Ok(());
                }
                event => self.command(&event)?,
            }
        }
        // The decoder lets no stream end before.
        Ok(())
    }

    fn command(&mut self, event: &MainEvent) -> Result<(), Error> {
        match event {
            MainEvent::OpenReturnPath => self.answers.open = true,
            MainEvent::Ping(number) => self.answers.send(ReturnMessage::Pong(*number))?,
            _ => {}
        }
        Ok(())
    }

    fn provide(
        &self,
        said: &Said,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
    ) -> Result<Arc<Ram>, Error> {
        let page_size = self.page_size();
        let ram = provide(&Incoming {
            configuration: &said.configuration,
            blocks: &said.blocks,
            page_size,
        })?;
        if ram.page_size() == page_size {
            Ok(ram)
        } else {
            Err(Error::PageSize { announced: page_size.bytes() as u64, own: ram.page_size() })
        }
    }

    fn page_size(&self) -> PageSize {
        self.reader.decoder().page_size()
    }

    /// Waits until every channel is at its SYNC, and lets them go on.
    fn sync(&self) -> Result<(), Error> {
        self.progress.count_sync();
        if !self.session.look(State::has_synced) {
            let limit = self.channel_timeout;
            wait_for_all(self.session, self.accept_waiting, self.channels, limit)?;
        }
        self.session.wait(Wake::Channels, State::pass_sync).map_err(stopped)?
    }
}

/// The blocks of `ram` in the order of the source's list, which must be as large.
fn find_blocks<'a>(
    list: &[BlockInfo],
    ram: &'a Ram,
) -> Result<Vec<&'a multifd_core::ram::RamBlock>, Error> {
    let find = |info: &BlockInfo| {
        let refused = |why| Error::Block { name: info.name.to_string(), bytes: info.bytes, why };
        let block =
            ram.block(info.name.as_str()).ok_or_else(|| refused("there is none here".into()))?;
        if block.bytes() != info.bytes {
            return Err(refused(format!("the one here has {}", block.bytes())));
        }
        Ok(&**block)
    };
    list.iter().map(find).collect()
}
