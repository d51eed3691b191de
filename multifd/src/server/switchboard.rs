//! Which migration a connection is of, where many come to one address.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use multifd_core::wire::Uuid;

use crate::engine::connections::{Added, Arrival, Host};
use crate::transport::MigrationId;

/// Who is there, of the connections that have not been handed to a migration, and the migrations that there
/// are. `H` is a connection's handle, `S` where a migration takes its connections in.
///
/// ```text
/// unknown ─┬─ a main channel's greeting ─→ alone ─ its first channel ─→ known ─ taken ─→ seated
///          └─ an initial packet ─→ waits ─ its migration is seated ─→ handed over
/// ```
///
/// With a token each connection has proven of which attempt it is. Without one, nothing that QEMU says on a main
/// channel tells which VM it has, and its channels have the VM's UUID alone. So the order in which
/// connections come decides, of those from one host: a source connects its main channel before its channels.
///
/// - A channel of a UUID that a migration of the same host has is of that one, as long as it lacks channels.
/// - Else it is of the main channel that came before it and has no channel yet, if there is one. Of several that come
///   by a Unix socket it is that of the same process, if there is one.
/// - If there are several, no rule tells which, and a guess would mix two guests' memory: all these main
///   channels are refused, and the guests go on at their sources. Whoever has not said what it is may be
///   another main channel, so a channel waits for those that came before it.
#[derive(Clone, Debug)]
pub(super) struct Switchboard<H, S> {
    last: Arrival,
    unknown: BTreeMap<Arrival, Unknown<H>>,
    gave_way: BTreeSet<Arrival>,
    /// The main channels, and with them the migrations.
    mains: BTreeMap<Arrival, Main<H, S>>,
    /// The channels that have not been handed over.
    channels: BTreeMap<Arrival, Channel<H>>,
    most_waiting: usize,
    most_migrations: usize,
    stopping: bool,
}

/// Where a migration takes its connections in.
pub(super) trait Seat: Clone {
    /// Whether it has all its channels, or is over.
    fn has_all(&self) -> bool;
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) host: Host,
    /// The process on the other side of a Unix socket, where it can be seen from here.
    pub(super) process: Option<NonZeroU32>,
}

#[derive(Clone, Debug)]
struct Unknown<H> {
    handle: H,
    from: Origin,
}

#[derive(Clone, Debug)]
struct Main<H, S> {
    handle: H,
    from: Origin,
    id: Option<MigrationId>,
    stage: Stage<S>,
}

#[derive(Clone, Debug)]
enum Stage<S> {
    /// No channel of it has come.
    Alone,
    /// It is a migration of this VM.
    Known(Uuid, At<S>),
    /// It is about to be refused.
    Refused(NoPlace),
}

/// How far a migration has come here.
#[derive(Clone, Debug)]
enum At<S> {
    /// It waits to be taken.
    Door,
    Seat(S),
    /// One of its channels is being handed over, and the others wait.
    Busy(S),
}

#[derive(Clone, Debug)]
struct Channel<H> {
    handle: H,
    from: Origin,
    uuid: Uuid,
    id: Option<MigrationId>,
    /// The main channel of its migration, or why there is none.
    main: Option<Result<Arrival, NoPlace>>,
}

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Several migrations of one host have begun at once, and cannot be told apart.
    Indistinct,
    /// There are as many migrations as there may be.
    Full,
    /// No migration begins any more.
    Stopping,
    /// It was the oldest of too many.
    GaveWay,
    /// The migration whose channel it is has ended.
    Over,
}

impl<H: Clone, S: Seat> Switchboard<H, S> {
    /// For `most_migrations` at once, beside which `most_waiting` connections may wait.
    pub(super) fn new(most_waiting: usize, most_migrations: usize) -> Self {
        Self {
            last: Arrival::default(),
            unknown: BTreeMap::new(),
            gave_way: BTreeSet::new(),
            mains: BTreeMap::new(),
            channels: BTreeMap::new(),
            most_waiting: most_waiting.max(1),
            most_migrations: most_migrations.max(1),
            stopping: false,
        }
    }

    /// A connection that has not said what it is. Where too many wait, one gives way: see
    /// [`make_room`](Self::make_room). `None` where all that wait are main channels.
    pub(super) fn add(
        &mut self,
        handle: H,
        from: Origin,
        is_silent: impl Fn(&H) -> bool,
    ) -> Option<Added<H>> {
        let gives_way = match self.waiting() < self.most_waiting {
            true => None,
            false => Some(self.make_room(is_silent)?),
        };
        self.last = self.last.next();
        self.unknown.insert(self.last, Unknown { handle, from });
        Some(Added { arrival: self.last, gives_way })
    }

    /// Has the connection give way that has the least to lose: the oldest that has said nothing, of which
    /// `is_silent` says that nothing is there to be read either; or the oldest that has not said what it is; or the
    /// oldest channel without a migration; or the oldest main channel without a channel.
    pub(super) fn make_room(&mut self, is_silent: impl Fn(&H) -> bool) -> Option<H> {
        let silent = self.unknown.iter().find(|(_, one)| is_silent(&one.handle));
        if let Some(&at) = silent.or_else(|| self.unknown.first_key_value()).map(|(at, _)| at) {
            self.gave_way.insert(at);
            return self.unknown.remove(&at).map(|one| one.handle);
        }
        if let Some(channel) = self.channels.values_mut().find(|channel| channel.main.is_none()) {
            channel.main = Some(Err(NoPlace::GaveWay));
            return Some(channel.handle.clone());
        }
        let alone = |main: &&mut Main<H, S>| matches!(main.stage, Stage::Alone);
        let main = self.mains.values_mut().find(alone)?;
        main.stage = Stage::Refused(NoPlace::GaveWay);
        Some(main.handle.clone())
    }

    /// Connections that are of no migration yet.
    fn waiting(&self) -> usize {
        let channels = self.channels.values().filter(|channel| channel.main.is_none()).count();
        let alone = |main: &&Main<H, S>| matches!(main.stage, Stage::Alone);
        self.unknown.len() + channels + self.mains.values().filter(alone).count()
    }

    /// No migration begins any more. Those that have begun get their channels.
    pub(super) fn stop_taking(&mut self) {
        self.stopping = true;
        let alone = |main: &&mut Main<H, S>| matches!(main.stage, Stage::Alone);
        for main in self.mains.values_mut().filter(alone) {
            main.stage = Stage::Refused(NoPlace::Stopping);
        }
    }

    /// A connection has said that it is a main channel, and has proven of which attempt where there is a token.
    pub(super) fn says_main(
        &mut self,
        arrival: Arrival,
        id: Option<MigrationId>,
    ) -> Result<(), NoPlace> {
        let Unknown { handle, from } = self.unknown.remove(&arrival).ok_or(NoPlace::GaveWay)?;
        let stage = match self.stopping {
            true => Stage::Refused(NoPlace::Stopping),
            false => Stage::Alone,
        };
        self.mains.insert(arrival, Main { handle, from, id, stage });
        Ok(())
    }

    /// A connection has said that it is a channel of the VM `uuid`.
    pub(super) fn says_channel(
        &mut self,
        arrival: Arrival,
        uuid: Uuid,
        id: Option<MigrationId>,
    ) -> Result<(), NoPlace> {
        let Unknown { handle, from } = self.unknown.remove(&arrival).ok_or(NoPlace::GaveWay)?;
        self.channels.insert(arrival, Channel { handle, from, uuid, id, main: None });
        Ok(())
    }

    /// What becomes of the main channel: its VM, once a channel of it is there. `has_left` says whether the other
    /// side of a connection has.
    pub(super) fn main_place(
        &mut self,
        arrival: Arrival,
        has_left: impl Fn(&H) -> bool,
    ) -> Option<Result<Uuid, NoPlace>> {
        self.match_up(has_left);
        match self.mains.get(&arrival).map(|main| &main.stage) {
            Some(Stage::Alone) => None,
            Some(&Stage::Known(uuid, _)) => Some(Ok(uuid)),
            Some(&Stage::Refused(why)) => Some(Err(why)),
            None => Some(Err(NoPlace::GaveWay)),
        }
    }

    /// What becomes of a channel: where it is handed over, with the main channel of its migration, to be told
    /// when it [has been](Self::handed_over). One at a time, in the order in which they came.
    pub(super) fn channel_place(
        &mut self,
        arrival: Arrival,
        has_left: impl Fn(&H) -> bool,
    ) -> Option<Result<(S, Arrival), NoPlace>> {
        self.match_up(has_left);
        let Some(channel) = self.channels.get(&arrival) else { return Some(Err(NoPlace::GaveWay)) };
        let at = match channel.main? {
            Ok(main) => main,
            Err(why) => return Some(Err(why)),
        };
        let earlier = self.channels.range(..arrival);
        if earlier.into_iter().any(|(_, other)| other.main == Some(Ok(at))) {
            return None;
        }
        let Some(main) = self.mains.get_mut(&at) else { return Some(Err(NoPlace::Over)) };
        let Stage::Known(_, stage) = &mut main.stage else { return Some(Err(NoPlace::Over)) };
        let At::Seat(seat) = stage else { return None };
        let seat = seat.clone();
        *stage = At::Busy(seat.clone());
        self.channels.remove(&arrival);
        Some(Ok((seat, at)))
    }

    /// A channel of this main channel's migration has been handed over.
    pub(super) fn handed_over(&mut self, main: Arrival) {
        if let Some(Main { stage: Stage::Known(_, at), .. }) = self.mains.get_mut(&main) {
            if let At::Busy(seat) = at {
                *at = At::Seat(seat.clone());
            }
        }
    }

    /// The migration of this main channel takes its connections in by `seat`.
    pub(super) fn take_seat(&mut self, main: Arrival, seat: S) {
        if let Some(Main { stage: Stage::Known(_, at), .. }) = self.mains.get_mut(&main) {
            *at = At::Seat(seat);
        }
    }

    /// A connection has ended, was refused, or the migration of a main channel is over.
    pub(super) fn remove(&mut self, arrival: Arrival) {
        self.unknown.remove(&arrival);
        self.gave_way.remove(&arrival);
        self.channels.remove(&arrival);
        if self.mains.remove(&arrival).is_some() {
            for channel in self.channels.values_mut() {
                if channel.main == Some(Ok(arrival)) {
                    channel.main = Some(Err(NoPlace::Over));
                }
            }
        }
    }

    /// Whether a connection had to give way.
    pub(super) fn has_given_way(&self, arrival: Arrival) -> bool {
        self.gave_way.contains(&arrival)
    }

    /// Migrations that have begun and are not over.
    pub(super) fn migrations(&self) -> usize {
        self.mains.values().filter(|main| matches!(main.stage, Stage::Known(..))).count()
    }

    /// The handles of all that are of no migration yet.
    pub(super) fn handles(&self) -> Vec<H> {
        let unknown = self.unknown.values().map(|one| one.handle.clone());
        let channels = self.channels.values().map(|one| one.handle.clone());
        let at_door =
            |main: &&Main<H, S>| !matches!(main.stage, Stage::Known(_, At::Seat(_) | At::Busy(_)));
        let mains = self.mains.values().filter(at_door).map(|one| one.handle.clone());
        unknown.chain(channels).chain(mains).collect()
    }

    /// Finds the migrations of channels that wait, in the order in which they came.
    fn match_up(&mut self, has_left: impl Fn(&H) -> bool) {
        let waiting = self.channels.iter().filter(|(_, channel)| channel.main.is_none());
        for at in waiting.map(|(&at, _)| at).collect::<Vec<_>>() {
            let Some(channel) = self.channels.get(&at) else { continue };
            let found = match channel.id {
                Some(id) => self.of_attempt(id),
                None => self.of_host(at, channel, &has_left),
            };
            let uuid = channel.uuid;
            let place = match found {
                Found::Wait => continue,
                Found::One(main) => self.begin(main, uuid).map(|()| main),
                Found::Several(mains) => {
                    for main in mains {
                        self.refuse(main, NoPlace::Indistinct);
                    }
                    Err(NoPlace::Indistinct)
                }
            };
            if let Some(channel) = self.channels.get_mut(&at) {
                channel.main = Some(place);
            }
        }
    }

    /// The main channel that has proven to be of the same attempt.
    fn of_attempt(&self, id: MigrationId) -> Found {
        let mut mains = self.mains.iter().filter(|(_, main)| main.id == Some(id));
        mains.next().map_or(Found::Wait, |(&at, _)| Found::One(at))
    }

    /// The main channel that came from the same host before: see [`Switchboard`].
    fn of_host(&self, at: Arrival, channel: &Channel<H>, has_left: impl Fn(&H) -> bool) -> Found {
        let of_host = || {
            let before = self.mains.range(..at);
            before.filter(|(_, main)| main.from.host == channel.from.host && main.id.is_none())
        };
        let of_vm = |main: &Main<H, S>, has_all: bool| match &main.stage {
            Stage::Known(uuid, at) => *uuid == channel.uuid && at.has_all() == has_all,
            _ => false,
        };
        // Of two attempts of one VM the later, the other has been given up.
        let lacking = of_host().filter(|(_, main)| of_vm(main, false) && !has_left(&main.handle));
        if let Some((&main, _)) = lacking.last() {
            return Found::One(main);
        }
        if self.unknown.range(..at).any(|(_, unknown)| unknown.from.host == channel.from.host) {
            return Found::Wait;
        }
        let alone =
            |main: &Main<H, S>| matches!(main.stage, Stage::Alone) && !has_left(&main.handle);
        let alone = || of_host().filter(|(_, main)| alone(main));
        let of_process = |main: &Main<H, S>| {
            main.from.process.is_some() && main.from.process == channel.from.process
        };
        if let [main] = ids(alone().filter(|(_, main)| of_process(main)))[..] {
            return Found::One(main);
        }
        let alone = ids(alone());
        match alone[..] {
            [main] => Found::One(main),
            // One too many, perhaps: its migration says so.
            [] => {
                let complete = of_host().filter(|(_, main)| of_vm(main, true)).last();
                complete.map_or(Found::Wait, |(&main, _)| Found::One(main))
            }
            _ => Found::Several(alone),
        }
    }

    /// A channel of `uuid` is of this main channel.
    fn begin(&mut self, main: Arrival, uuid: Uuid) -> Result<(), NoPlace> {
        let is_full = self.migrations() >= self.most_migrations;
        let Some(main) = self.mains.get_mut(&main) else { return Err(NoPlace::Over) };
        match main.stage {
            // Of another UUID than the first: its migration refuses it.
            Stage::Known(..) => Ok(()),
            Stage::Refused(why) => Err(why),
            Stage::Alone if is_full => {
                main.stage = Stage::Refused(NoPlace::Full);
                Err(NoPlace::Full)
            }
            Stage::Alone => {
                main.stage = Stage::Known(uuid, At::Door);
                Ok(())
            }
        }
    }

    fn refuse(&mut self, main: Arrival, why: NoPlace) {
        if let Some(main) = self.mains.get_mut(&main) {
            main.stage = Stage::Refused(why);
        }
    }
}

fn ids<'a, M: 'a>(mains: impl Iterator<Item = (&'a Arrival, M)>) -> Vec<Arrival> {
    mains.map(|(&arrival, _)| arrival).collect()
}

/// The migration of a channel.
#[derive(Debug)]
enum Found {
    /// It is not clear yet.
    Wait,
    One(Arrival),
    /// It may be of each of these.
    Several(Vec<Arrival>),
}

impl<S: Seat> At<S> {
    fn has_all(&self) -> bool {
        match self {
            Self::Door => false,
            Self::Seat(seat) | Self::Busy(seat) => seat.has_all(),
        }
    }
}

#[cfg(test)]
mod tests;
