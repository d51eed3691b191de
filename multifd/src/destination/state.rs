//! Where the threads of a destination meet.

use std::collections::BTreeSet;
use std::sync::Arc;

use multifd_core::PeerError;
use multifd_core::ram::Ram;
use multifd_core::wire::{InitialPacket, RamPacket, Uuid};
use socket2::Socket;

use crate::error::Error;

/// Connections that may be there without saying what they are: more than a migration has.
const MOST_UNKNOWN: usize = 512;

/// What the threads of a destination know of each other.
#[derive(Debug)]
pub(crate) struct State {
    /// The main channel, from when it has connected until it is taken.
    main: Option<Arc<Socket>>,
    main_connected: bool,
    /// Connections that have not said yet what they are, by their numbers.
    unknown: BTreeSet<u64>,
    connections: u64,
    /// Every channel is there. What connects now is not of the migration.
    closed: bool,
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
    /// Pages since the last sync.
    Busy,
    /// At its SYNC, waiting for the main channel.
    Synced,
    Ended,
}

impl AsRef<State> for State {
    fn as_ref(&self) -> &State {
        self
    }
}

impl AsMut<State> for State {
    fn as_mut(&mut self) -> &mut State {
        self
    }
}

impl State {
    pub(crate) fn new(channels: u8, uuid: Option<Uuid>) -> Self {
        Self {
            main: None,
            main_connected: false,
            unknown: BTreeSet::new(),
            connections: 0,
            closed: false,
            ram: None,
            uuid,
            channels: vec![Channel::Missing; channels.into()],
            generation: 0,
            complete: false,
        }
    }

    /// A connection that has not said yet what it is. Returns its number; `None` where it is one
    /// too many.
    pub(crate) fn add_connection(&mut self) -> Option<u64> {
        if self.closed || self.unknown.len() >= MOST_UNKNOWN {
            return None;
        }
        self.connections += 1;
        self.unknown.insert(self.connections);
        Some(self.connections)
    }

    /// A connection has ended without saying what it is.
    pub(crate) fn drop_connection(&mut self, connection: u64) {
        self.unknown.remove(&connection);
    }

    /// A connection has said that it is the main channel.
    pub(crate) fn set_main(&mut self, connection: u64, socket: Arc<Socket>) -> Result<(), Error> {
        if std::mem::replace(&mut self.main_connected, true) {
            return Err(Error::SecondMain);
        }
        self.unknown.remove(&connection);
        self.main = Some(socket);
        Ok(())
    }

    pub(crate) fn take_main(&mut self) -> Option<Arc<Socket>> {
        self.main.take()
    }

    /// A connection has said, by its initial packet, which channel it is. All must have one UUID.
    pub(crate) fn add_channel(
        &mut self,
        connection: u64,
        initial: InitialPacket,
    ) -> Result<(), PeerError> {
        // The count fits: it came from a `u8`.
        initial.expect(self.uuid, self.channels.len() as u8)?;
        self.uuid = Some(initial.uuid);
        let channel = &mut self.channels[usize::from(initial.channel)];
        if *channel != Channel::Missing {
            return Err(PeerError::DuplicateChannel { id: initial.channel });
        }
        *channel = Channel::Idle;
        // Only now: a connection that is refused must not let the others pass for all.
        self.unknown.remove(&connection);
        Ok(())
    }

    /// The number of the last connection so far.
    pub(crate) fn last_connection(&self) -> u64 {
        self.connections
    }

    /// Whether every channel has connected, and nothing up to the connection `last` may be one
    /// more. Then what connects later is not of the migration.
    pub(crate) fn close(&mut self, last: u64) -> bool {
        self.closed = self.connected() == self.channels.len() && self.silent(last) == 0;
        self.closed
    }

    /// Whether every channel is there.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Connections up to the connection `last` that have not said what they are.
    pub(crate) fn silent(&self, last: u64) -> usize {
        self.unknown.range(..=last).count()
    }

    /// Channels that have connected.
    pub(crate) fn connected(&self) -> usize {
        self.count(|channel| channel != Channel::Missing)
    }

    pub(crate) fn uuid(&self) -> Option<Uuid> {
        self.uuid
    }

    pub(crate) fn set_ram(&mut self, ram: &Arc<Ram>) {
        self.ram = Some(Arc::clone(ram));
    }

    pub(crate) fn ram(&self) -> Option<Arc<Ram>> {
        self.ram.clone()
    }

    /// A packet has come on a channel; its pages are not in place yet.
    ///
    /// A packet with neither pages nor SYNC says nothing. QEMU before 9.0 may send one behind the
    /// last SYNC, where that SYNC came in a packet with pages.
    pub(crate) fn admit(&mut self, channel: u8, packet: &RamPacket<'_>) -> Result<(), Error> {
        if packet.pages.is_none() && !packet.is_sync() {
            return Ok(());
        }
        if self.complete {
            return Err(Error::AfterLastSync(channel));
        }
        self.channels[usize::from(channel)] = Channel::Busy;
        Ok(())
    }

    /// A channel is at its SYNC. Returns the generation in which it may go on.
    pub(crate) fn sync(&mut self, channel: u8) -> u64 {
        self.channels[usize::from(channel)] = Channel::Synced;
        self.generation + 1
    }

    pub(crate) fn end(&mut self, channel: u8) {
        self.channels[usize::from(channel)] = Channel::Ended;
    }

    /// Whether all channels have passed a sync.
    pub(crate) fn has_synced(&self) -> bool {
        self.generation > 0
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Lets all channels go on, if all are at their SYNC. A channel that has ended cannot get
    /// there.
    pub(crate) fn pass_sync(&mut self) -> Option<Result<(), Error>> {
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
    pub(crate) fn complete(&mut self) -> Result<(), Error> {
        let late = self.position(Channel::Busy).or_else(|| self.position(Channel::Synced));
        match late {
            Some(number) => Err(Error::AfterLastSync(number)),
            None => {
                self.complete = true;
                Ok(())
            }
        }
    }

    pub(crate) fn all_ended(&self) -> bool {
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
