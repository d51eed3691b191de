//! The connections of a receiving side: who is there.

use std::collections::BTreeSet;

use multifd_core::PeerError;
use multifd_core::wire::{InitialPacket, Uuid};

use crate::error::Error;

/// Connections that may be there without saying what they are: more than a migration has.
const MOST_UNKNOWN: usize = 512;

/// Who is there, of the connections of one migration. `M` is the main channel's handle.
#[derive(Clone, Debug)]
pub(crate) struct Connections<M> {
    main: Main<M>,
    /// Connections that have not said yet what they are.
    unknown: BTreeSet<Connection>,
    /// The latest connection so far.
    last: Connection,
    /// By number, whether it is there.
    channels: Vec<bool>,
    uuid: Option<Uuid>,
    /// Every channel is there. What connects now is not of the migration.
    closed: bool,
}

#[derive(Clone, Debug)]
enum Main<M> {
    Missing,
    /// It waits to be taken.
    Here(M),
    Taken,
}

/// A connection, by the order in which they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Connection(u64);

impl<M> Connections<M> {
    /// Expects a main channel and `channels` channels, of the VM `uuid` or, with `None`, all of
    /// one VM.
    pub(crate) fn new(channels: u8, uuid: Option<Uuid>) -> Self {
        Self {
            main: Main::Missing,
            unknown: BTreeSet::new(),
            last: Connection::default(),
            channels: vec![false; channels.into()],
            uuid,
            closed: false,
        }
    }

    /// A connection that has not said yet what it is; `None` where it is one too many.
    pub(crate) fn add(&mut self) -> Option<Connection> {
        if self.closed || self.unknown.len() >= MOST_UNKNOWN {
            return None;
        }
        self.last.0 += 1;
        self.unknown.insert(self.last);
        Some(self.last)
    }

    /// A connection has ended without saying what it is.
    pub(crate) fn remove(&mut self, connection: Connection) {
        self.unknown.remove(&connection);
    }

    /// A connection has said that it is the main channel.
    pub(crate) fn add_main(&mut self, connection: Connection, main: M) -> Result<(), Error> {
        match self.main {
            Main::Here(_) | Main::Taken => Err(Error::SecondMain),
            Main::Missing => {
                self.main = Main::Here(main);
                self.unknown.remove(&connection);
                Ok(())
            }
        }
    }

    /// The main channel, if it is there and has not been taken yet.
    pub(crate) fn take_main(&mut self) -> Option<M> {
        match std::mem::replace(&mut self.main, Main::Taken) {
            Main::Here(main) => Some(main),
            before => {
                self.main = before;
                None
            }
        }
    }

    /// A connection has said, by its initial packet, which channel it is.
    pub(crate) fn add_channel(
        &mut self,
        connection: Connection,
        initial: InitialPacket,
    ) -> Result<(), PeerError> {
        // The count fits: it came from a `u8`.
        initial.expect(self.uuid, self.channels.len() as u8)?;
        let here = &mut self.channels[usize::from(initial.channel)];
        if std::mem::replace(here, true) {
            return Err(PeerError::DuplicateChannel { id: initial.channel });
        }
        self.uuid = Some(initial.uuid);
        // Only now: a connection that is refused must not let the others pass for all.
        self.unknown.remove(&connection);
        Ok(())
    }

    /// The UUID that all channels have, from the first on.
    pub(crate) fn uuid(&self) -> Option<Uuid> {
        self.uuid
    }

    /// Channels that are expected.
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Channels that have connected.
    pub(crate) fn connected(&self) -> usize {
        self.channels.iter().filter(|here| **here).count()
    }

    /// The latest connection so far.
    pub(crate) fn last(&self) -> Connection {
        self.last
    }

    /// Connections, up to `last`, that have not said what they are.
    pub(crate) fn silent(&self, last: Connection) -> usize {
        self.unknown.range(..=last).count()
    }

    /// Whether every channel has connected, and no connection up to `last` may be one more. Then
    /// what connects later is not of the migration.
    pub(crate) fn close(&mut self, last: Connection) -> bool {
        self.closed |= self.connected() == self.channels.len() && self.silent(last) == 0;
        self.closed
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid([1; 16]);
    const OTHER: Uuid = Uuid([2; 16]);

    /// What a connection turns out to be.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Who {
        Main,
        Channel(u8, Uuid),
        /// It goes without a word.
        Gone,
    }

    /// What the walk itself knows of the connections.
    #[derive(Clone, Default)]
    struct Known {
        /// The connections, each with what it is if it has said so.
        said: Vec<(Connection, Option<Who>)>,
        closed: bool,
    }

    impl Known {
        fn has(&self, wanted: impl Fn(Who) -> bool) -> bool {
            self.said.iter().filter_map(|(_, who)| *who).any(wanted)
        }

        fn has_channel(&self, number: u8) -> bool {
            self.has(|who| matches!(who, Who::Channel(channel, _) if channel == number))
        }

        fn silent(&self, last: Connection) -> usize {
            let silent = |(connection, who): &&(Connection, Option<Who>)| {
                who.is_none() && *connection <= last
            };
            self.said.iter().filter(silent).count()
        }

        /// Whether a connection may be `who`, of two channels of one VM.
        fn allows(&self, who: Who) -> bool {
            match who {
                Who::Gone => true,
                Who::Main => !self.has(|who| who == Who::Main),
                Who::Channel(number, uuid) => {
                    number < 2
                        && !self.has_channel(number)
                        && !self.has(|who| matches!(who, Who::Channel(_, other) if other != uuid))
                }
            }
        }
    }

    /// Follows every order in which `left` connections may still come, say what they are, in every
    /// combination, and be counted as all. Returns the number of ways to the end.
    fn walk(connections: &Connections<u8>, known: &Known, left: usize) -> usize {
        let mut ways = 1;
        check(connections, known);
        if left > 0 {
            let mut connections = connections.clone();
            match connections.add() {
                None => assert!(known.closed),
                Some(connection) => {
                    assert!(!known.closed);
                    let mut known = known.clone();
                    known.said.push((connection, None));
                    ways += walk(&connections, &known, left - 1);
                }
            }
        }
        for (index, (connection, who)) in known.said.iter().enumerate() {
            if who.is_some() {
                continue;
            }
            let channels = [(0, UUID), (1, UUID), (1, OTHER), (2, UUID)];
            let channels = channels.map(|(number, uuid)| Who::Channel(number, uuid));
            for who in channels.into_iter().chain([Who::Main, Who::Gone]) {
                let (mut connections, mut known) = (connections.clone(), known.clone());
                let allowed = known.allows(who);
                assert_eq!(say(&mut connections, *connection, who), allowed, "{who:?}");
                if allowed {
                    known.said[index].1 = Some(who);
                    ways += walk(&connections, &known, left);
                } else {
                    check(&connections, &known);
                }
            }
        }
        ways
    }

    /// Whether `connection` may be `who`.
    fn say(connections: &mut Connections<u8>, connection: Connection, who: Who) -> bool {
        match who {
            Who::Main => connections.add_main(connection, 7).is_ok(),
            Who::Gone => {
                connections.remove(connection);
                true
            }
            Who::Channel(channel, uuid) => {
                connections.add_channel(connection, InitialPacket { uuid, channel }).is_ok()
            }
        }
    }

    fn check(connections: &Connections<u8>, known: &Known) {
        let there = (0..2).filter(|&number| known.has_channel(number)).count();
        assert_eq!(connections.connected(), there);
        assert_eq!(connections.uuid().is_some(), there > 0);
        let mut taking = connections.clone();
        let has_main = known.has(|who| who == Who::Main);
        assert_eq!(taking.take_main(), has_main.then_some(7));
        assert_eq!(taking.take_main(), None, "it is taken once");
        if has_main {
            assert!(matches!(taking.add_main(connections.last(), 8), Err(Error::SecondMain)));
        }
        for last in std::iter::once(Connection(0)).chain(known.said.iter().map(|said| said.0)) {
            let all = there == 2 && known.silent(last) == 0;
            let mut closing = connections.clone();
            assert_eq!(closing.silent(last), known.silent(last));
            assert_eq!(closing.close(last), all);
            assert_eq!(closing.is_closed(), all);
            assert_eq!(closing.add().is_none(), all, "what comes later is not of the migration");
        }
    }

    #[test]
    fn every_order_of_arrival_comes_to_the_same() {
        let ways = walk(&Connections::new(2, None), &Known::default(), 4);
        assert!(ways > 10_000, "{ways}");
    }

    #[test]
    fn what_connects_when_all_are_there_is_refused_whatever_it_is() {
        let mut connections = Connections::new(1, None);
        let [channel, late, later] = [(); 3].map(|()| connections.add().unwrap());
        assert!(say(&mut connections, channel, Who::Channel(0, UUID)));
        assert!(!connections.close(late), "one may be a channel too many");
        assert!(connections.close(channel));
        assert!(connections.is_closed() && connections.add().is_none());
        // They came before it was closed, and are no channels of it in any case.
        for who in [Who::Channel(0, UUID), Who::Channel(1, UUID), Who::Channel(0, OTHER)] {
            assert!(!say(&mut connections, later, who), "{who:?}");
        }
        assert!(connections.close(late), "closed stays closed");
    }

    #[test]
    fn another_vm_is_refused_where_one_is_expected() {
        let mut connections = Connections::<u8>::new(2, Some(UUID));
        let connection = connections.add().unwrap();
        assert!(!say(&mut connections, connection, Who::Channel(0, OTHER)));
        assert_eq!(connections.silent(connection), 1);
        assert!(say(&mut connections, connection, Who::Channel(0, UUID)));
    }

    #[test]
    fn exactly_512_connections_may_be_silent() {
        let mut connections = Connections::<u8>::new(1, None);
        let silent: Vec<_> = std::iter::from_fn(|| connections.add()).take(1000).collect();
        assert_eq!(silent.len(), 512);
        connections.remove(silent[3]);
        assert!(connections.add().is_some());
        assert!(connections.add().is_none());
        assert!(say(&mut connections, silent[0], Who::Channel(0, UUID)));
        assert!(connections.add().is_some());
    }
}
