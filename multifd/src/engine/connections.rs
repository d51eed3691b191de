//! The connections of a receiving side: who is there.

use std::collections::BTreeSet;
use std::time::Instant;

use multifd_core::PeerError;
use multifd_core::wire::{InitialPacket, Uuid};

use crate::error::Error;

/// Connections that may be there without saying what they are: more than a migration has.
const MOST_UNKNOWN: usize = 512;

/// Who is there, of the connections of one migration. `H` is a connection's handle.
///
/// A source connects its main channel before its channels. So what has left and came before the main
/// channel did was of an attempt that was given up, and what came after the main channel is of the
/// migration, however early it has left.
#[derive(Clone, Debug)]
pub(crate) struct Connections<H> {
    main: Main<H>,
    /// When the main channel came, once it is known.
    main_arrival: Option<Arrival>,
    /// Connections that have not said yet what they are.
    unknown: BTreeSet<Arrival>,
    /// The latest connection so far.
    last: Arrival,
    /// By number, the channel that is there.
    channels: Vec<Option<Channel<H>>>,
    /// The only VM to accept.
    expected: Option<Uuid>,
    /// The UUID of the channels that are there, or were last.
    uuid: Option<Uuid>,
    /// The latest connection that left while there was no main channel, and what is wrong with it if
    /// it was of the migration.
    left: Option<(Arrival, PeerError)>,
    /// Every channel is there. What connects now is not of the migration.
    closed: bool,
}

#[derive(Clone, Debug)]
struct Channel<H> {
    arrival: Arrival,
    since: Instant,
    /// None for a stream that was given to be read, and does not leave.
    handle: Option<H>,
    /// Its pages are being taken in.
    begun: bool,
    /// Its source will say what its RAM holds.
    digests: bool,
}

#[derive(Clone, Debug)]
enum Main<H> {
    Missing,
    /// It waits to be taken.
    Here(H),
    Taken,
}

/// A connection, by the order in which they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrival(u64);

impl<H> Connections<H> {
    /// Expects a main channel and `channels` channels, of the VM `uuid` or, with `None`, all of
    /// one VM.
    pub(crate) fn new(channels: u8, uuid: Option<Uuid>) -> Self {
        Self {
            main: Main::Missing,
            main_arrival: None,
            unknown: BTreeSet::new(),
            last: Arrival::default(),
            channels: (0..channels).map(|_| None).collect(),
            expected: uuid,
            uuid: None,
            left: None,
            closed: false,
        }
    }

    /// A connection that has not said yet what it is; `None` where it is one too many.
    pub(crate) fn add(&mut self) -> Option<Arrival> {
        if self.closed || self.unknown.len() >= MOST_UNKNOWN {
            return None;
        }
        self.last.0 += 1;
        self.unknown.insert(self.last);
        Some(self.last)
    }

    /// A connection has ended without saying what it is.
    pub(crate) fn remove(&mut self, arrival: Arrival) {
        self.unknown.remove(&arrival);
    }

    /// A connection has ended within its initial packet. Whether that matters is known when there is
    /// a main channel.
    pub(crate) fn break_off(&mut self, arrival: Arrival) -> Result<(), PeerError> {
        match self.main_arrival {
            Some(main) if main < arrival => return Err(PeerError::Truncated),
            Some(_) => {}
            None => self.note_left(arrival, PeerError::Truncated),
        }
        self.unknown.remove(&arrival);
        Ok(())
    }

    /// A connection has said that it is the main channel. `has_left` says whether the other side of a
    /// channel has.
    pub(crate) fn add_main(
        &mut self,
        arrival: Arrival,
        main: H,
        has_left: impl Fn(&H) -> bool,
    ) -> Result<(), Error> {
        if self.main_arrival.is_some() {
            return Err(Error::SecondMain);
        }
        if let Some((_, error)) = self.left.take_if(|(left, _)| *left > arrival) {
            return Err(multifd_core::Error::from(error).into());
        }
        self.free(|channel| channel.arrival < arrival && channel.has_left(&has_left));
        self.main = Main::Here(main);
        self.main_arrival = Some(arrival);
        self.unknown.remove(&arrival);
        Ok(())
    }

    /// The main channel, if it is there and has not been taken yet.
    pub(crate) fn take_main(&mut self) -> Option<H> {
        match std::mem::replace(&mut self.main, Main::Taken) {
            Main::Here(main) => Some(main),
            before => {
                self.main = before;
                None
            }
        }
    }

    /// A connection has said, at the time `now`, by its initial packet which channel it is. False
    /// where it is known to be of an attempt that was given up.
    pub(crate) fn add_channel(
        &mut self,
        arrival: Arrival,
        initial: InitialPacket,
        handle: Option<H>,
        now: Instant,
        has_left: impl Fn(&H) -> bool,
    ) -> Result<bool, PeerError> {
        let digests = initial.digests;
        let channel = Channel { arrival, since: now, handle, begun: false, digests };
        let left = channel.has_left(&has_left);
        if left && self.main_arrival.is_some_and(|main| arrival < main) {
            self.unknown.remove(&arrival);
            return Ok(false);
        }
        if let Err(error) = self.check(initial) {
            if let Some(main) = self.main_arrival {
                // One that was there when the main channel said what it is may have left since.
                let gone = |here: &Channel<H>| {
                    here.arrival < main && !here.begun && here.has_left(&has_left)
                };
                self.free(gone).ok_or(error)?;
                self.check(initial)?;
            } else {
                // Either may be of an attempt that was given up, and the other of the next.
                if left {
                    self.note_left(arrival, error);
                    self.unknown.remove(&arrival);
                    return Ok(false);
                }
                let freed = self.free(|here| here.has_left(&has_left));
                let Some(freed) = freed else { return Err(error) };
                self.check(initial)?;
                self.note_left(freed, error);
            }
        }
        self.channels[usize::from(initial.channel)] = Some(channel);
        self.uuid = Some(initial.uuid);
        // Only now: a connection that is refused must not let the others pass for all.
        self.unknown.remove(&arrival);
        Ok(true)
    }

    fn check(&self, initial: InitialPacket) -> Result<(), PeerError> {
        // The count fits: it came from a `u8`.
        initial.expect(self.uuid(), self.channels.len() as u8)?;
        match self.channels[usize::from(initial.channel)] {
            Some(_) => Err(PeerError::DuplicateChannel { id: initial.channel }),
            None => Ok(()),
        }
    }

    /// Frees the places of channels that have left, and says how many channels are still there.
    pub(crate) fn sweep(&mut self, has_left: impl Fn(&H) -> bool) -> usize {
        self.free(|channel| channel.has_left(&has_left));
        self.connected()
    }

    /// Frees the places of the channels that `gone` says. Returns the latest of them.
    fn free(&mut self, gone: impl Fn(&Channel<H>) -> bool) -> Option<Arrival> {
        let gone = |channel: &mut Channel<H>| gone(channel);
        let freed = self.channels.iter_mut().filter_map(|place| place.take_if(gone));
        freed.map(|channel| channel.arrival).max()
    }

    fn note_left(&mut self, arrival: Arrival, error: PeerError) {
        if self.left.as_ref().is_none_or(|(latest, _)| *latest < arrival) {
            self.left = Some((arrival, error));
        }
    }

    /// Whether the channel of this connection still has its place.
    pub(crate) fn is_here(&self, arrival: Arrival) -> bool {
        self.channels.iter().flatten().any(|channel| channel.arrival == arrival)
    }

    /// The channel of this connection begins to be taken in: nobody else gets its place.
    pub(crate) fn begin(&mut self, arrival: Arrival) {
        let mut channels = self.channels.iter_mut().flatten();
        if let Some(channel) = channels.find(|channel| channel.arrival == arrival) {
            channel.begun = true;
        }
    }

    /// Since when the channel is there that has been there for longest.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.channels.iter().flatten().map(|channel| channel.since).min()
    }

    /// The UUID that all channels have, from the first on.
    pub(crate) fn uuid(&self) -> Option<Uuid> {
        self.expected.or(self.uuid.filter(|_| self.connected() > 0))
    }

    /// What the channels that are there announce alike, in an initial packet, once there is one.
    pub(crate) fn announced(&self) -> Option<InitialPacket> {
        let initial = InitialPacket::new(self.uuid.filter(|_| self.connected() > 0)?, 0);
        Some(initial.with_digests(self.all_announce_digests()))
    }

    /// Whether the source will say what its RAM holds, as far as the channel `number` knows.
    pub(crate) fn announces_digests(&self, number: u8) -> bool {
        self.channels[usize::from(number)].as_ref().is_some_and(|channel| channel.digests)
    }

    /// Whether each channel that is there says so.
    pub(crate) fn all_announce_digests(&self) -> bool {
        self.channels.iter().flatten().all(|channel| channel.digests)
    }

    /// Channels that are expected.
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Channels that have connected.
    pub(crate) fn connected(&self) -> usize {
        self.channels.iter().flatten().count()
    }

    /// The latest connection so far.
    pub(crate) fn last(&self) -> Arrival {
        self.last
    }

    /// Connections, up to `last`, that have not said what they are.
    pub(crate) fn silent(&self, last: Arrival) -> usize {
        self.unknown.range(..=last).count()
    }

    /// Whether every channel has connected, and no connection up to `last` may be one more. Then
    /// what connects later is not of the migration.
    pub(crate) fn close(&mut self, last: Arrival) -> bool {
        self.closed |= self.connected() == self.channels.len() && self.silent(last) == 0;
        self.closed
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

impl<H> Channel<H> {
    fn has_left(&self, has_left: impl Fn(&H) -> bool) -> bool {
        self.handle.as_ref().is_some_and(has_left)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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
        said: Vec<(Arrival, Option<Who>)>,
        closed: bool,
    }

    impl Known {
        fn has(&self, wanted: impl Fn(Who) -> bool) -> bool {
            self.said.iter().filter_map(|(_, who)| *who).any(wanted)
        }

        fn has_channel(&self, number: u8) -> bool {
            self.has(|who| matches!(who, Who::Channel(channel, _) if channel == number))
        }

        fn silent(&self, last: Arrival) -> usize {
            let silent =
                |(connection, who): &&(Arrival, Option<Who>)| who.is_none() && *connection <= last;
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
    fn say(connections: &mut Connections<u8>, connection: Arrival, who: Who) -> bool {
        match who {
            Who::Main => connections.add_main(connection, 7, |_| false).is_ok(),
            Who::Gone => {
                connections.remove(connection);
                true
            }
            Who::Channel(channel, uuid) => {
                let initial = InitialPacket::new(uuid, channel);
                let now = Instant::now();
                connections.add_channel(connection, initial, Some(0), now, |_| false).is_ok()
            }
        }
    }

    fn check(connections: &Connections<u8>, known: &Known) {
        let there = (0..2).filter(|&number| known.has_channel(number)).count();
        assert_eq!(connections.connected(), there);
        assert_eq!(connections.uuid().is_some(), there > 0);
        assert_eq!(connections.since().is_some(), there > 0);
        let mut taking = connections.clone();
        let has_main = known.has(|who| who == Who::Main);
        assert_eq!(taking.take_main(), has_main.then_some(7));
        assert_eq!(taking.take_main(), None, "it is taken once");
        if has_main {
            assert!(matches!(
                taking.add_main(connections.last(), 8, |_| false),
                Err(Error::SecondMain)
            ));
        }
        for last in std::iter::once(Arrival(0)).chain(known.said.iter().map(|said| said.0)) {
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

    /// Connections whose handles are numbers; those from 100 on have left.
    struct Attempts(Connections<u32>);

    impl Attempts {
        fn new(channels: u8) -> Self {
            Self(Connections::new(channels, None))
        }

        fn arrive(&mut self) -> Arrival {
            self.0.add().unwrap()
        }

        fn channel(
            &mut self,
            arrival: Arrival,
            channel: u8,
            uuid: Uuid,
            left: bool,
        ) -> Result<bool, PeerError> {
            let handle = Some(if left { 100 } else { 0 });
            let initial = InitialPacket::new(uuid, channel);
            self.0.add_channel(arrival, initial, handle, Instant::now(), |handle| *handle >= 100)
        }

        fn main(&mut self, arrival: Arrival) -> Result<(), Error> {
            self.0.add_main(arrival, 0, |handle| *handle >= 100)
        }
    }

    #[test]
    fn channels_of_an_attempt_that_was_given_up_leave_their_places_to_the_next() {
        // In either order of the next attempt's main channel and channels.
        for main_first in [true, false] {
            let mut attempts = Attempts::new(2);
            let [old, older, main, new] = [(); 4].map(|()| attempts.arrive());
            assert!(attempts.channel(old, 0, UUID, true).unwrap());
            if main_first {
                attempts.main(main).unwrap();
                assert_eq!(attempts.0.connected(), 0);
            }
            // Whenever it is known what the last one is.
            assert_eq!(attempts.channel(older, 1, UUID, true).unwrap(), !main_first);
            // Even of another VM.
            assert!(attempts.channel(new, 0, OTHER, false).unwrap());
            if !main_first {
                attempts.main(main).unwrap();
            }
            assert!(!attempts.0.is_here(old) && !attempts.0.is_here(older));
            assert!(attempts.0.is_here(new));
            assert_eq!(attempts.0.uuid(), Some(OTHER));
        }
    }

    #[test]
    fn a_channel_of_an_attempt_that_was_given_up_may_be_known_after_those_of_the_next() {
        let mut attempts = Attempts::new(2);
        let [old, main, new] = [(); 3].map(|()| attempts.arrive());
        assert!(attempts.channel(new, 0, OTHER, false).unwrap());
        assert!(!attempts.channel(old, 0, UUID, true).unwrap());
        attempts.main(main).unwrap();
        assert!(attempts.0.is_here(new));
        // One that came after the main channel is of its migration, and one too many.
        let mut attempts = Attempts::new(2);
        let [main, first, second] = [(); 3].map(|()| attempts.arrive());
        assert!(attempts.channel(first, 0, UUID, false).unwrap());
        assert!(!attempts.channel(second, 0, UUID, true).unwrap());
        attempts.main(main).unwrap_err();
    }

    #[test]
    fn what_came_after_its_main_channel_keeps_its_place_however_early_it_left() {
        for main_first in [true, false] {
            let mut attempts = Attempts::new(2);
            let [main, first, second] = [(); 3].map(|()| attempts.arrive());
            if main_first {
                attempts.main(main).unwrap();
            }
            attempts.channel(first, 0, UUID, true).unwrap();
            attempts.channel(second, 1, UUID, true).unwrap();
            if !main_first {
                attempts.main(main).unwrap();
            }
            assert_eq!(attempts.0.connected(), 2);
        }
    }

    #[test]
    fn two_channels_of_one_number_are_refused_whichever_is_known_first() {
        for main_first in [true, false] {
            let mut attempts = Attempts::new(2);
            let [main, first, second] = [(); 3].map(|()| attempts.arrive());
            if main_first {
                attempts.main(main).unwrap();
            }
            let added = attempts.channel(first, 0, UUID, true);
            let added = added.and_then(|_| attempts.channel(second, 0, UUID, false));
            if main_first {
                assert_eq!(added, Err(PeerError::DuplicateChannel { id: 0 }));
            } else {
                added.unwrap();
                let error = attempts.main(main).unwrap_err();
                assert!(error.to_string().contains("channel"), "{error}");
            }
        }
    }

    #[test]
    fn a_channel_of_an_attempt_that_leaves_late_gives_its_place_to_the_next_until_it_has_begun() {
        for (begun, uuid) in [(false, UUID), (false, OTHER), (true, UUID), (true, OTHER)] {
            let left = Cell::new(false);
            let mut attempts = Connections::new(1, None);
            let [old, main, new] = [(); 3].map(|()| attempts.add().unwrap());
            let add = |connections: &mut Connections<u8>, arrival, uuid| {
                let initial = InitialPacket::new(uuid, 0);
                // The first handle is that of the old channel.
                let handle = if arrival == old { 1 } else { 2 };
                let has_left = |handle: &u8| *handle == 1 && left.get();
                connections.add_channel(arrival, initial, Some(handle), Instant::now(), has_left)
            };
            assert_eq!(add(&mut attempts, old, UUID), Ok(true));
            attempts.add_main(main, 0, |_| false).unwrap();
            // While it is there, there are two.
            add(&mut attempts.clone(), new, uuid).unwrap_err();
            left.set(true);
            if begun {
                attempts.begin(old);
            }
            assert_eq!(add(&mut attempts, new, uuid).is_ok(), !begun);
            assert_eq!((attempts.is_here(old), attempts.is_here(new)), (begun, !begun));
        }
    }

    #[test]
    fn a_channel_cut_off_in_its_initial_packet_fails_the_migration_it_is_of() {
        for (of_it, main_first) in [(true, true), (true, false), (false, false), (false, true)] {
            let mut attempts = Attempts::new(1);
            let early = attempts.arrive();
            let main = attempts.arrive();
            let late = attempts.arrive();
            let broken = if of_it { late } else { early };
            if main_first {
                attempts.main(main).unwrap();
            }
            let broken = attempts.0.break_off(broken);
            assert_eq!(broken.is_err(), main_first && of_it);
            if !main_first {
                assert_eq!(attempts.main(main).is_err(), of_it);
            }
        }
    }

    #[test]
    fn of_several_that_were_cut_off_before_the_main_channel_is_known_the_latest_counts() {
        for late_first in [true, false] {
            let mut attempts = Attempts::new(1);
            let [early, main, late] = [(); 3].map(|()| attempts.arrive());
            assert_eq!((attempts.0.last(), attempts.0.channels()), (late, 1));
            let cut_off = if late_first { [late, early] } else { [early, late] };
            for arrival in cut_off {
                attempts.0.break_off(arrival).unwrap();
            }
            attempts.main(main).unwrap_err();
        }
    }

    #[test]
    fn places_are_freed_of_those_that_have_left_and_of_nobody_else() {
        let mut attempts = Attempts::new(3);
        let [first, second, given] = [(); 3].map(|()| attempts.arrive());
        attempts.channel(first, 0, UUID, true).unwrap();
        attempts.channel(second, 1, UUID, false).unwrap();
        let initial = InitialPacket::new(UUID, 2);
        attempts.0.add_channel(given, initial, None, Instant::now(), |_| true).unwrap();
        assert_eq!(attempts.0.sweep(|handle| *handle >= 100), 2);
        assert!(!attempts.0.is_here(first) && attempts.0.is_here(second));
    }
}
