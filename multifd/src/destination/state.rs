//! Where the threads of a destination meet.

use std::sync::Arc;

use multifd_core::ram::Ram;
use multifd_core::wire::Uuid;
use socket2::Socket;

use crate::error::Error;

/// What the threads of a destination know of each other.
#[derive(Debug)]
pub(super) struct State {
    /// The main channel, from when it has connected until it is taken.
    main: Option<Arc<Socket>>,
    main_connected: bool,
    /// The RAM, from when the main channel has announced it.
    ram: Option<Arc<Ram>>,
    uuid: Option<Uuid>,
    channels: Vec<Channel>,
    /// Counts the syncs that all channels and the main channel have passed.
    generation: u64,
    /// Every page has arrived. What a channel brings now is too late.
    complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Missing,
    /// Nothing since the last sync.
    Idle,
    /// Packets since the last sync.
    Busy,
    /// At its SYNC, waiting for the main channel.
    Synced,
    Ended,
}

impl State {
    pub(super) fn new(channels: u8, uuid: Option<Uuid>) -> Self {
        Self {
            main: None,
            main_connected: false,
            ram: None,
            uuid,
            channels: vec![Channel::Missing; channels.into()],
            generation: 0,
            complete: false,
        }
    }

    pub(super) fn set_main(&mut self, socket: Arc<Socket>) -> Result<(), Error> {
        if std::mem::replace(&mut self.main_connected, true) {
            return Err(Error::SecondMain);
        }
        self.main = Some(socket);
        Ok(())
    }

    pub(super) fn take_main(&mut self) -> Option<Arc<Socket>> {
        self.main.take()
    }

    /// Takes in a channel by its initial packet. All must have one UUID.
    pub(super) fn add_channel(
        &mut self,
        initial: multifd_core::wire::InitialPacket,
    ) -> Result<(), multifd_core::PeerError> {
        // The count fits: it came from a `u8`.
        initial.expect(self.uuid, self.channels.len() as u8)?;
        self.uuid = Some(initial.uuid);
        let channel = &mut self.channels[usize::from(initial.channel)];
        if *channel != Channel::Missing {
            return Err(multifd_core::PeerError::DuplicateChannel { id: initial.channel });
        }
        *channel = Channel::Idle;
        Ok(())
    }

    pub(super) fn connected(&self) -> usize {
        self.count(|channel| channel != Channel::Missing)
    }

    pub(super) fn uuid(&self) -> Option<Uuid> {
        self.uuid
    }

    pub(super) fn set_ram(&mut self, ram: &Arc<Ram>) {
        self.ram = Some(Arc::clone(ram));
    }

    pub(super) fn ram(&self) -> Option<Arc<Ram>> {
        self.ram.clone()
    }

    /// A packet begins on a channel.
    pub(super) fn begin_packet(&mut self, channel: u8) -> Result<(), Error> {
        if self.complete {
            return Err(Error::AfterLastSync(channel));
        }
        self.channels[usize::from(channel)] = Channel::Busy;
        Ok(())
    }

    /// A channel is at its SYNC. Returns the generation in which it may go on.
    pub(super) fn sync(&mut self, channel: u8) -> u64 {
        self.channels[usize::from(channel)] = Channel::Synced;
        self.generation + 1
    }

    pub(super) fn end(&mut self, channel: u8) {
        self.channels[usize::from(channel)] = Channel::Ended;
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Lets all channels go on, if all are at their SYNC. A channel that has ended cannot get
    /// there.
    pub(super) fn pass_sync(&mut self) -> Option<Result<(), Error>> {
        if let Some(number) = self.position(Channel::Ended) {
            return Some(Err(Error::EndedEarly(number)));
        }
        if self.channels.iter().any(|&channel| channel != Channel::Synced) {
            return None;
        }
        self.channels.fill(Channel::Idle);
        self.generation += 1;
        Some(Ok(()))
    }

    /// The main channel has said that all pages have been sent.
    pub(super) fn complete(&mut self) -> Result<(), Error> {
        let late = self.position(Channel::Busy).or_else(|| self.position(Channel::Synced));
        match late {
            Some(number) => Err(Error::AfterLastSync(number)),
            None => {
                self.complete = true;
                Ok(())
            }
        }
    }

    pub(super) fn all_ended(&self) -> bool {
        self.count(|channel| channel == Channel::Ended) == self.channels.len()
    }

    fn count(&self, is: impl Fn(Channel) -> bool) -> usize {
        self.channels.iter().filter(|&&channel| is(channel)).count()
    }

    fn position(&self, wanted: Channel) -> Option<u8> {
        let at = self.channels.iter().position(|&channel| channel == wanted);
        at.map(|at| at as u8)
    }
}
