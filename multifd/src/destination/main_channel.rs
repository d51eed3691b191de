//! The main channel of a destination.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use multifd_core::ram::{BlockDigest, PageHashes, Ram, RamBlock, RamDigests};

use super::{Filled, Incoming, State};
use crate::driver::MainReader;
use crate::engine::barrier::AT_SYNC;
use crate::engine::session::{Failure, Session, Waiter, Wake};
use crate::error::Error;
use crate::progress::Progress;
use crate::stream::{BlockInfo, Configuration, MainEvent, PostcopyAdvise, ReturnMessage, SyncForm};
use crate::transport::{Impatient, Unsaid};
use crate::vm::Vm;

/// The return path, from the destination.
#[derive(Debug, Default)]
pub(super) struct ReturnPath {
    /// Where messages go; none for a recording, which nobody answers.
    pub(super) stream: Option<Impatient>,
    /// The source has opened it.
    opened: bool,
    /// What a message has left there is not known.
    broken: bool,
}

impl ReturnPath {
    /// Whether the source waits for messages.
    pub(super) fn is_open(&self) -> bool {
        self.opened && self.stream.is_some()
    }

    /// Tells the source that this side has failed, if it waits for that.
    pub(super) fn refuse(&mut self) -> Result<(), Error> {
        let refused = self.write(ReturnMessage::Shut(1));
        refused.map_err(|unsaid| answering(unsaid.source))
    }

    /// Tells the source that everything is here, if it waits for that.
    pub(super) fn confirm(&mut self) -> Result<(), Error> {
        self.write(ReturnMessage::Shut(0)).map_err(|unsaid| match unsaid.may_be_heard {
            true => Error::Unconfirmed(unsaid.source),
            false => answering(unsaid.source),
        })
    }

    /// Sends `message` to a source that may be gone by now: the end of what it has sent says more of
    /// that.
    fn answer(&mut self, message: ReturnMessage) -> Result<(), Error> {
        match self.write(message) {
            Err(unsaid) if is_gone(&unsaid.source) => Ok(()),
            sent => sent.map_err(|unsaid| answering(unsaid.source)),
        }
    }

    /// Nothing is sent behind a part of a message, or behind one that has not left for certain.
    fn write(&mut self, message: ReturnMessage) -> Result<(), Unsaid> {
        match &self.stream {
            Some(stream) if self.opened && !self.broken => {
                let said = stream.say(&message.to_bytes());
                said.inspect_err(|unsaid| self.broken = unsaid.may_be_heard)
            }
            _ => Ok(()),
        }
    }
}

fn answering(source: io::Error) -> Error {
    Error::System { doing: "answering the source", source }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Takes a piece of the device state.
pub(super) type TakePiece<'a> = dyn FnMut(&[u8]) -> Result<(), Error> + 'a;

/// Follows the main channel from its header to its end.
pub(super) struct MainChannel<'a, R> {
    pub(super) session: &'a Session<State>,
    pub(super) progress: &'a Progress,
    pub(super) reader: MainReader<R>,
    pub(super) return_path: &'a mut ReturnPath,
    /// How long nothing may move when a source that waits for an answer has closed.
    pub(super) grace: Duration,
    /// Waits until every channel has connected.
    pub(super) wait_for_all: &'a dyn Fn() -> Result<(), Failure>,
}

impl<R: Read> MainChannel<'_, R> {
    /// Follows the channel to its end. `provide` gives the RAM, `take` has pieces of the device state.
    /// Every page is in place then.
    pub(super) fn run(
        mut self,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
        mut take: Option<&mut TakePiece<'_>>,
    ) -> Result<(Vm, Arc<Ram>), Failure> {
        let mut vm = Vm::default();
        self.set_up(&mut vm)?;
        let ram = self.provide(&vm, provide)?;
        if let Some(advise) = vm.postcopy_advise {
            heed(advise, &ram);
        }
        let filled = Filled { ram: Arc::clone(&ram), digests: Arc::new(RamDigests::new(&ram)) };
        let digests = Arc::clone(&filled.digests);
        self.session.update(Wake::Receivers, |state| state.more = Some(filled))?;
        let blocks = find_blocks(&vm.blocks, &ram)?;
        let hashes: Vec<_> = blocks.iter().map(|block| digests.of(block)).collect();
        while let Some(event) = self.next()? {
            match event {
                MainEvent::Sync => self.sync()?,
                MainEvent::ZeroPage { block, offset } => {
                    blocks[block].receive_zero(offset, ram.page_size().bytes());
                    hashes[block].inspect(|hashes| hashes.note_zero(offset));
                    self.progress.count_zero_page();
                }
                MainEvent::Page { block, offset, data } => {
                    blocks[block].mark_received(offset);
                    blocks[block].write(offset, &data);
                    hashes[block].inspect(|hashes| hashes.note(offset, &data));
                }
                MainEvent::BodyEnd { last: true } => self.session.watch().calm(),
                MainEvent::DeviceStatePiece(piece) => {
                    if let Some(take) = &mut take {
                        take(&piece)?;
                    }
                }
                event => {
                    if let MainEvent::PostcopyAdvise(advise) = event {
                        heed(advise, &ram);
                    }
                    self.command(&event, &vm.configuration)?;
                    vm.note(event);
                }
            }
        }
        // A device whose own state looks like the end would be cut off there.
        let end = self.reader.decoder().expect_end(self.reader.unread());
        end.map_err(|error| Error::Main(error.into()))?;
        self.session.update(Wake::Nobody, State::complete)??;
        vm.footers = self.reader.decoder().footers();
        vm.digests = self.check_digests(&blocks, &hashes)?;
        Ok((vm, ram))
    }

    /// Reads up to the announcement of the RAM, which no stream is without.
    fn set_up(&mut self, vm: &mut Vm) -> Result<(), Failure> {
        while vm.blocks.is_empty() {
            let Some(event) = self.next()? else { break };
            self.command(&event, &vm.configuration)?;
            vm.note(event);
        }
        Ok(())
    }

    /// Compares what has arrived with what the source says it has sent, if it does.
    fn check_digests(
        &mut self,
        blocks: &[&RamBlock],
        arrived: &[Option<&PageHashes>],
    ) -> Result<Option<Vec<BlockDigest>>, Error> {
        let decoder = self.reader.decoder();
        // Every channel has begun by now, and they agree.
        let announced = self.session.look(|state| state.connections.begun_announce_digests());
        let announced = announced.unwrap_or_default();
        let sent = match (decoder.digests(), announced) {
            (Some(sent), true) => sent,
            (None, true) if decoder.is_described() => return Err(Error::NoDigests),
            (None, _) => return Ok(None),
            (Some(_), false) => {
                tracing::warn!(
                    "the source's digests cannot be compared: a relay has not announced them"
                );
                return Ok(None);
            }
        };
        for ((block, arrived), &sent) in blocks.iter().zip(arrived).zip(sent) {
            if arrived.map(PageHashes::digest) != Some(sent) {
                return Err(Error::Digest { name: block.name().clone() });
            }
        }
        Ok(Some(sent.to_vec()))
    }

    fn next(&mut self) -> Result<Option<MainEvent>, Error> {
        let event = self.reader.next_event()?;
        self.progress.set_main_bytes(self.reader.decoder().offset());
        Ok(event)
    }

    fn open_return_path(&mut self, configuration: &Configuration) -> Result<(), Error> {
        self.return_path.opened = true;
        self.session.watch().listens();
        // From now on the source closes the main channel only when it is done. One that does not wait
        // for an answer closes when it has sent everything, however slow this side is.
        if let Some(stream) = &self.return_path.stream {
            self.session.watch().set_main(stream.connection(), Some(self.grace));
        }
        // Nothing here has to be waited for.
        if configuration.takes_switchover_ack() {
            self.return_path.answer(ReturnMessage::SwitchoverAck)?;
        }
        Ok(())
    }

    fn command(&mut self, event: &MainEvent, configuration: &Configuration) -> Result<(), Error> {
        match event {
            MainEvent::OpenReturnPath => self.open_return_path(configuration),
            MainEvent::Ping(number) => self.return_path.answer(ReturnMessage::Pong(*number)),
            _ => Ok(()),
        }
    }

    fn provide(
        &self,
        vm: &Vm,
        provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
    ) -> Result<Arc<Ram>, Error> {
        let page_size = self.reader.decoder().page_size();
        let (configuration, blocks) = (&vm.configuration, &vm.blocks[..]);
        self.progress.set_ram(page_size, blocks, vm.sync_form == SyncForm::Flush);
        let early_state = &vm.early_state.before_start[..];
        let ram = provide(&Incoming { configuration, blocks, page_size, early_state })?;
        if ram.page_size() == page_size {
            Ok(ram)
        } else {
            Err(Error::PageSize { announced: page_size, own: ram.page_size() })
        }
    }

    /// Waits until every channel is at its SYNC, and lets them go on.
    fn sync(&self) -> Result<(), Failure> {
        self.progress.count_sync();
        if !self.session.look(|state| state.barrier.has_synced()) {
            (self.wait_for_all)()?;
            let agree = |state: &State| state.connections.begun_announce_digests().is_some();
            if !self.session.look(agree) {
                return Err(Error::MixedDigests.into());
            }
        }
        self.session.wait(Waiter::Main, AT_SYNC, State::pass)??;
        self.session.wake(Wake::Receivers);
        Ok(())
    }
}

/// A source that may switch to postcopy takes a page that was never written for one that is missing.
fn heed(advise: PostcopyAdvise, ram: &Ram) {
    if let PostcopyAdvise::Ram { .. } = advise {
        ram.blocks().iter().for_each(|block| block.write_zero_pages());
    }
}

/// The blocks of `ram` in the order of the source's list, which must be as large.
pub(crate) fn find_blocks<'a>(
    list: &[BlockInfo],
    ram: &'a Ram,
) -> Result<Vec<&'a RamBlock>, Error> {
    let find = |info: &BlockInfo| {
        let refused = |why| Error::Block { name: info.name.clone(), bytes: info.bytes, why };
        let block = ram.block(info.name.as_str());
        let block = block.ok_or_else(|| refused("there is none here".into()))?;
        if block.bytes() != info.bytes {
            return Err(refused(format!("the one here has {}", block.bytes())));
        }
        Ok(&**block)
    };
    list.iter().map(find).collect()
}
