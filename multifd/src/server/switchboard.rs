//! Which migration a connection is of, where many come to one address.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

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
/// connections come decides, of those that may be of one source ([`Origin`]): a source connects its main channel before
/// its channels. A wrong guess would mix two guests' memory.
///
/// - A channel of a UUID that a migration has is of that one, as long as it lacks channels.
/// - Else it is of the main channel that came before it and has no channel yet, if there is one. Of several that come
///   by a Unix socket it is that of the same process, if there is one.
/// - If there are several, no rule tells which: all these main channels are refused, and the guests go on at their
///   sources. Whoever has not said what it is may be another main channel, so a channel waits for those that came
///   before it.
/// - Where a main channel has gone of which not all channels have come, those that are on their way could be taken
///   for the next main channel's. So that one's channels wait for a time, in which their source closes them: whoever
///   has left is of no main channel that has not.
/// - A channel of whose VM there is no main channel, though a source connects that first, shows that another VM may have
///   got it: the migrations that it may be are ended.
/// - Where VMs have no UUID (it is 0 then), a migration that lacks channels is as good as a main channel without one.
#[derive(Clone, Debug)]
pub(super) struct Switchboard<H, S> {
    last: Arrival,
    unknown: BTreeMap<Arrival, Unknown<H>>,
    gave_way: BTreeSet<Arrival>,
    /// The main channels, and with them the migrations.
    mains: BTreeMap<Arrival, Main<H, S>>,
    /// The channels that have not been handed over.
    channels: BTreeMap<Arrival, Channel<H>>,
    /// Where main channels came from that have gone without all their channels, and when.
    unsettled: Vec<(Origin, Instant)>,
    most_waiting: usize,
    most_migrations: usize,
    stopping: bool,
}

/// How long channels of a main channel that has gone may still come.
pub(super) const UNSETTLED: Duration = Duration::from_secs(2);

/// Where a migration takes its connections in.
pub(super) trait Seat: Clone {
    /// Whether it has all its channels, or is over.
    fn has_all(&self) -> bool;
}

/// Where a connection comes from. All Unix sockets are one host, and so is vsock.
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
    /// Channels that it lacks; none that is known before it is seated.
    lacks: Option<u8>,
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
    /// No channel of it came.
    Alone,
    /// There is no main channel of its VM.
    Stray,
}

impl Origin {
    /// Whether both may be of one source.
    fn may_be_of(&self, other: &Self) -> bool {
        let (own, other_process) = (self.process, other.process);
        self.host == other.host
            && (own.is_none() || other_process.is_none() || own == other_process)
    }
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
            unsettled: Vec::new(),
            most_waiting: most_waiting.max(1),
            most_migrations: most_migrations.max(1),
            stopping: false,
        }
    }

    /// A connection that has not said what it is. Where too many wait, one gives way: see
    /// [`make_room`](Self::make_room). `None` where all that wait are of migrations.
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

    /// Connections that have not been handed over, but for main channels of migrations.
    fn waiting(&self) -> usize {
        let alone = |main: &&Main<H, S>| matches!(main.stage, Stage::Alone);
        self.unknown.len() + self.channels.len() + self.mains.values().filter(alone).count()
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
        self.mains.insert(arrival, Main { handle, from, id, lacks: None, stage });
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
        now: Instant,
        has_left: impl Fn(&H) -> bool,
    ) -> Option<Result<Uuid, NoPlace>> {
        self.match_up(now, has_left);
        match self.mains.get(&arrival).map(|main| &main.stage) {
            Some(Stage::Alone) => None,
            Some(&Stage::Known(uuid, _)) => Some(Ok(uuid)),
            Some(&Stage::Refused(why)) => Some(Err(why)),
            None => Some(Err(NoPlace::GaveWay)),
        }
    }

    /// Nothing of the main channel is waited for any more: what has become of it.
    pub(super) fn give_up(&mut self, main: Arrival) -> Result<Uuid, NoPlace> {
        let Some(main) = self.mains.get_mut(&main) else { return Err(NoPlace::GaveWay) };
        match main.stage {
            Stage::Alone => {
                main.stage = Stage::Refused(NoPlace::Alone);
                Err(NoPlace::Alone)
            }
            Stage::Known(uuid, _) => Ok(uuid),
            Stage::Refused(why) => Err(why),
        }
    }

    /// Whether it is known of which migration a channel is, which begins when the program takes it.
    pub(super) fn is_matched(&self, channel: Arrival) -> bool {
        self.channels.get(&channel).is_some_and(|channel| matches!(channel.main, Some(Ok(_))))
    }

    /// The migrations that lack channels, and that may have the main channel of a stray channel's VM: those that have
    /// been taken are to be ended, and others come to nothing.
    pub(super) fn end_beside(&mut self, stray: Arrival) -> Vec<S> {
        let Some(stray) = self.channels.get(&stray) else { return Vec::new() };
        let mut seats = Vec::new();
        for main in self.mains.values_mut().filter(|main| main.id.is_none()) {
            let Stage::Known(_, at) = &main.stage else { continue };
            if main.lacks == Some(0) || !main.from.may_be_of(&stray.from) {
                continue;
            }
            match at {
                At::Seat(seat) | At::Busy(seat) => seats.push(seat.clone()),
                At::Door => main.stage = Stage::Refused(NoPlace::Indistinct),
            }
        }
        seats
    }

    /// What becomes of a channel: where it is handed over, with the main channel of its migration, to be told
    /// when it [has been](Self::handed_over). One at a time, in the order in which they came.
    pub(super) fn channel_place(
        &mut self,
        arrival: Arrival,
        now: Instant,
        has_left: impl Fn(&H) -> bool,
    ) -> Option<Result<(S, Arrival), NoPlace>> {
        self.match_up(now, has_left);
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
        main.lacks = main.lacks.map(|lacks| lacks.saturating_sub(1));
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

    /// The migration of this main channel takes its connections in by `seat`: so many channels.
    pub(super) fn take_seat(&mut self, main: Arrival, seat: S, channels: u8) {
        if let Some(Main { stage: Stage::Known(_, at), lacks, .. }) = self.mains.get_mut(&main) {
            (*at, *lacks) = (At::Seat(seat), Some(channels));
        }
    }

    /// A connection has ended, was refused, or the migration of a main channel is over.
    pub(super) fn remove(&mut self, arrival: Arrival, now: Instant) {
        self.unknown.remove(&arrival);
        self.gave_way.remove(&arrival);
        self.channels.remove(&arrival);
        if let Some(main) = self.mains.remove(&arrival) {
            if main.id.is_none() && main.lacks != Some(0) {
                self.unsettled.push((main.from, now));
            }
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
    fn match_up(&mut self, now: Instant, has_left: impl Fn(&H) -> bool) {
        self.unsettled.retain(|&(_, at)| now.saturating_duration_since(at) < UNSETTLED);
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
                Found::None => Err(NoPlace::Stray),
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

    /// The main channel that came from the same source before: see [`Switchboard`].
    fn of_host(&self, at: Arrival, channel: &Channel<H>, has_left: impl Fn(&H) -> bool) -> Found {
        // A source that is done may have left with all its connections, and nobody else's has all of its then.
        let left = has_left(&channel.handle);
        let here = || {
            let before = self.mains.range(..at).filter(|(_, main)| main.id.is_none());
            before.filter(|(_, main)| main.from.may_be_of(&channel.from))
        };
        let lacking = || {
            let lacking = here().filter(|(_, main)| main.is_of(channel.uuid, false));
            lacking.filter(|(_, main)| left || !has_left(&main.handle))
        };
        let has_uuid = channel.uuid != Uuid::default();
        match ids(lacking())[..] {
            [main] if has_uuid => return Found::One(main),
            // Two VMs with one UUID.
            [_, _, ..] if has_uuid => return Found::Several(Vec::new()),
            _ => {}
        }
        if self.may_be_unknown(at, channel, |main| !left && has_left(main)) {
            return Found::Wait;
        }
        let alone = || {
            let alone = here().filter(|(_, main)| matches!(main.stage, Stage::Alone));
            alone.filter(|(_, main)| left == has_left(&main.handle))
        };
        let candidates = || alone().chain(lacking());
        let of_process = |main: &Main<H, S>| {
            main.from.process.is_some() && main.from.process == channel.from.process
        };
        if let [main] = ids(candidates().filter(|(_, main)| of_process(main)))[..] {
            return Found::One(main);
        }
        match ids(candidates())[..] {
            [main] => Found::One(main),
            // One too many, perhaps: its migration says so.
            [] => match here().filter(|(_, main)| main.is_of(channel.uuid, true)).last() {
                Some((&main, _)) => Found::One(main),
                None if left => Found::Wait,
                None => Found::None,
            },
            _ => Found::Several(ids(alone())),
        }
    }

    /// Whether a channel that came at `at` may be of a main channel that is not known, or that has gone or `is_going`.
    fn may_be_unknown(
        &self,
        at: Arrival,
        channel: &Channel<H>,
        is_going: impl Fn(&H) -> bool,
    ) -> bool {
        let may_be = |from: &Origin| from.may_be_of(&channel.from);
        let goes = |main: &&Main<H, S>| match main.stage {
            Stage::Refused(_) => true,
            _ => main.lacks != Some(0) && is_going(&main.handle),
        };
        let mut going = self.mains.values().filter(|main| main.id.is_none()).filter(goes);
        self.unknown.range(..at).any(|(_, unknown)| may_be(&unknown.from))
            || going.any(|main| may_be(&main.from))
            || self.unsettled.iter().any(|(from, _)| may_be(from))
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
    /// There is none.
    None,
}

impl<H, S: Seat> Main<H, S> {
    /// Whether it is a migration of this VM that has all its channels, or does not.
    fn is_of(&self, uuid: Uuid, has_all: bool) -> bool {
        match &self.stage {
            Stage::Known(of, at) => *of == uuid && at.has_all() == has_all,
            _ => false,
        }
    }
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
