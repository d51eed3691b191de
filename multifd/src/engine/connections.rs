//! The connections of a receiving side: who is there.

use std::collections::{BTreeMap, BTreeSet};

use multifd_core::PeerError;
use multifd_core::wire::{InitialPacket, Uuid};

use super::refusal::Refusal;

/// Who is there, of the connections of one migration. `H` is a connection's handle.
///
/// ```text
/// unknown ──┬─ a main channel's greeting ─→ main: the first; any other is turned away
///           └─ an initial packet ─→ claims a number ─ more than that ─→ speaks ─ VM is known ─→ begun
/// ```
///
/// Who has said less never keeps out who has said more: a number is a channel's when it has begun, not
/// when somebody claims it. Of several that claim it, the one that speaks has it. All channels are of
/// one VM, the one that is expected or that of the first that has begun.
///
/// A source connects its main channel before its channels. So what has left and came before the main
/// channel did was of an attempt that was given up, and what is there from before gives way to what came
/// after.
#[derive(Clone, Debug)]
pub(crate) struct Connections<H> {
    main: Main<H>,
    /// When the main channel came, once it is known.
    main_arrival: Option<Arrival>,
    /// Connections that have not said yet what they are.
    unknown: BTreeMap<Arrival, H>,
    /// The latest connection so far.
    last: Arrival,
    /// Those that have given way, and do not know yet.
    gave_way: BTreeSet<Arrival>,
    /// The channels, by the order in which they came.
    claims: BTreeMap<Arrival, Claim<H>>,
    channels: u8,
    /// The only VM to accept.
    expected: Option<Uuid>,
    /// The most connections that may wait at once, beside as many as there are channels.
    most_waiting: usize,
    /// The latest connection when every channel was there. What connects later is not of the migration.
    closed: Option<Arrival>,
}

/// A connection that has said which channel it is.
#[derive(Clone, Debug)]
struct Claim<H> {
    initial: InitialPacket,
    /// None for a stream that was given to be read, and does not leave.
    handle: Option<H>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has sent its initial packet alone, as far as is known.
    Silent,
    /// It has more to be read.
    Speaks,
    /// Its pages are being taken in.
    Begun,
}

#[derive(Clone, Debug)]
enum Main<H> {
    Missing,
    /// It waits to be taken, with its greeting.
    Here(H, Vec<u8>),
    Taken,
}

/// A connection, by the order in which they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrival(u64);

/// A connection that has come.
#[derive(Debug)]
pub(crate) struct Added<H> {
    pub(crate) arrival: Arrival,
    /// The one that gives way to it, and is to be shut down.
    pub(crate) gives_way: Option<H>,
}

/// What becomes of a channel that wants to begin.
#[derive(Debug)]
pub(crate) enum Begin {
    Begun,
    /// Another may have a better claim.
    Wait,
    /// It has no place here.
    Refused(Refusal),
    /// It, or the one that has begun in its place, is of the migration: nobody can tell which.
    Unclear(PeerError),
}

impl<H: Clone> Connections<H> {
    /// Expects a main channel and `channels` channels, of the VM `uuid` or, with `None`, all of
    /// one VM. Beside as many as there are channels, `most_waiting` connections may wait at once.
    pub(crate) fn new(channels: u8, uuid: Option<Uuid>, most_waiting: usize) -> Self {
        Self {
            main: Main::Missing,
            main_arrival: None,
            unknown: BTreeMap::new(),
            last: Arrival::default(),
            gave_way: BTreeSet::new(),
            claims: BTreeMap::new(),
            channels,
            expected: uuid,
            most_waiting: most_waiting.max(1),
            closed: None,
        }
    }

    /// A connection that has not said yet what it is. Where too many wait, one gives way: the oldest
    /// that has said nothing, of which `is_silent` says that nothing is there to be read either; or the
    /// oldest that has claimed a number and said no more; or, as long as there is no main channel, the
    /// oldest channel that speaks. `None` where all that wait are channels that speak and may be of it.
    pub(crate) fn add(&mut self, handle: H, is_silent: impl Fn(&H) -> bool) -> Option<Added<H>> {
        let most = self.most_waiting + usize::from(self.channels);
        let gives_way = if self.waiting() < most { None } else { Some(self.make_room(is_silent)?) };
        self.last.0 += 1;
        self.unknown.insert(self.last, handle);
        Some(Added { arrival: self.last, gives_way })
    }

    /// A stream that was given to be a channel.
    pub(crate) fn add_given(&mut self) -> Arrival {
        self.last.0 += 1;
        self.last
    }

    /// Has the connection give way that has the least to lose: see [`add`](Self::add).
    pub(crate) fn make_room(&mut self, is_silent: impl Fn(&H) -> bool) -> Option<H> {
        let quiet = self.unknown.iter().find(|(_, handle)| is_silent(handle));
        if let Some(&oldest) = quiet.or_else(|| self.unknown.first_key_value()).map(|(at, _)| at) {
            self.gave_way.insert(oldest);
            return self.unknown.remove(&oldest);
        }
        let of = |state| {
            let mut claims = self.claims.iter();
            claims.find(|(_, claim)| claim.state == state && claim.handle.is_some())
        };
        let speaks = || of(State::Speaks).filter(|_| self.main_arrival.is_none());
        let (&oldest, _) = of(State::Silent).or_else(speaks)?;
        self.gave_way.insert(oldest);
        self.claims.remove(&oldest)?.handle
    }

    /// Connections that have not said what they are.
    pub(crate) fn unknown(&self) -> usize {
        self.unknown.len()
    }

    /// Connections that have not begun.
    fn waiting(&self) -> usize {
        let claims = self.claims.values().filter(|claim| claim.state != State::Begun).count();
        self.unknown.len() + claims
    }

    /// A connection has ended, or was refused. Whether it had given way before.
    pub(crate) fn remove(&mut self, arrival: Arrival) -> bool {
        if self.is_waiting(arrival) {
            self.unknown.remove(&arrival);
            self.claims.remove(&arrival);
        }
        self.gave_way.remove(&arrival)
    }

    /// A connection has said, by `greeting`, that it is the main channel. `has_left` says whether the
    /// other side of a channel has. False where there is one already.
    pub(crate) fn add_main(
        &mut self,
        arrival: Arrival,
        main: H,
        greeting: Vec<u8>,
        has_left: impl Fn(&H) -> bool,
    ) -> bool {
        if self.main_arrival.is_some() || self.unknown.remove(&arrival).is_none() {
            return false;
        }
        self.claims.retain(|&at, claim| at > arrival || !claim.has_left(&has_left));
        self.main = Main::Here(main, greeting);
        self.main_arrival = Some(arrival);
        true
    }

    /// The main channel and its greeting, if it is there and has not been taken yet.
    pub(crate) fn take_main(&mut self) -> Option<(H, Vec<u8>)> {
        match std::mem::replace(&mut self.main, Main::Taken) {
            Main::Here(main, greeting) => Some((main, greeting)),
            before => {
                self.main = before;
                None
            }
        }
    }

    /// Whether the connection is there, and has not begun.
    pub(crate) fn is_waiting(&self, arrival: Arrival) -> bool {
        let claim = self.claims.get(&arrival);
        self.unknown.contains_key(&arrival)
            || claim.is_some_and(|claim| claim.state != State::Begun)
    }

    /// Whether there is, or was, a main channel.
    pub(crate) fn has_main(&self) -> bool {
        self.main_arrival.is_some()
    }

    /// When the main channel came, once it is known which it is.
    pub(crate) fn main_arrival(&self) -> Option<Arrival> {
        self.main_arrival
    }

    /// A connection has said by its initial packet which channel it is. That another has begun in its
    /// place is looked at when it says more, unless it came when all were there.
    pub(crate) fn claim(
        &mut self,
        arrival: Arrival,
        initial: InitialPacket,
        handle: Option<H>,
    ) -> Result<(), Refusal> {
        initial.expect(self.expected, self.channels)?;
        if self.is_late(arrival) {
            initial.expect(self.begun_uuid(), self.channels)?;
            return Err(PeerError::DuplicateChannel { id: initial.channel }.into());
        }
        // One that has given way comes too late.
        if self.unknown.remove(&arrival).is_none() && handle.is_some() {
            return Err(Refusal::GaveWay);
        }
        self.claims.insert(arrival, Claim { initial, handle, state: State::Silent });
        Ok(())
    }

    /// A channel has sent more than its initial packet.
    pub(crate) fn speaks(&mut self, arrival: Arrival) {
        if let Some(claim) = self.claims.get_mut(&arrival) {
            claim.state = State::Speaks;
        }
    }

    /// A channel that speaks begins, if it can: the VM is known.
    pub(crate) fn begin(&mut self, arrival: Arrival, has_left: impl Fn(&H) -> bool) -> Begin {
        let Some(claim) = self.claims.get(&arrival) else {
            // Its attempt was given up, or it has given way.
            return Begin::Refused(Refusal::GivenUp);
        };
        let initial = claim.initial;
        let early = |at: Arrival| self.main_arrival.is_some_and(|main| at < main);
        if early(arrival) && claim.has_left(&has_left) {
            return Begin::Refused(Refusal::GivenUp);
        }
        for (&at, other) in self.claims.iter().filter(|&(&at, _)| at != arrival) {
            let Err(error) = other.admits(initial) else { continue };
            if other.state == State::Begun {
                return match early(arrival) || self.is_late(arrival) {
                    true => Begin::Refused(error.into()),
                    false => Begin::Unclear(error),
                };
            }
            if early(arrival) && !early(at) {
                return Begin::Wait;
            }
        }
        if let Some(claim) = self.claims.get_mut(&arrival) {
            claim.state = State::Begun;
        }
        Begin::Begun
    }

    fn is_late(&self, arrival: Arrival) -> bool {
        self.closed.is_some_and(|last| arrival > last)
    }

    /// The channels that have begun.
    fn begun(&self) -> impl Iterator<Item = &Claim<H>> {
        self.claims.values().filter(|claim| claim.state == State::Begun)
    }

    fn begun_uuid(&self) -> Option<Uuid> {
        self.begun().next().map(|claim| claim.initial.uuid)
    }

    /// The UUID that all channels have, once that is clear: it is the one that is expected, that of the
    /// channels that have begun, or that of the channels that speak. Of these, the ones that came after
    /// the main channel count first. Where none speaks, it is clear when there is a channel of each
    /// number and they agree.
    pub(crate) fn uuid(&self) -> Option<Uuid> {
        let early = |at: Arrival| self.main_arrival.is_some_and(|main| at < main);
        let speaks = |is_early: bool| {
            let mut claims = self.claims.iter();
            let found =
                claims.find(|&(&at, claim)| claim.state != State::Silent && early(at) == is_early);
            found.map(|(_, claim)| claim.initial.uuid)
        };
        let known = self.expected.or(self.begun_uuid());
        known.or_else(|| speaks(false)).or_else(|| speaks(true)).or_else(|| self.silent_uuid())
    }

    fn silent_uuid(&self) -> Option<Uuid> {
        let first = self.claims.values().next()?.initial.uuid;
        let agree = self.claims.values().all(|claim| claim.initial.uuid == first);
        let all = (0..self.channels)
            .all(|number| self.claims.values().any(|claim| claim.initial.channel == number));
        (agree && all).then_some(first)
    }

    /// What the channels announce alike, in an initial packet, once that is clear: see
    /// [`uuid`](Self::uuid).
    pub(crate) fn announced(&self) -> Option<InitialPacket> {
        let uuid = self.uuid()?;
        let of_it = || self.claims.values().filter(|claim| claim.initial.uuid == uuid);
        // Who has claimed a number, and said no more, counts only where nobody has said more.
        let speaks = of_it().any(|claim| claim.state != State::Silent);
        let mut counting = of_it().filter(|claim| !speaks || claim.state != State::Silent);
        Some(InitialPacket::new(uuid, 0).with_digests(counting.all(|claim| claim.initial.digests)))
    }

    /// Whether the source will say what its RAM holds, as far as the channel `number` knows.
    pub(crate) fn announces_digests(&self, number: u8) -> bool {
        self.begun().any(|claim| claim.initial.channel == number && claim.initial.digests)
    }

    /// Whether each channel that has begun says so.
    pub(crate) fn all_announce_digests(&self) -> bool {
        self.begun().all(|claim| claim.initial.digests)
    }

    /// Channels that are expected.
    pub(crate) fn channels(&self) -> usize {
        self.channels.into()
    }

    /// Channels that have begun.
    pub(crate) fn connected(&self) -> usize {
        self.begun().count()
    }

    /// Whether every channel has begun. What connects from then on is not of the migration.
    pub(crate) fn close(&mut self) -> bool {
        if self.closed.is_none() && self.connected() == self.channels() {
            self.closed = Some(self.last);
        }
        self.is_closed()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }
}

impl<H> Claim<H> {
    fn has_left(&self, has_left: impl Fn(&H) -> bool) -> bool {
        self.handle.as_ref().is_some_and(has_left)
    }

    /// Whether there may be a channel of `initial` beside this one.
    fn admits(&self, initial: InitialPacket) -> Result<(), PeerError> {
        let (expected, found) = (self.initial.uuid, initial.uuid);
        if expected != found {
            return Err(PeerError::Uuid { expected, found });
        }
        match self.initial.channel == initial.channel {
            true => Err(PeerError::DuplicateChannel { id: initial.channel }),
            false => Ok(()),
        }
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
        /// A channel; whether it says more than that.
        Channel(u8, Uuid, bool),
        /// It goes without a word, or says something wrong.
        Gone,
    }

    /// How far a connection has come.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Stage {
        Unknown,
        Claims,
        Speaks,
        Begun,
        Over,
    }

    /// Connections that come in this order, and what becomes of them in any order of their threads.
    #[derive(Clone, Debug)]
    struct Threads {
        connections: Connections<usize>,
        who: Vec<Who>,
        arrivals: Vec<Arrival>,
        stages: Vec<Stage>,
    }

    /// What has come of all.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Verdict {
        /// Those that have begun.
        Whole(Vec<usize>),
        Waits,
        Unclear,
    }

    impl Threads {
        fn new(who: &[Who]) -> Self {
            let mut connections = Connections::new(2, None, 8);
            let arrivals = (0..who.len())
                .map(|handle| connections.add(handle, |_| true).unwrap().arrival)
                .collect();
            Self {
                connections,
                who: who.to_vec(),
                arrivals,
                stages: vec![Stage::Unknown; who.len()],
            }
        }

        /// The next step of one connection's thread; none where it waits or is over.
        fn step(&self, at: usize) -> Option<Result<Self, Verdict>> {
            let mut next = self.clone();
            let (arrival, connections) = (self.arrivals[at], &mut next.connections);
            next.stages[at] = match (self.stages[at], self.who[at]) {
                (Stage::Unknown, Who::Main) => {
                    connections.add_main(arrival, at, vec![7], |_| false);
                    Stage::Over
                }
                (Stage::Unknown, Who::Gone) => {
                    assert!(!connections.remove(arrival));
                    Stage::Over
                }
                (Stage::Unknown, Who::Channel(channel, uuid, _)) => {
                    let initial = InitialPacket::new(uuid, channel);
                    match connections.claim(arrival, initial, Some(at)) {
                        Ok(()) => Stage::Claims,
                        Err(_) => Stage::Over,
                    }
                }
                (Stage::Claims, Who::Channel(_, _, true)) => {
                    connections.speaks(arrival);
                    Stage::Speaks
                }
                // It begins when the VM is known, and the main channel has announced that.
                (Stage::Speaks, _) if connections.has_main() => {
                    match connections.begin(arrival, |_| false) {
                        Begin::Begun => Stage::Begun,
                        Begin::Wait => return None,
                        Begin::Refused(_) => Stage::Over,
                        Begin::Unclear(_) => return Some(Err(Verdict::Unclear)),
                    }
                }
                _ => return None,
            };
            Some(Ok(next))
        }

        /// Follows every order of the threads.
        fn walk(self, verdicts: &mut Vec<Verdict>) -> usize {
            self.check();
            let mut note = |verdict| {
                if !verdicts.contains(&verdict) {
                    verdicts.push(verdict);
                }
            };
            let mut closing = self.clone();
            if closing.connections.close() {
                let begun = |&at: &usize| self.stages[at] == Stage::Begun;
                note(Verdict::Whole((0..self.who.len()).filter(begun).collect()));
                return 1;
            }
            let steps: Vec<_> = (0..self.who.len()).filter_map(|at| self.step(at)).collect();
            if steps.is_empty() {
                note(Verdict::Waits);
            }
            let mut ways = 1;
            for step in steps {
                match step {
                    Ok(next) => ways += next.walk(verdicts),
                    Err(verdict) if !verdicts.contains(&verdict) => verdicts.push(verdict),
                    Err(_) => {}
                }
            }
            ways
        }

        fn check(&self) {
            let begun = self.stages.iter().filter(|&&stage| stage == Stage::Begun).count();
            assert_eq!(self.connections.connected(), begun);
            let main_came = (0..self.who.len())
                .any(|at| self.who[at] == Who::Main && self.stages[at] == Stage::Over);
            assert_eq!(self.connections.has_main(), main_came);
            let mut taking = self.connections.clone();
            assert_eq!(taking.take_main().is_some(), main_came);
            assert!(taking.take_main().is_none(), "it is taken once");
        }
    }

    fn verdicts(who: &[Who]) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        Threads::new(who).walk(&mut verdicts);
        verdicts
    }

    /// What strangers say that do not speak as a channel does.
    const STRANGERS: [Who; 5] = [
        Who::Gone,
        Who::Channel(0, UUID, false),
        Who::Channel(1, OTHER, false),
        Who::Channel(2, UUID, false),
        Who::Channel(2, UUID, true),
    ];

    #[test]
    fn two_strangers_whenever_they_come_take_nobodys_place() {
        let honest = [Who::Main, Who::Channel(0, UUID, true), Who::Channel(1, UUID, true)];
        for first in STRANGERS {
            for second in STRANGERS {
                for (one, other) in (0..=3).flat_map(|one| (0..=4).map(move |other| (one, other))) {
                    let mut who = honest.to_vec();
                    who.insert(one, first);
                    who.insert(other, second);
                    let own = |&at: &usize| honest.contains(&who[at]);
                    let own: Vec<_> = (0..who.len()).filter(own).collect();
                    let own = own.into_iter().filter(|&at| who[at] != Who::Main).collect();
                    assert_eq!(verdicts(&who), [Verdict::Whole(own)], "{who:?}");
                }
            }
        }
    }

    #[test]
    fn a_second_main_channel_changes_nothing_for_the_first() {
        let channels = [Who::Channel(1, UUID, true), Who::Channel(0, UUID, true)];
        for who in [
            [Who::Main, Who::Main, channels[0], channels[1]],
            [Who::Main, channels[0], Who::Main, channels[1]],
            [Who::Main, channels[0], channels[1], Who::Main],
        ] {
            let mut threads = Threads::new(&who);
            // Whoever has said first that it is has the place.
            threads = threads.step(0).unwrap().unwrap();
            let mut seen = Vec::new();
            threads.walk(&mut seen);
            assert!(matches!(&seen[..], [Verdict::Whole(begun)] if begun.len() == 2), "{seen:?}");
        }
    }

    #[test]
    fn two_channels_that_speak_and_cannot_both_be_of_it_are_never_taken_for_whole_without_either() {
        let channel = |number, uuid| Who::Channel(number, uuid, true);
        for rival in [channel(0, UUID), channel(0, OTHER), channel(1, OTHER)] {
            let who = [Who::Main, channel(0, UUID), rival, channel(1, UUID)];
            let mut threads = Threads::new(&who);
            for at in [0, 1, 2, 3] {
                while let Some(Ok(next)) = threads.step(at) {
                    threads = next;
                }
            }
            // Where all have begun before the other was looked at, it is looked at all the same.
            let seen = verdicts(&who);
            assert!(seen.contains(&Verdict::Unclear), "{seen:?}");
            let mut late = Threads::new(&who);
            for at in [0, 1, 1, 1, 3, 3, 3] {
                late = late.step(at).unwrap().unwrap();
            }
            assert!(late.connections.close());
            for _ in 0..2 {
                late = late.step(2).unwrap().unwrap();
            }
            assert!(matches!(late.step(2), Some(Err(Verdict::Unclear))));
        }
    }

    #[test]
    fn what_connects_when_all_are_there_is_refused_whatever_it_is() {
        let mut threads =
            Threads::new(&[Who::Main, Who::Channel(0, UUID, true), Who::Channel(1, UUID, true)]);
        for at in [0, 1, 1, 1, 2, 2, 2] {
            assert!(!threads.connections.is_closed());
            threads = threads.step(at).unwrap().unwrap();
        }
        assert!(threads.connections.close());
        for uuid in [UUID, OTHER] {
            for channel in [0, 1, 2] {
                let mut connections = threads.connections.clone();
                let late = connections.add(9, |_| true).unwrap().arrival;
                let initial = InitialPacket::new(uuid, channel);
                connections.claim(late, initial, Some(9)).unwrap_err();
                assert!(connections.close(), "closed stays closed");
            }
        }
    }

    #[test]
    fn another_vm_is_refused_where_one_is_expected() {
        let mut connections = Connections::new(2, Some(UUID), 8);
        let [one, other] = [0, 1].map(|handle| connections.add(handle, |_| true).unwrap().arrival);
        let initial = InitialPacket::new(OTHER, 0);
        connections.claim(one, initial, Some(0)).unwrap_err();
        assert!(!connections.remove(one));
        connections.claim(other, InitialPacket::new(UUID, 0), Some(1)).unwrap();
        assert_eq!(connections.uuid(), Some(UUID));
    }

    #[test]
    fn when_too_many_wait_the_oldest_that_has_said_nothing_gives_way() {
        let mut connections = Connections::new(1, None, 3);
        let arrivals: Vec<_> =
            (0..4).map(|handle| connections.add(handle, |_| true).unwrap().arrival).collect();
        // The first has bytes that are to be read yet.
        let silent = |handle: &i32| *handle != 0;
        let added = connections.add(4, silent).unwrap();
        assert_eq!(added.gives_way, Some(1));
        assert!(connections.remove(arrivals[1]) && !connections.remove(arrivals[1]));
        // Where all have, the oldest.
        assert_eq!(connections.add(5, |_| false).unwrap().gives_way, Some(0));
        let claim = |connections: &mut Connections<i32>, arrival, handle| {
            connections.claim(arrival, InitialPacket::new(UUID, 0), Some(handle))
        };
        assert!(claim(&mut connections, arrivals[0], 0).is_err(), "it has given way");
        claim(&mut connections, arrivals[2], 2).unwrap();
        claim(&mut connections, arrivals[3], 3).unwrap();
        connections.speaks(arrivals[3]);
        for expected in [Some(4), Some(5)] {
            assert_eq!(connections.make_room(|_| true), expected);
        }
        // Then those that say they are a channel and no more; one that speaks where there is no main
        // channel.
        assert_eq!(connections.make_room(|_| true), Some(2));
        let mut full = connections.clone();
        assert_eq!(connections.make_room(|_| true), Some(3));
        assert_eq!(connections.make_room(|_| true), None);
        for handle in 6..9 {
            assert_eq!(full.add(handle, |_| true).unwrap().gives_way, None);
        }
        assert_eq!(full.add(9, |_| true).unwrap().gives_way, Some(6));
    }

    #[test]
    fn channels_that_speak_give_way_only_before_there_is_a_main_channel() {
        for has_main in [false, true] {
            let mut connections = Connections::new(1, None, 2);
            let main = connections.add(9, |_| true).unwrap().arrival;
            if has_main {
                assert!(connections.add_main(main, 9, Vec::new(), |_| false));
            } else {
                connections.remove(main);
            }
            for handle in 0..3 {
                let arrival = connections.add(handle, |_| true).unwrap().arrival;
                connections.claim(arrival, InitialPacket::new(UUID, 0), Some(handle)).unwrap();
                connections.speaks(arrival);
            }
            let added = connections.add(3, |_| true);
            assert_eq!(added.map(|added| added.gives_way), (!has_main).then_some(Some(0)));
        }
    }

    #[test]
    fn channels_of_an_attempt_that_was_given_up_leave_their_places_to_the_next() {
        // They leave before their next main channel is known, or after.
        for left_before in [true, false] {
            let left = Cell::new(left_before);
            let has_left = |handle: &usize| *handle == 0 && left.get();
            let mut connections = Connections::new(1, None, 8);
            let [old, main, new] =
                [0, 1, 2].map(|handle| connections.add(handle, |_| true).unwrap().arrival);
            let claim = |connections: &mut Connections<usize>, arrival, uuid, handle| {
                let initial = InitialPacket::new(uuid, 0);
                connections.claim(arrival, initial, Some(handle)).unwrap();
                connections.speaks(arrival);
            };
            claim(&mut connections, old, OTHER, 0);
            assert!(connections.add_main(main, 1, Vec::new(), has_left));
            assert_eq!(connections.uuid(), (!left_before).then_some(OTHER));
            left.set(true);
            assert!(matches!(connections.begin(old, has_left), Begin::Refused(Refusal::GivenUp)));
            assert!(!connections.remove(old));
            claim(&mut connections, new, UUID, 2);
            assert!(matches!(connections.begin(new, has_left), Begin::Begun));
            assert_eq!(connections.uuid(), Some(UUID));
        }
    }

    #[test]
    fn what_is_there_from_before_the_main_channel_waits_for_what_came_after() {
        for rival in [InitialPacket::new(UUID, 0), InitialPacket::new(OTHER, 1)] {
            let mut connections = Connections::new(2, None, 8);
            let [old, main, new] =
                [0, 1, 2].map(|handle| connections.add(handle, |_| true).unwrap().arrival);
            let initial = InitialPacket::new(UUID, 0);
            connections.claim(old, initial, Some(0)).unwrap();
            connections.speaks(old);
            assert!(connections.add_main(main, 1, Vec::new(), |_| false));
            connections.claim(new, rival, Some(2)).unwrap();
            assert!(matches!(connections.begin(old, |_| false), Begin::Wait));
            connections.speaks(new);
            assert_eq!(connections.uuid(), Some(rival.uuid));
            assert!(matches!(connections.begin(new, |_| false), Begin::Begun));
            let refused = connections.begin(old, |_| false);
            assert!(matches!(refused, Begin::Refused(Refusal::Said(_))), "{refused:?}");
        }
    }

    #[test]
    fn what_came_after_its_main_channel_keeps_its_place_however_early_it_left() {
        let mut connections = Connections::new(2, None, 8);
        let [main, first, second] =
            [0, 1, 2].map(|handle| connections.add(handle, |_| true).unwrap().arrival);
        for (arrival, channel) in [(first, 0), (second, 1)] {
            let initial = InitialPacket::new(UUID, channel);
            connections.claim(arrival, initial, Some(1)).unwrap();
            connections.speaks(arrival);
        }
        assert!(connections.add_main(main, 0, Vec::new(), |_| true));
        for arrival in [first, second] {
            assert!(matches!(connections.begin(arrival, |_| true), Begin::Begun));
        }
        assert!(connections.close());
    }

    #[test]
    fn the_uuid_is_clear_when_a_channel_speaks_or_when_all_are_there_and_agree() {
        let mut connections = Connections::new(2, None, 8);
        let arrivals = [0, 1, 2].map(|handle| connections.add(handle, |_| true).unwrap().arrival);
        let initial = |channel, uuid| InitialPacket::new(uuid, channel);
        connections.claim(arrivals[0], initial(0, UUID), Some(0)).unwrap();
        assert_eq!(connections.uuid(), None);
        connections.claim(arrivals[1], initial(1, UUID), Some(1)).unwrap();
        assert_eq!(connections.uuid(), Some(UUID));
        connections.claim(arrivals[2], initial(1, OTHER), Some(2)).unwrap();
        assert_eq!(connections.uuid(), None);
        connections.speaks(arrivals[2]);
        assert_eq!(connections.uuid(), Some(OTHER));
    }
}
