//! The connections of a receiving side: who is there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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
/// Who has said less never keeps out for good who has said more: a number is a channel's when it has begun, not
/// when somebody claims it. Of several that speak, the one of the best [`Rank`] has it, and the others are
/// refused. All channels are of one VM, the one that is expected or that of the best rank.
///
/// So that this does not depend on whose thread is first, a channel waits with its beginning for those of
/// a better rank that have not said yet what they are, or that may be on their way. The main channel's first
/// sync ends that: a source has connected its channels before and sent something on each, so what is silent
/// holds nobody up any more. That is a rule, and no certainty: on another connection than the main channel's, a
/// packet that had to be sent again comes later, and so does what a program hands in later. It has its number
/// if nobody else has begun under that. Who is refused was a stranger, or there is a stranger in its place:
/// its packets show that (`engine::numbers`).
///
/// A source connects its main channel before its channels. So what has left and came before the main
/// channel did was of an attempt that was given up.
#[derive(Clone, Debug)]
pub(crate) struct Connections<H> {
    main: Main<H>,
    /// When the main channel came and from where, once it is known.
    main_came: Option<(Arrival, Host)>,
    /// Connections that have not said yet what they are.
    unknown: BTreeMap<Arrival, Unknown<H>>,
    /// Streams that were given and have not been read yet.
    given: BTreeSet<Arrival>,
    /// Those that hold nobody up any more: they have had their time to say something.
    passed_over: BTreeSet<Arrival>,
    /// Counts whoever comes, or says what it is.
    changes: u64,
    /// The main channel is at its first sync: whoever is of its source has connected, and is here as a rule.
    at_sync: bool,
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

/// The machine that a connection comes from, where it has an address: none has a Unix or vsock socket, nor a
/// stream of the program's own. All these are one host.
pub(crate) type Host = Option<IpAddr>;

/// A connection that has not said what it is.
#[derive(Clone, Debug)]
struct Unknown<H> {
    handle: H,
    host: Host,
}

/// A connection that has said which channel it is.
#[derive(Clone, Debug)]
struct Claim<H> {
    initial: InitialPacket,
    /// None for a stream that was given to be read, and does not leave.
    handle: Option<H>,
    host: Host,
    state: State,
}

/// Who has the better claim of a number: the lower. It comes from the main channel's host; it came behind
/// the main channel; it came first. But of those from before the main channel the last, since the others
/// may be of an attempt before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_foreign: bool,
    early: Option<Reverse<Arrival>>,
    arrival: Arrival,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Arrival(u64);

impl Arrival {
    /// The one behind it.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

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
}

impl<H: Clone> Connections<H> {
    /// Expects a main channel and `channels` channels, of the VM `uuid` or, with `None`, all of
    /// one VM. Beside as many as there are channels, `most_waiting` connections may wait at once.
    pub(crate) fn new(channels: u8, uuid: Option<Uuid>, most_waiting: usize) -> Self {
        Self {
            main: Main::Missing,
            main_came: None,
            unknown: BTreeMap::new(),
            given: BTreeSet::new(),
            passed_over: BTreeSet::new(),
            changes: 0,
            at_sync: false,
            last: Arrival::default(),
            gave_way: BTreeSet::new(),
            claims: BTreeMap::new(),
            channels,
            expected: uuid,
            most_waiting: most_waiting.max(1),
            closed: None,
        }
    }

    /// A connection from `host` that has not said yet what it is. Where too many wait, one gives way: the oldest
    /// that has said nothing, of which `is_silent` says that nothing is there to be read either; or the
    /// oldest that has claimed a number and said no more; or, as long as there is no main channel, the
    /// oldest channel that speaks, and then the one of the worst rank of those that are not from the main
    /// channel's host. `None` where all that wait are channels that speak and are from there.
    pub(crate) fn add(
        &mut self,
        handle: H,
        host: Host,
        is_silent: impl Fn(&H) -> bool,
    ) -> Option<Added<H>> {
        let most = self.most_waiting + usize::from(self.channels);
        let gives_way = if self.waiting() < most { None } else { Some(self.make_room(is_silent)?) };
        self.last = self.last.next();
        self.changes += 1;
        self.unknown.insert(self.last, Unknown { handle, host });
        Some(Added { arrival: self.last, gives_way })
    }

    /// A stream that was given to be a channel.
    pub(crate) fn add_given(&mut self) -> Arrival {
        self.last = self.last.next();
        self.given.insert(self.last);
        self.last
    }

    /// Has the connection give way that has the least to lose: see [`add`](Self::add).
    pub(crate) fn make_room(&mut self, is_silent: impl Fn(&H) -> bool) -> Option<H> {
        let quiet = self.unknown.iter().find(|(_, unknown)| is_silent(&unknown.handle));
        if let Some(&oldest) = quiet.or_else(|| self.unknown.first_key_value()).map(|(at, _)| at) {
            self.gave_way.insert(oldest);
            return self.unknown.remove(&oldest).map(|unknown| unknown.handle);
        }
        let of = |state| {
            let mut claims = self.claims.iter();
            claims.find(|(_, claim)| claim.state == state && claim.handle.is_some())
        };
        let speaks = || of(State::Speaks).filter(|_| !self.has_main());
        let (&gives_way, _) = of(State::Silent).or_else(speaks).or_else(|| self.worst_foreign())?;
        self.gave_way.insert(gives_way);
        self.claims.remove(&gives_way)?.handle
    }

    /// Of the channels that speak and have not begun, the worst from elsewhere than the main channel.
    fn worst_foreign(&self) -> Option<(&Arrival, &Claim<H>)> {
        let rank = |(at, claim): &(&Arrival, &Claim<H>)| self.rank(**at, claim.host);
        let speaks = self.claims.iter().filter(|(_, claim)| claim.state == State::Speaks);
        let closable = speaks.filter(|(_, claim)| claim.handle.is_some());
        closable.filter(|claim| rank(claim).is_foreign).max_by_key(rank)
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
        self.given.remove(&arrival);
        self.passed_over.remove(&arrival);
        self.gave_way.remove(&arrival)
    }

    /// A connection has said, by `greeting`, that it is the main channel. `has_left` says whether the
    /// other side of a channel has. False where there is one already: it holds nobody up then.
    pub(crate) fn add_main(
        &mut self,
        arrival: Arrival,
        main: H,
        greeting: Vec<u8>,
        has_left: impl Fn(&H) -> bool,
    ) -> bool {
        if self.has_main() {
            // It is known what it is, and it takes its time until it has heard that.
            if self.unknown.contains_key(&arrival) {
                self.passed_over.insert(arrival);
            }
            return false;
        }
        let Some(Unknown { host, .. }) = self.unknown.remove(&arrival) else { return false };
        self.claims.retain(|&at, claim| at > arrival || !claim.has_left(&has_left));
        self.main = Main::Here(main, greeting);
        self.main_came = Some((arrival, host));
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
        self.main_came.is_some()
    }

    /// Whether the main channel comes from `host`, or has not come yet.
    pub(crate) fn may_be_main_host(&self, host: Host) -> bool {
        self.main_came.is_none_or(|(_, main)| main == host)
    }

    /// When the main channel came, once it is known which it is.
    pub(crate) fn main_arrival(&self) -> Option<Arrival> {
        self.main_came.map(|(arrival, _)| arrival)
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
        let host = match self.unknown.remove(&arrival) {
            Some(unknown) => unknown.host,
            None if self.given.remove(&arrival) => None,
            // One that has given way comes too late.
            None => return Err(Refusal::GaveWay),
        };
        self.passed_over.remove(&arrival);
        self.changes += 1;
        self.claims.insert(arrival, Claim { initial, handle, host, state: State::Silent });
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
        let rank = self.rank(arrival, claim.host);
        if rank.early.is_some() && claim.has_left(&has_left) {
            return Begin::Refused(Refusal::GivenUp);
        }
        if let Some(error) = self.begun().find_map(|other| other.admits(claim.initial).err()) {
            return Begin::Refused(error.into());
        }
        if self.may_come_before(rank, claim.initial) {
            return Begin::Wait;
        }
        if let Some(claim) = self.claims.get_mut(&arrival) {
            claim.state = State::Begun;
        }
        self.passed_over.remove(&arrival);
        Begin::Begun
    }

    /// Whether one of a better rank than `rank` may turn out to be a channel beside which there is none of
    /// `initial`.
    fn may_come_before(&self, rank: Rank, initial: InitialPacket) -> bool {
        let holds_up = |&arrival: &Arrival, host| {
            !self.passed_over.contains(&arrival) && self.rank(arrival, host) < rank
        };
        // Whoever is better than those comes later.
        (!self.at_sync && (rank.is_foreign || rank.early.is_some()))
            || self.unknown.iter().any(|(at, unknown)| holds_up(at, unknown.host))
            || self.given.iter().any(|at| holds_up(at, None))
            || self.claims.iter().any(|(&at, claim)| {
                let is_rival = claim.admits(initial).is_err();
                is_rival
                    && match claim.state {
                        State::Silent => holds_up(&at, claim.host),
                        State::Speaks => self.rank(at, claim.host) < rank,
                        State::Begun => false,
                    }
            })
    }

    fn rank(&self, arrival: Arrival, host: Host) -> Rank {
        let main = self.main_came;
        Rank {
            is_foreign: main.is_some_and(|(_, main)| host != main),
            early: main.filter(|&(main, _)| arrival < main).map(|_| Reverse(arrival)),
            arrival,
        }
    }

    /// Those that may hold a channel up, each with its handle and whether it has said what it is: these have
    /// said no more than that.
    pub(crate) fn holding_up(&self) -> Vec<(Arrival, H, bool)> {
        let unknown = self.unknown.iter().map(|(&at, unknown)| (at, unknown.handle.clone(), false));
        let claims = self.claims.iter().filter(|(_, claim)| claim.state == State::Silent);
        let claims = claims.filter_map(|(&at, claim)| Some((at, claim.handle.clone()?, true)));
        unknown.chain(claims).filter(|(at, ..)| !self.passed_over.contains(at)).collect()
    }

    /// The main channel is at its first sync, and those that have connected are known: has those that are
    /// silent hold nobody up any more.
    pub(crate) fn pass_over(&mut self, silent: impl IntoIterator<Item = Arrival>) {
        self.at_sync = true;
        let waiting = silent.into_iter().filter(|&at| self.is_waiting(at)).collect::<Vec<_>>();
        self.passed_over.extend(waiting);
    }

    /// A number that changes when somebody has come, or has said what it is.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    fn is_late(&self, arrival: Arrival) -> bool {
        self.closed.is_some_and(|last| arrival > last)
    }

    /// The channels that have begun.
    fn begun(&self) -> impl Iterator<Item = &Claim<H>> {
        self.claims.values().filter(|claim| claim.state == State::Begun)
    }

    /// The UUID of the channels that have begun.
    pub(crate) fn begun_uuid(&self) -> Option<Uuid> {
        self.begun().next().map(|claim| claim.initial.uuid)
    }

    /// What the channels announce alike, in an initial packet, once that is clear before any has begun: it
    /// is what the best of those that speak does, where nobody of a better rank may contradict it. Of those that
    /// have not said yet what they are, `is_quiet` says which hold nobody up.
    ///
    /// Whoever comes from elsewhere, or came before the main channel, may be a stranger, and those that are
    /// better not have connected yet: it is clear when there is a channel of each number, and they agree.
    /// The same holds where nobody speaks.
    pub(crate) fn announced(&self, is_quiet: impl Fn(&H) -> bool) -> Option<InitialPacket> {
        let Some((best, initial)) = self.best() else {
            return self.agreed(|_| true);
        };
        let class = |rank: Rank| (rank.is_foreign, rank.early.is_some());
        if class(best) > (false, false) {
            self.agreed(|rank| class(rank) <= class(best))?;
        }
        let contradicts = |(&at, claim): (&Arrival, &Claim<H>)| {
            self.rank(at, claim.host) < best && as_all(claim.initial) != as_all(initial)
        };
        let may_contradict = |(&at, unknown): (&Arrival, &Unknown<H>)| {
            self.rank(at, unknown.host) < best && !is_quiet(&unknown.handle)
        };
        let is_open =
            self.claims.iter().any(contradicts) || self.unknown.iter().any(may_contradict);
        (!is_open).then(|| as_all(initial))
    }

    /// As [`announced`](Self::announced), where it is not waited for any longer that it is clear.
    pub(crate) fn announced_by_best(&self) -> Option<InitialPacket> {
        self.best().map(|(_, initial)| as_all(initial))
    }

    /// The best of those that speak.
    fn best(&self) -> Option<(Rank, InitialPacket)> {
        let speaks = self.claims.iter().filter(|(_, claim)| claim.state != State::Silent);
        let ranked = speaks.map(|(&at, claim)| (self.rank(at, claim.host), claim.initial));
        ranked.min_by_key(|&(rank, _)| rank)
    }

    /// What those whose rank `counts` announce, if there is one of each number and they agree.
    fn agreed(&self, counts: impl Fn(Rank) -> bool) -> Option<InitialPacket> {
        let counting = || {
            let claims =
                self.claims.iter().filter(|&(&at, claim)| counts(self.rank(at, claim.host)));
            claims.map(|(_, claim)| claim.initial)
        };
        let first = as_all(counting().next()?);
        let agree = counting().all(|initial| as_all(initial) == first);
        let all = (0..self.channels).all(|number| counting().any(|one| one.channel == number));
        (agree && all).then_some(first)
    }

    /// Whether the source will say what its RAM holds, as far as the channel `number` knows.
    pub(crate) fn announces_digests(&self, number: u8) -> bool {
        self.begun().any(|claim| claim.initial.channel == number && claim.initial.digests)
    }

    /// What the channels that have begun announce: whether there will be digests, if they agree.
    pub(crate) fn begun_announce_digests(&self) -> Option<bool> {
        let mut announced = self.begun().map(|claim| claim.initial.digests);
        let first = announced.next().unwrap_or_default();
        announced.all(|other| other == first).then_some(first)
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

/// What a channel announces that all are to announce alike.
fn as_all(initial: InitialPacket) -> InitialPacket {
    InitialPacket { channel: 0, ..initial }
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
    use std::collections::HashSet;

    use super::*;

    const UUID: Uuid = Uuid([1; 16]);
    const OTHER: Uuid = Uuid([2; 16]);

    /// What a connection turns out to be.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Who {
        Main,
        /// A channel; whether it says more than that.
        Channel(u8, Uuid, bool),
        /// As a channel that says more than that, from another host.
        Foreign(u8, Uuid),
        /// It goes without a word, or says something wrong.
        Gone,
        /// It says nothing.
        Silent,
    }

    impl Who {
        fn host(self) -> Host {
            let octet = if matches!(self, Self::Foreign(..)) { 2 } else { 1 };
            Some(IpAddr::from([192, 0, 2, octet]))
        }

        /// The initial packet of a channel that speaks.
        fn speaks(self) -> Option<InitialPacket> {
            match self {
                Self::Channel(number, uuid, true) | Self::Foreign(number, uuid) => {
                    Some(InitialPacket::new(uuid, number))
                }
                _ => None,
            }
        }
    }

    /// How far a connection has come.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Stage {
        /// It has not connected.
        Away,
        Unknown,
        Claims,
        Speaks,
        Begun,
        Over,
    }

    /// Connections that come in this order, and what becomes of them in any order of their threads and of
    /// the main channel's. Whatever they say has come before their threads run.
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
        /// These have, and more is waited for.
        Waits(Vec<usize>),
    }

    /// What decides how it goes on.
    type Seen = HashSet<(Vec<Stage>, BTreeSet<Arrival>, bool)>;

    impl Threads {
        fn new(who: &[Who]) -> Self {
            let connections = Connections::new(2, None, 8);
            let stages = vec![Stage::Away; who.len()];
            Self { connections, who: who.to_vec(), arrivals: Vec::new(), stages }
        }

        /// The next connects.
        fn connect(&self) -> Option<Self> {
            let at = self.arrivals.len();
            let host = self.who.get(at)?.host();
            let mut next = self.clone();
            next.arrivals.push(next.connections.add(at, host, |_| true).unwrap().arrival);
            next.stages[at] = Stage::Unknown;
            Some(next)
        }

        fn all_connected(self) -> Self {
            match self.connect() {
                Some(next) => next.all_connected(),
                None => self,
            }
        }

        /// The next step of one connection's thread; none where it waits or is over.
        fn step(&self, at: usize) -> Option<Self> {
            let mut next = self.clone();
            let (&arrival, connections) = (self.arrivals.get(at)?, &mut next.connections);
            next.stages[at] = match (self.stages[at], self.who[at]) {
                (Stage::Unknown, Who::Main) => {
                    connections.add_main(arrival, at, vec![7], |_| false);
                    Stage::Over
                }
                (Stage::Unknown, Who::Gone) => {
                    assert!(!connections.remove(arrival));
                    Stage::Over
                }
                (Stage::Unknown, Who::Channel(channel, uuid, _) | Who::Foreign(channel, uuid)) => {
                    let initial = InitialPacket::new(uuid, channel);
                    match connections.claim(arrival, initial, Some(at)) {
                        Ok(()) => Stage::Claims,
                        Err(_) => next.refuse(at),
                    }
                }
                (Stage::Claims, who) if who.speaks().is_some() => {
                    connections.speaks(arrival);
                    Stage::Speaks
                }
                // It begins when the VM is known, and the main channel has announced that.
                (Stage::Speaks, _) if connections.has_main() => {
                    match connections.begin(arrival, |_| false) {
                        Begin::Begun => Stage::Begun,
                        Begin::Wait => return None,
                        Begin::Refused(_) => next.refuse(at),
                    }
                }
                _ => return None,
            };
            Some(next)
        }

        fn refuse(&mut self, at: usize) -> Stage {
            assert!(!self.connections.remove(self.arrivals[at]));
            Stage::Over
        }

        /// The main channel comes to its first sync, when all have connected, or looks again who is
        /// silent; none where nobody else is.
        fn look(&self) -> Option<Self> {
            if !self.connections.has_main() || self.arrivals.len() < self.who.len() {
                return None;
            }
            let mut next = self.clone();
            let silent = |&(_, at, _): &(Arrival, usize, bool)| match self.stages[at] {
                Stage::Unknown => self.who[at] == Who::Silent,
                _ => self.who[at].speaks().is_none(),
            };
            let holding_up = self.connections.holding_up().into_iter().filter(silent);
            next.connections.pass_over(holding_up.map(|(arrival, ..)| arrival));
            (next.key() != self.key()).then_some(next)
        }

        fn key(&self) -> (Vec<Stage>, BTreeSet<Arrival>, bool) {
            let connections = &self.connections;
            (self.stages.clone(), connections.passed_over.clone(), connections.at_sync)
        }

        fn begun(&self) -> Vec<usize> {
            (0..self.who.len()).filter(|&at| self.stages[at] == Stage::Begun).collect()
        }

        /// Follows every order of the threads.
        fn walk(self, seen: &mut Seen, verdicts: &mut Vec<Verdict>) {
            if !seen.insert(self.key()) {
                return;
            }
            self.check();
            let mut closing = self.clone();
            let whole = self.connections.at_sync && closing.connections.close();
            let mut steps: Vec<_> = (0..self.who.len()).filter_map(|at| self.step(at)).collect();
            steps.extend(self.connect().into_iter().chain(self.look()));
            if whole {
                // Whatever is looked at later changes nothing.
                let late = (0..self.who.len()).filter_map(|at| closing.step(at));
                assert!(late.into_iter().all(|late| late.begun() == self.begun()));
            }
            if whole || steps.is_empty() {
                let verdict = if whole { Verdict::Whole } else { Verdict::Waits };
                let verdict = verdict(self.begun());
                if !verdicts.contains(&verdict) {
                    verdicts.push(verdict);
                }
            }
            steps.into_iter().for_each(|next| next.walk(seen, verdicts));
        }

        fn check(&self) {
            assert_eq!(self.connections.connected(), self.begun().len());
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
        Threads::new(who).walk(&mut Seen::new(), &mut verdicts);
        verdicts
    }

    /// What is to come of all, from what they say and the order in which they came alone: whoever has the
    /// better rank has its place.
    fn expected(who: &[Who]) -> Verdict {
        let main = who.iter().position(|&who| who == Who::Main).unwrap();
        let mut ranked: Vec<_> = (0..who.len())
            .filter_map(|at| Some((at, who[at].speaks().filter(|initial| initial.channel < 2)?)))
            .collect();
        ranked.sort_by_key(|&(at, _)| {
            let is_early = at < main;
            let order = if is_early { who.len() - at } else { at };
            (matches!(who[at], Who::Foreign(..)), is_early, order)
        });
        let mut begun: Vec<(usize, InitialPacket)> = Vec::new();
        for (at, initial) in ranked {
            if begun
                .iter()
                .all(|(_, other)| other.uuid == initial.uuid && other.channel != initial.channel)
            {
                begun.push((at, initial));
            }
        }
        let mut begun: Vec<_> = begun.into_iter().map(|(at, _)| at).collect();
        begun.sort_unstable();
        if begun.len() == 2 { Verdict::Whole(begun) } else { Verdict::Waits(begun) }
    }

    const HONEST: [Who; 3] = [Who::Main, Who::Channel(0, UUID, true), Who::Channel(1, UUID, true)];

    /// Strangers that do not speak as a channel of the source's host does.
    const STRANGERS: [Who; 9] = [
        Who::Gone,
        Who::Silent,
        Who::Channel(0, UUID, false),
        Who::Channel(1, OTHER, false),
        Who::Channel(2, UUID, false),
        Who::Channel(2, UUID, true),
        Who::Foreign(0, UUID),
        Who::Foreign(1, OTHER),
        Who::Foreign(2, UUID),
    ];

    /// Those that do.
    const RIVALS: [Who; 3] =
        [Who::Channel(0, UUID, true), Who::Channel(1, UUID, true), Who::Channel(0, OTHER, true)];

    /// An honest migration with two others at any place each. The places are given as well.
    fn with_two(first: Who, second: Who, each: impl Fn(&[Who], [usize; 2])) {
        for (one, other) in (0..=3).flat_map(|one| (0..=4).map(move |other| (one, other))) {
            let mut who = HONEST.to_vec();
            who.insert(one, first);
            who.insert(other, second);
            each(&who, [one + usize::from(other <= one), other]);
        }
    }

    #[test]
    fn two_strangers_whenever_they_come_take_nobodys_place() {
        for (first, second) in STRANGERS.iter().flat_map(|&one| STRANGERS.map(|other| (one, other)))
        {
            with_two(first, second, |who, strangers| {
                let own = |at: &usize| !strangers.contains(at) && who[*at] != Who::Main;
                let own = (0..who.len()).filter(own).collect();
                assert_eq!(verdicts(who), [Verdict::Whole(own)], "{who:?}");
            });
        }
    }

    #[test]
    fn whoever_speaks_the_verdict_is_one_in_every_order_of_the_threads() {
        let all = || STRANGERS.iter().chain(&RIVALS);
        for (&first, &second) in RIVALS.iter().flat_map(|one| all().map(move |other| (one, other)))
        {
            with_two(first, second, |who, _| {
                assert_eq!(verdicts(who), [expected(who)], "{who:?}");
            });
        }
    }

    #[test]
    fn a_rival_that_comes_behind_a_channel_never_takes_its_place() {
        for rival in RIVALS {
            let who = [HONEST[0], HONEST[1], HONEST[2], rival];
            assert_eq!(verdicts(&who), [Verdict::Whole(vec![1, 2])]);
        }
    }

    #[test]
    fn channels_that_all_came_before_their_main_channel_or_from_elsewhere_are_taken_in() {
        let foreign = [Who::Foreign(0, UUID), Who::Foreign(1, UUID)];
        for who in [
            [HONEST[1], HONEST[2], Who::Main, Who::Silent],
            [HONEST[1], Who::Channel(0, UUID, false), HONEST[2], Who::Main],
            [foreign[0], foreign[1], Who::Main, Who::Silent],
            [Who::Main, Who::Silent, foreign[1], foreign[0]],
            [Who::Main, foreign[1], HONEST[1], Who::Channel(1, UUID, false)],
        ] {
            assert!(matches!(expected(&who), Verdict::Whole(_)), "{who:?}");
            assert_eq!(verdicts(&who), [expected(&who)], "{who:?}");
        }
    }

    #[test]
    fn a_second_main_channel_changes_nothing_for_the_first() {
        let channels = [HONEST[2], HONEST[1]];
        for who in [
            [Who::Main, Who::Main, channels[0], channels[1]],
            [Who::Main, channels[0], Who::Main, channels[1]],
            [Who::Main, channels[0], channels[1], Who::Main],
        ] {
            let mut threads = Threads::new(&who).all_connected();
            // Whoever has said first that it is has the place.
            threads = threads.step(0).unwrap();
            let mut verdicts = Vec::new();
            threads.walk(&mut Seen::new(), &mut verdicts);
            assert!(matches!(&verdicts[..], [Verdict::Whole(begun)] if begun.len() == 2));
        }
    }

    #[test]
    fn a_second_main_channel_holds_nobody_up_while_it_is_turned_away_and_still_waits() {
        let (mut connections, [main, second, channel, silent]) = announcing([HERE; 4]);
        assert!(connections.add_main(main, 1, Vec::new(), |_| false));
        connections.claim(channel, InitialPacket::new(UUID, 0), Some(3)).unwrap();
        connections.pass_over([channel, silent]);
        connections.speaks(channel);
        assert!(matches!(connections.begin(channel, |_| false), Begin::Wait));
        assert!(!connections.add_main(second, 2, Vec::new(), |_| false));
        assert!(matches!(connections.begin(channel, |_| false), Begin::Begun));
        assert_eq!(connections.waiting(), 2);
        assert_eq!(connections.passed_over, BTreeSet::from([second, silent]));
        assert!(!connections.remove(second) && !connections.remove(silent));
        assert!(connections.passed_over.is_empty());
    }

    #[test]
    fn what_connects_when_all_are_there_is_refused_whatever_it_is() {
        let mut threads = Threads::new(&HONEST).all_connected();
        for at in [0, 1, 1, 1, 2, 2, 2] {
            assert!(!threads.connections.is_closed());
            threads = threads.step(at).unwrap();
        }
        assert!(threads.connections.close());
        for uuid in [UUID, OTHER] {
            for channel in [0, 1, 2] {
                let mut connections = threads.connections.clone();
                let late = connections.add(9, None, |_| true).unwrap().arrival;
                let initial = InitialPacket::new(uuid, channel);
                connections.claim(late, initial, Some(9)).unwrap_err();
                assert!(connections.close(), "closed stays closed");
            }
        }
    }

    #[test]
    fn another_vm_is_refused_where_one_is_expected() {
        let mut connections = Connections::new(2, Some(UUID), 8);
        let [one, other] =
            [0, 1].map(|handle| connections.add(handle, None, |_| true).unwrap().arrival);
        let initial = InitialPacket::new(OTHER, 0);
        connections.claim(one, initial, Some(0)).unwrap_err();
        assert!(!connections.remove(one));
        connections.claim(other, InitialPacket::new(UUID, 0), Some(1)).unwrap();
    }

    #[test]
    fn when_too_many_wait_the_oldest_that_has_said_nothing_gives_way() {
        let mut connections = Connections::new(1, None, 3);
        let arrivals: Vec<_> =
            (0..4).map(|handle| connections.add(handle, None, |_| true).unwrap().arrival).collect();
        // The first has bytes that are to be read yet.
        let silent = |handle: &i32| *handle != 0;
        let added = connections.add(4, None, silent).unwrap();
        assert_eq!(added.gives_way, Some(1));
        assert!(connections.remove(arrivals[1]) && !connections.remove(arrivals[1]));
        // Where all have, the oldest.
        assert_eq!(connections.add(5, None, |_| false).unwrap().gives_way, Some(0));
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
            assert_eq!(full.add(handle, None, |_| true).unwrap().gives_way, None);
        }
        assert_eq!(full.add(9, None, |_| true).unwrap().gives_way, Some(6));
    }

    #[test]
    fn channels_that_speak_give_way_only_before_there_is_a_main_channel() {
        for has_main in [false, true] {
            let mut connections = Connections::new(1, None, 2);
            let main = connections.add(9, None, |_| true).unwrap().arrival;
            if has_main {
                assert!(connections.add_main(main, 9, Vec::new(), |_| false));
            } else {
                connections.remove(main);
            }
            for handle in 0..3 {
                let arrival = connections.add(handle, None, |_| true).unwrap().arrival;
                connections.claim(arrival, InitialPacket::new(UUID, 0), Some(handle)).unwrap();
                connections.speaks(arrival);
            }
            let added = connections.add(3, None, |_| true);
            assert_eq!(added.map(|added| added.gives_way), (!has_main).then_some(Some(0)));
        }
    }

    #[test]
    fn channels_from_elsewhere_that_speak_give_way_the_worst_first_and_none_of_the_main_channels_host()
     {
        let mut connections = Connections::new(3, None, 1);
        let arrivals =
            [(0, None), (1, None), (2, HERE), (3, None), (4, HERE)].map(|(handle, host)| {
                let arrival = connections.add(handle, host, |_| true).unwrap().arrival;
                if handle == 2 {
                    assert!(connections.add_main(arrival, 2, Vec::new(), |_| false));
                } else {
                    connections.claim(arrival, InitialPacket::new(UUID, 0), Some(handle)).unwrap();
                    connections.speaks(arrival);
                }
                arrival
            });
        for expected in [Some(0), Some(1), Some(3), None] {
            assert_eq!(connections.make_room(|_| true), expected);
        }
        assert!(connections.is_waiting(arrivals[4]) && connections.remove(arrivals[3]));
    }

    fn best_uuid(connections: &Connections<usize>) -> Option<Uuid> {
        connections.announced_by_best().map(|initial| initial.uuid)
    }

    #[test]
    fn channels_of_an_attempt_that_was_given_up_leave_their_places_to_the_next() {
        // They leave before their next main channel is known, or after.
        for left_before in [true, false] {
            let left = Cell::new(left_before);
            let has_left = |handle: &usize| *handle == 0 && left.get();
            let mut connections = Connections::new(1, None, 8);
            let [old, main, new] =
                [0, 1, 2].map(|handle| connections.add(handle, None, |_| true).unwrap().arrival);
            let claim = |connections: &mut Connections<usize>, arrival, uuid, handle| {
                let initial = InitialPacket::new(uuid, 0);
                connections.claim(arrival, initial, Some(handle)).unwrap();
                connections.speaks(arrival);
            };
            claim(&mut connections, old, OTHER, 0);
            assert!(connections.add_main(main, 1, Vec::new(), has_left));
            assert_eq!(best_uuid(&connections), (!left_before).then_some(OTHER));
            left.set(true);
            assert!(matches!(connections.begin(old, has_left), Begin::Refused(Refusal::GivenUp)));
            assert!(!connections.remove(old));
            claim(&mut connections, new, UUID, 2);
            assert!(matches!(connections.begin(new, has_left), Begin::Begun));
            assert_eq!(best_uuid(&connections), Some(UUID));
        }
    }

    #[test]
    fn what_is_there_from_before_the_main_channel_waits_for_what_came_after() {
        for rival in [InitialPacket::new(UUID, 0), InitialPacket::new(OTHER, 1)] {
            let mut connections = Connections::new(2, None, 8);
            let [old, main, new] =
                [0, 1, 2].map(|handle| connections.add(handle, None, |_| true).unwrap().arrival);
            let initial = InitialPacket::new(UUID, 0);
            connections.claim(old, initial, Some(0)).unwrap();
            connections.speaks(old);
            assert!(connections.add_main(main, 1, Vec::new(), |_| false));
            connections.claim(new, rival, Some(2)).unwrap();
            assert!(matches!(connections.begin(old, |_| false), Begin::Wait));
            connections.speaks(new);
            assert_eq!(best_uuid(&connections), Some(rival.uuid));
            assert!(matches!(connections.begin(new, |_| false), Begin::Begun));
            let refused = connections.begin(old, |_| false);
            assert!(matches!(refused, Begin::Refused(Refusal::Said(_))), "{refused:?}");
        }
    }

    #[test]
    fn what_came_after_its_main_channel_keeps_its_place_however_early_it_left() {
        let mut connections = Connections::new(2, None, 8);
        let [main, first, second] =
            [0, 1, 2].map(|handle| connections.add(handle, None, |_| true).unwrap().arrival);
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

    /// Connections from these hosts, of two channels.
    fn announcing(hosts: [Host; 4]) -> (Connections<usize>, [Arrival; 4]) {
        let mut connections = Connections::new(2, None, 8);
        let mut handle = 0;
        let arrivals = hosts.map(|host| {
            handle += 1;
            connections.add(handle, host, |_| true).unwrap().arrival
        });
        (connections, arrivals)
    }

    const HERE: Host = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn what_is_announced_is_clear_when_a_channel_speaks_or_when_all_are_there_and_agree() {
        for digests in [false, true] {
            let (mut connections, [main, first, second, third]) = announcing([HERE; 4]);
            assert!(connections.add_main(main, 1, Vec::new(), |_| false));
            let initial =
                |channel, uuid, digests| InitialPacket::new(uuid, channel).with_digests(digests);
            let announced = |connections: &Connections<usize>| connections.announced(|_| true);
            connections.claim(first, initial(0, UUID, true), Some(2)).unwrap();
            assert_eq!(announced(&connections), None);
            connections.claim(second, initial(1, UUID, digests), Some(3)).unwrap();
            assert_eq!(announced(&connections), digests.then(|| initial(0, UUID, true)));
            connections.claim(third, initial(1, OTHER, false), Some(4)).unwrap();
            assert_eq!((announced(&connections), connections.announced_by_best()), (None, None));
            connections.speaks(first);
            assert_eq!(announced(&connections), Some(initial(0, UUID, true)));
        }
    }

    #[test]
    fn whoever_is_better_is_waited_for_where_it_contradicts_or_may() {
        let initial = |channel, uuid| InitialPacket::new(uuid, channel);
        for (better, is_clear) in [
            (initial(0, UUID), true),
            (initial(1, UUID), true),
            (initial(0, OTHER), false),
            (initial(0, UUID).with_digests(true), false),
        ] {
            let (mut connections, [main, first, second, _]) = announcing([HERE; 4]);
            assert!(connections.add_main(main, 1, Vec::new(), |_| false));
            connections.claim(second, initial(1, UUID), Some(3)).unwrap();
            connections.speaks(second);
            let clear = Some(initial(0, UUID));
            // The first has said nothing yet, and is being heard or not. The last is worse.
            assert_eq!(connections.announced(|&handle| handle != 2), None);
            assert_eq!(connections.announced(|&handle| handle == 2), clear);
            connections.claim(first, better, Some(2)).unwrap();
            assert_eq!(connections.announced(|_| true), clear.filter(|_| is_clear), "{better:?}");
            assert_eq!(connections.announced_by_best(), clear);
            connections.speaks(first);
            assert_eq!(connections.announced(|_| true), Some(as_all(better)));
        }
    }

    #[test]
    fn one_from_elsewhere_or_from_before_the_main_channel_announces_nothing_alone() {
        let initial = |channel, uuid| InitialPacket::new(uuid, channel);
        for host in [None, HERE] {
            let (mut connections, [stranger, main, first, second]) =
                announcing([host, HERE, HERE, HERE]);
            connections.claim(stranger, initial(0, OTHER), Some(1)).unwrap();
            connections.speaks(stranger);
            assert!(connections.add_main(main, 2, Vec::new(), |_| false));
            connections.remove(second);
            assert_eq!(connections.announced(|_| true), None);
            assert_eq!(connections.announced_by_best(), Some(initial(0, OTHER)));
            let mut alone = connections.clone();
            connections.claim(first, initial(1, UUID), Some(3)).unwrap();
            assert_eq!(connections.announced(|_| true), None);
            connections.speaks(first);
            assert_eq!(connections.announced(|_| true), Some(initial(0, UUID)));
            // All are, and none contradicts it.
            alone.claim(first, initial(1, OTHER), Some(3)).unwrap();
            assert_eq!(alone.announced(|_| true), Some(initial(0, OTHER)));
        }
    }

    #[test]
    fn of_streams_that_were_given_the_first_has_the_number_whichever_is_read_first() {
        for digests in [false, true] {
            let mut connections = Connections::<usize>::new(1, None, 8);
            let [first, second] = [(); 2].map(|()| connections.add_given());
            let initial = InitialPacket::new(UUID, 0).with_digests(digests);
            for arrival in [second, first] {
                assert!(!matches!(connections.begin(second, |_| false), Begin::Begun));
                connections.claim(arrival, initial, None).unwrap();
                connections.speaks(arrival);
            }
            assert!(matches!(connections.begin(second, |_| false), Begin::Wait));
            assert!(matches!(connections.begin(first, |_| false), Begin::Begun));
            let refused = connections.begin(second, |_| false);
            assert!(matches!(refused, Begin::Refused(Refusal::Said(_))), "{refused:?}");
            assert!(connections.is_waiting(second) && !connections.is_waiting(first));
            // That its thread ends takes nothing back.
            assert!(!connections.remove(first) && connections.connected() == 1);
            assert_eq!(connections.announces_digests(0), digests);
            assert_eq!(connections.begun_announce_digests(), Some(digests));
            assert!(!connections.announces_digests(1));
        }
    }

    #[test]
    fn whoever_comes_or_says_what_it_is_is_a_change() {
        let mut connections = Connections::new(1, None, 8);
        let mut seen = vec![connections.changes()];
        for handle in [0, 1] {
            let arrival = connections.add(handle, None, |_| true).unwrap().arrival;
            seen.push(connections.changes());
            assert_eq!(connections.unknown(), 1);
            connections.claim(arrival, InitialPacket::new(UUID, 0), Some(handle)).unwrap();
            seen.push(connections.changes());
            assert_eq!(connections.unknown(), 0);
        }
        assert!(seen.is_sorted_by(|before, after| before < after), "{seen:?}");
    }
}
