use std::cell::Cell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::OnceLock;

use super::*;

const A: Uuid = Uuid([1; 16]);
const B: Uuid = Uuid([2; 16]);

/// What a connection turns out to be, from the host with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Main(u8),
    Channel(u8, Uuid),
    /// These have proven of which attempt they are.
    ProvenMain(u8, u8),
    ProvenChannel(u8, Uuid, u8),
    /// It goes without having said what it is.
    Gone(u8),
}

use Who::{Channel, Gone, Main as MainOf, ProvenChannel, ProvenMain};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Away,
    Unknown,
    Said,
    /// Of the migration of this main channel; its own for a main channel.
    Of(usize),
    Refused(u8),
    Gone,
}

/// Where the migration of a main channel takes its connections in.
#[derive(Clone, Debug)]
struct At(usize, Rc<Cell<bool>>);

impl Seat for At {
    fn has_all(&self) -> bool {
        self.1.get()
    }
}

/// Connections that come in this order, and what becomes of them in any order of their threads.
#[derive(Clone, Debug)]
struct Threads {
    board: Switchboard<usize, At>,
    who: Vec<Who>,
    arrivals: Vec<Arrival>,
    stages: Vec<Stage>,
}

/// A time at which all is settled.
fn now() -> Instant {
    static NOW: OnceLock<Instant> = OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

fn attempt(number: u8) -> Option<MigrationId> {
    Some(MigrationId([number; 16]))
}

impl Who {
    fn origin(self) -> Origin {
        let (MainOf(host)
        | Channel(host, _)
        | ProvenMain(host, _)
        | ProvenChannel(host, ..)
        | Gone(host)) = self;
        Origin { host: Some(IpAddr::from([192, 0, 2, host])), process: None }
    }
}

impl Threads {
    fn new(who: &[Who], most: usize) -> Self {
        let stages = vec![Stage::Away; who.len()];
        Self { board: Switchboard::new(100, most), who: who.to_vec(), arrivals: Vec::new(), stages }
    }

    /// The next step of a connection's thread; none where it waits or is over.
    fn step(&self, at: usize) -> Option<Self> {
        let mut next = self.clone();
        let here = |_: &usize| false;
        next.stages[at] = match self.stages[at] {
            Stage::Away if self.arrivals.len() == at => {
                let added = next.board.add(at, self.who[at].origin(), |_| true).unwrap();
                assert!(added.gives_way.is_none());
                next.arrivals.push(added.arrival);
                Stage::Unknown
            }
            Stage::Unknown => {
                let arrival = self.arrivals[at];
                let said = match self.who[at] {
                    MainOf(_) => next.board.says_main(arrival, None),
                    ProvenMain(_, id) => next.board.says_main(arrival, attempt(id)),
                    Channel(_, uuid) => next.board.says_channel(arrival, uuid, None),
                    ProvenChannel(_, uuid, id) => {
                        next.board.says_channel(arrival, uuid, attempt(id))
                    }
                    Gone(_) => {
                        next.board.remove(arrival, now());
                        next.stages[at] = Stage::Gone;
                        return Some(next);
                    }
                };
                said.unwrap();
                Stage::Said
            }
            Stage::Said => {
                let arrival = self.arrivals[at];
                match self.who[at] {
                    MainOf(_) | ProvenMain(..) => {
                        match next.board.main_place(arrival, now(), here)? {
                            Ok(_) => {
                                next.board.take_seat(arrival, At(at, Rc::default()), 2);
                                Stage::Of(at)
                            }
                            Err(why) => Stage::Refused(why as u8),
                        }
                    }
                    _ => match next.board.channel_place(arrival, now(), here)? {
                        Ok((seat, main)) => {
                            next.board.handed_over(main);
                            Stage::Of(seat.0)
                        }
                        Err(why) => Stage::Refused(why as u8),
                    },
                }
            }
            _ => return None,
        };
        Some(next)
    }

    /// All ends that there are, in any order of steps.
    fn ends(self, seen: &mut HashSet<Vec<Stage>>, ends: &mut HashSet<Vec<Stage>>) {
        if !seen.insert(self.stages.clone()) {
            return;
        }
        let mut is_over = true;
        for at in 0..self.who.len() {
            if let Some(next) = self.step(at) {
                is_over = false;
                next.ends(seen, ends);
            }
        }
        if is_over {
            ends.insert(self.stages);
        }
    }
}

/// What becomes of these, which must be the same in any order of threads.
fn verdict(who: &[Who], most: usize) -> Vec<Stage> {
    let mut ends = HashSet::new();
    Threads::new(who, most).ends(&mut HashSet::new(), &mut ends);
    assert_eq!(ends.len(), 1, "{who:?}: {ends:?}");
    ends.into_iter().next().unwrap()
}

#[test]
fn channels_find_the_main_channel_of_their_host_that_came_before_them() {
    let (of, stray) = (Stage::Of, Stage::Refused(NoPlace::Stray as u8));
    for (who, verdicts) in [
        (vec![MainOf(1), Channel(1, A), Channel(1, A)], vec![of(0), of(0), of(0)]),
        (
            vec![MainOf(1), MainOf(2), Channel(2, B), Channel(1, A), Channel(2, B)],
            vec![of(0), of(1), of(1), of(0), of(1)],
        ),
        // One after the other, the second of which begins while the first lacks a channel.
        (
            vec![MainOf(1), Channel(1, A), MainOf(1), Channel(1, B), Channel(1, A)],
            vec![of(0), of(0), of(2), of(2), of(0)],
        ),
        (
            vec![MainOf(1), Gone(1), Channel(1, A), Gone(1)],
            vec![of(0), Stage::Gone, of(0), Stage::Gone],
        ),
        // A channel without a main channel before it has no place.
        (vec![Channel(1, A), MainOf(1)], vec![stray, Stage::Said]),
        (vec![MainOf(1), Channel(2, A)], vec![Stage::Said, stray]),
    ] {
        assert_eq!(verdict(&who, 9), verdicts, "{who:?}");
    }
}

#[test]
fn migrations_of_one_host_that_begin_at_once_are_refused_as_nobody_can_tell_them_apart() {
    let refused = Stage::Refused(NoPlace::Indistinct as u8);
    assert_eq!(
        verdict(&[MainOf(1), MainOf(1), Channel(1, A), Channel(1, B)], 9),
        // In the program the refused ones are removed, and the last is refused 2 s later.
        [refused, refused, refused, Stage::Said]
    );
    // Another host's is not concerned.
    assert_eq!(
        verdict(&[MainOf(1), MainOf(2), MainOf(1), Channel(1, A), Channel(2, B)], 9),
        [refused, Stage::Of(1), refused, refused, Stage::Of(1)]
    );
}

#[test]
fn those_that_come_by_a_unix_socket_are_told_apart_by_their_processes() {
    let from = |process| Origin { host: None, process: NonZeroU32::new(process) };
    let mut board: Switchboard<usize, At> = Switchboard::new(100, 9);
    let mut come = |process| board.add(0, from(process), |_| true).unwrap().arrival;
    let [one, two, one_channel, two_channel, other] = [5, 6, 5, 6, 7].map(&mut come);
    board.says_main(one, None).unwrap();
    board.says_main(two, None).unwrap();
    board.says_channel(one_channel, A, None).unwrap();
    board.says_channel(two_channel, B, None).unwrap();
    assert_eq!(board.main_place(one, now(), |_| false), Some(Ok(A)));
    assert_eq!(board.main_place(two, now(), |_| false), Some(Ok(B)));
    board.remove(other, now());
    // Where a process's own main channel cannot be told, neither is guessed.
    let [one, two, channel] =
        [5, 5, 5].map(|process| board.add(0, from(process), |_| true).unwrap().arrival);
    board.says_main(one, None).unwrap();
    board.says_main(two, None).unwrap();
    board.says_channel(channel, Uuid([3; 16]), None).unwrap();
    assert_eq!(board.main_place(one, now(), |_| false), Some(Err(NoPlace::Indistinct)));
    assert_eq!(board.main_place(two, now(), |_| false), Some(Err(NoPlace::Indistinct)));
}

#[test]
fn those_that_have_proven_of_which_attempt_they_are_are_told_apart_in_any_order() {
    let of = Stage::Of;
    let who = [
        ProvenChannel(1, A, 1),
        ProvenMain(1, 2),
        ProvenMain(1, 1),
        ProvenChannel(2, B, 2),
        ProvenChannel(1, A, 1),
    ];
    assert_eq!(verdict(&who, 9), [of(2), of(1), of(2), of(1), of(2)]);
}

#[test]
fn there_are_no_more_migrations_at_once_than_there_may_be() {
    let refused = Stage::Refused(NoPlace::Full as u8);
    let who = [MainOf(1), Channel(1, A), MainOf(2), Channel(2, B)];
    let mut ends = HashSet::new();
    Threads::new(&who, 1).ends(&mut HashSet::new(), &mut ends);
    // Which of two hosts' is first is not the order of their connections alone.
    let of = Stage::Of;
    let first = vec![of(0), of(0), refused, refused];
    let second = vec![refused, refused, of(2), of(2)];
    assert_eq!(ends, HashSet::from([first, second]));
}

/// A migration with its main channel and its first channel.
fn begun(board: &mut Switchboard<usize, At>, uuid: Uuid) -> (Arrival, At) {
    begun_at(board, uuid, now())
}

fn begun_at(board: &mut Switchboard<usize, At>, uuid: Uuid, now: Instant) -> (Arrival, At) {
    let from = MainOf(1).origin();
    let [main, channel] = [0, 1].map(|one| board.add(one, from, |_| true).unwrap().arrival);
    board.says_main(main, None).unwrap();
    board.says_channel(channel, uuid, None).unwrap();
    assert_eq!(board.main_place(main, now, |_| false), Some(Ok(uuid)));
    let seat = At(7, Rc::default());
    board.take_seat(main, seat.clone(), 2);
    assert!(matches!(board.channel_place(channel, now, |_| false), Some(Ok(_))));
    board.handed_over(main);
    (main, seat)
}

fn channel(board: &mut Switchboard<usize, At>, uuid: Uuid) -> Arrival {
    let arrival = board.add(9, MainOf(1).origin(), |_| true).unwrap().arrival;
    board.says_channel(arrival, uuid, None).unwrap();
    arrival
}

#[test]
fn a_vm_that_comes_again_while_its_first_attempt_is_not_over_begins_anew() {
    let mut board = Switchboard::new(100, 9);
    let (first, seat) = begun(&mut board, A);
    seat.1.set(true);
    let (second, _) = begun(&mut board, A);
    assert_ne!(first, second);
    assert_eq!(board.migrations(), 2);
    // One too many is told so by the latest.
    let surplus = channel(&mut board, A);
    assert!(
        matches!(board.channel_place(surplus, now(), |_| false), Some(Ok((_, main))) if main == second)
    );
}

#[test]
fn an_attempt_that_has_left_takes_no_channels() {
    let mut board = Switchboard::new(100, 9);
    let (first, _) = begun(&mut board, A);
    let main = board.add(5, MainOf(1).origin(), |_| true).unwrap().arrival;
    board.says_main(main, None).unwrap();
    let next = channel(&mut board, A);
    // Only the first main channel, whose handle is 0, has left. What is on its way may be its own.
    let left = |handle: &usize| *handle == 0;
    assert!(board.channel_place(next, now(), left).is_none());
    assert_eq!(board.main_place(main, now(), left), None);
    board.remove(first, now());
    assert_eq!(board.main_place(main, now(), left), None);
    assert_eq!(board.main_place(main, now() + UNSETTLED, left), Some(Ok(A)));
    assert_eq!(board.migrations(), 1);
}

#[test]
fn the_next_main_channel_waits_until_channels_of_one_that_has_gone_have_gone_too() {
    let mut board = Switchboard::new(100, 9);
    let (first, seat) = begun(&mut board, A);
    // It has one of its two channels, and its migration ends.
    board.remove(first, now());
    seat.1.set(true);
    let main = board.add(5, MainOf(1).origin(), |_| true).unwrap().arrival;
    board.says_main(main, None).unwrap();
    let late = channel(&mut board, A);
    let settled = now() + UNSETTLED;
    let soon = settled.checked_sub(Duration::from_millis(1)).unwrap();
    assert!(board.channel_place(late, soon, |_| false).is_none());
    assert_eq!(board.main_place(main, soon, |_| false), None);
    board.remove(late, soon);
    let own = channel(&mut board, B);
    assert!(board.channel_place(own, soon, |_| false).is_none());
    assert_eq!(board.main_place(main, settled, |_| false), Some(Ok(B)));
    // One with all its channels holds nobody up.
    board.take_seat(main, seat, 1);
    assert!(board.channel_place(own, settled, |_| false).is_some());
    board.remove(main, settled);
    begun_at(&mut board, A, settled);
}

#[test]
fn who_has_left_is_of_no_main_channel_that_has_not_and_who_is_leaving_holds_up_who_may_be_its_own()
{
    // Handles of those that have left are even.
    let left = |handle: &usize| handle % 2 == 0;
    let mut board: Switchboard<usize, At> = Switchboard::new(100, 9);
    let mut come = |handle| board.add(handle, MainOf(1).origin(), |_| true).unwrap().arrival;
    let [gone, main, late, own] = [2, 3, 4, 5].map(&mut come);
    board.says_main(gone, None).unwrap();
    board.says_main(main, None).unwrap();
    board.says_channel(own, B, None).unwrap();
    // The late one has not said what it is, and then may be of the one that leaves.
    assert!(board.channel_place(own, now(), left).is_none());
    board.says_channel(late, A, None).unwrap();
    assert!(board.channel_place(own, now(), left).is_none());
    assert_eq!(board.main_place(main, now(), left), None);
    // It was of that one, which has left with it: that is a source that is done.
    assert_eq!(board.main_place(gone, now(), left), Some(Ok(A)));
    board.remove(gone, now());
    assert!(board.channel_place(own, now(), left).is_none());
    assert_eq!(board.main_place(main, now() + UNSETTLED, left), Some(Ok(B)));
}

#[test]
fn a_stray_channel_ends_the_migrations_that_may_have_its_main_channel() {
    let mut board = Switchboard::new(100, 9);
    let (main, _) = begun(&mut board, A);
    let (whole, _) = begun(&mut board, Uuid([3; 16]));
    let last = channel(&mut board, Uuid([3; 16]));
    assert!(board.channel_place(last, now(), |_| false).is_some());
    board.handed_over(whole);
    let stray = channel(&mut board, B);
    assert!(matches!(board.channel_place(stray, now(), |_| false), Some(Err(NoPlace::Stray))));
    assert_eq!(board.end_beside(stray).len(), 1);
    // From another host it would not matter.
    let from = MainOf(2).origin();
    let other = board.add(9, from, |_| true).unwrap().arrival;
    board.says_channel(other, B, None).unwrap();
    assert!(matches!(board.channel_place(other, now(), |_| false), Some(Err(NoPlace::Stray))));
    assert!(board.end_beside(other).is_empty());
    board.remove(main, now());
}

#[test]
fn vms_without_a_uuid_are_told_apart_only_where_one_alone_lacks_channels() {
    let mut board = Switchboard::new(100, 9);
    let none = Uuid::default();
    let (_, seat) = begun(&mut board, none);
    // Its second channel.
    let own = channel(&mut board, none);
    assert!(matches!(board.channel_place(own, now(), |_| false), Some(Ok((At(7, _), _)))));
    board.handed_over(Arrival::default().next());
    // Another one begins while it is not known to be whole.
    let main = board.add(5, MainOf(1).origin(), |_| true).unwrap().arrival;
    board.says_main(main, None).unwrap();
    let next = channel(&mut board, none);
    let place = board.channel_place(next, now(), |_| false);
    assert!(matches!(place, Some(Err(NoPlace::Indistinct))), "{place:?}");
    assert_eq!(board.main_place(main, now(), |_| false), Some(Err(NoPlace::Indistinct)));
    // Once it is whole, the next is clear.
    board.remove(main, now());
    seat.1.set(true);
    begun_at(&mut board, none, now() + UNSETTLED);
}

#[test]
fn channels_are_handed_over_one_at_a_time_in_the_order_in_which_they_came() {
    let mut board = Switchboard::new(100, 9);
    let (main, _) = begun(&mut board, A);
    let [one, two] = [(); 2].map(|()| channel(&mut board, A));
    assert!(board.channel_place(two, now(), |_| false).is_none());
    assert!(board.channel_place(one, now(), |_| false).is_some());
    assert!(board.channel_place(two, now(), |_| false).is_none());
    board.handed_over(main);
    assert!(board.channel_place(two, now(), |_| false).is_some());
}

#[test]
fn what_belongs_to_a_migration_that_is_over_is_refused() {
    let mut board = Switchboard::new(100, 9);
    let (main, _) = begun(&mut board, A);
    let [one, two] = [(); 2].map(|()| channel(&mut board, A));
    assert!(board.channel_place(one, now(), |_| false).is_some());
    assert!(board.channel_place(two, now(), |_| false).is_none());
    board.remove(main, now());
    assert!(matches!(board.channel_place(two, now(), |_| false), Some(Err(NoPlace::Over))));
}

#[test]
fn when_it_stops_what_has_begun_gets_its_channels_and_nothing_begins() {
    let mut board = Switchboard::new(100, 9);
    let (_, _) = begun(&mut board, A);
    let early = board.add(5, MainOf(1).origin(), |_| true).unwrap().arrival;
    board.says_main(early, None).unwrap();
    board.stop_taking();
    assert_eq!(board.main_place(early, now(), |_| false), Some(Err(NoPlace::Stopping)));
    let late = board.add(5, MainOf(1).origin(), |_| true).unwrap().arrival;
    board.says_main(late, None).unwrap();
    assert_eq!(board.main_place(late, now(), |_| false), Some(Err(NoPlace::Stopping)));
    let own = channel(&mut board, A);
    assert!(matches!(board.channel_place(own, now(), |_| false), Some(Ok(_))));
}

#[test]
fn where_too_many_wait_who_has_said_least_gives_way() {
    let mut board: Switchboard<usize, At> = Switchboard::new(3, 9);
    let from = MainOf(1).origin();
    let add = |handle, board: &mut Switchboard<usize, At>| {
        board.add(handle, from, |&handle| handle != 1).map(|added| (added.arrival, added.gives_way))
    };
    let (_, none) = add(1, &mut board).unwrap();
    let (silent, _) = add(2, &mut board).unwrap();
    let (main, _) = add(3, &mut board).unwrap();
    board.says_main(main, None).unwrap();
    assert_eq!(none, None);
    let (channel, gives_way) = add(4, &mut board).unwrap();
    assert_eq!(gives_way, Some(2));
    assert!(board.has_given_way(silent));
    assert_eq!(board.says_main(silent, None), Err(NoPlace::GaveWay));
    // The first speaks and the last has said what it is.
    board.says_channel(channel, A, attempt(1)).unwrap();
    assert_eq!(add(5, &mut board).unwrap().1, Some(1));
    let (last, _) = add(6, &mut board).map(|(at, way)| (at, assert_eq!(way, Some(5)))).unwrap();
    board.says_main(last, None).unwrap();
    assert_eq!(add(7, &mut board).unwrap().1, Some(4));
    assert!(matches!(board.channel_place(channel, now(), |_| false), Some(Err(NoPlace::GaveWay))));
}
