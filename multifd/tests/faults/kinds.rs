//! Each kind of fault, on every way and with every codec: a sample, or all of them.

use crate::case::{Call, Failing, Fault, Own, Side, pause};
use crate::line::{Act, Deaf, End};
use crate::places::{At, Direction, Place, Wire};
use crate::run::{Draw, Scale, repeat, test};
use crate::way::CODECS;

/// Random places, on any connection and in either direction.
fn random_places(draw: &mut Draw<'_>, count: usize) -> Vec<Place> {
    let streams: Vec<_> = draw.seen.iter().filter(|(_, seen)| seen.bytes > 0).collect();
    let mut place = || {
        let (&(wire, direction), seen) = streams[draw.below(streams.len() as u64) as usize];
        Place { wire, direction, at: At::Byte(draw.below(seen.bytes)) }
    };
    (0..count).map(|_| place()).collect()
}

/// Every place where a field begins, or some of them. The main channel is the same for every codec, which
/// share its bytes.
fn fields(draw: &mut Draw<'_>, sample: usize) -> Vec<Place> {
    let own = CODECS.iter().position(|codec| *codec == draw.codec).unwrap() as u64;
    let all = draw.seen.iter().flat_map(|(&(wire, direction), seen)| {
        let step = if wire == Wire::Main { CODECS.len() as u64 } else { 1 };
        (own % step..seen.fields).step_by(step as usize).map(move |field| Place {
            wire,
            direction,
            at: At::Field(field),
        })
    });
    let all: Vec<_> = all.collect();
    match draw.scale {
        Scale::Full => all,
        Scale::Sample => (0..sample).map(|_| all[draw.below(all.len() as u64) as usize]).collect(),
    }
}

#[test]
fn a_connection_that_is_cut_anywhere_is_survived() {
    test("kinds::a_connection_that_is_cut_anywhere_is_survived", |draw| {
        let mut places = fields(draw, 4);
        places.extend(random_places(draw, draw.many(250, 2)));
        let cut = |place| {
            let end = if draw.below(2) == 0 { End::Fin } else { End::Reset };
            Fault::Line(place, Act::Cut(end))
        };
        places.into_iter().map(cut).collect()
    });
}

#[test]
fn a_stream_that_stalls_for_good_anywhere_is_survived() {
    test("kinds::a_stream_that_stalls_for_good_anywhere_is_survived", |draw| {
        let mut places = fields(draw, 2);
        places.extend(random_places(draw, draw.many(250, 1)));
        places.into_iter().map(|place| Fault::Line(place, Act::Stall)).collect()
    });
}

#[test]
fn a_stream_that_stalls_anywhere_and_goes_on_is_survived() {
    test("kinds::a_stream_that_stalls_anywhere_and_goes_on_is_survived", |draw| {
        let places = random_places(draw, draw.many(250, 2));
        places.into_iter().map(|place| Fault::Line(place, pause())).collect()
    });
}

#[test]
fn bytes_that_change_anywhere_are_survived() {
    test("kinds::bytes_that_change_anywhere_are_survived", |draw| {
        let places = random_places(draw, draw.many(500, 4));
        let mut faults = Vec::new();
        for place in places {
            let act = match draw.below(3) {
                0 => Act::Drop,
                1 => Act::Double,
                _ => Act::Flip(1 << draw.below(8)),
            };
            faults.push(match draw.below(8) {
                0 => Fault::Unchecked(place, act),
                _ => Fault::Line(place, act),
            });
        }
        faults
    });
}

#[test]
fn a_source_without_a_return_path_that_has_failed_has_its_guest_alone() {
    test("kinds::a_source_without_a_return_path_that_has_failed_has_its_guest_alone", |draw| {
        let mut places = random_places(draw, draw.many(150, 3));
        places.retain(|place| place.direction == Direction::Forward);
        let act = |place| {
            let act = match draw.below(6) {
                0 => Act::Stall,
                1 => Act::Drop,
                2 => Act::Flip(1 << draw.below(8)),
                3 => Act::Cut(End::Reset),
                _ => Act::Cut(End::Fin),
            };
            Fault::OneWay(place, act)
        };
        places.into_iter().map(act).collect()
    });
}

#[test]
fn a_channel_that_is_100_times_slower_than_the_others_is_survived() {
    test("kinds::a_channel_that_is_100_times_slower_than_the_others_is_survived", |draw| {
        let count = draw.many(20, 1) as u8;
        (0..count).map(|number| Fault::Slow(number % 2)).collect()
    });
}

#[test]
fn a_receiver_that_never_reads_is_survived() {
    test("kinds::a_receiver_that_never_reads_is_survived", |draw| {
        let all = [Wire::Main, Wire::Channel(0), Wire::Channel(1)].map(Deaf::One);
        let one = all[draw.below(3) as usize];
        let mut deaf = vec![Deaf::All];
        match draw.scale {
            Scale::Full => deaf.extend(all),
            Scale::Sample => deaf.push(one),
        }
        deaf.into_iter().map(Fault::Deaf).collect()
    });
}

#[test]
fn a_codec_that_the_other_side_has_not_or_that_fails_is_survived() {
    test("kinds::a_codec_that_the_other_side_has_not_or_that_fails_is_survived", |draw| {
        let others = CODECS.into_iter().filter(|other| *other != draw.codec);
        let mut faults: Vec<_> = others.map(Fault::Mismatch).collect();
        for side in Side::ALL {
            if side == Side::Relay && !draw.way.has_relay() {
                continue;
            }
            for call in [Call::Setup, Call::Work, Call::Cleanup] {
                let most = if call == Call::Work { 8 } else { 2 };
                for how in [Failing::Error, Failing::Panic, Failing::Hang] {
                    faults.extend((0..most).map(|nth| Fault::Codec(side, call, nth, how)));
                }
            }
        }
        if draw.scale == Scale::Sample {
            return (0..3).map(|_| faults[draw.below(faults.len() as u64) as usize]).collect();
        }
        faults
    });
}

#[test]
fn memory_and_devices_that_fail_are_survived() {
    test("kinds::memory_and_devices_that_fail_are_survived", |draw| {
        let mut faults = vec![Fault::Own(Own::Provide, 0), Fault::Own(Own::Store, 0)];
        for own in [Own::Read, Own::Write] {
            faults.extend((0..60).map(|_| Fault::Own(own, draw.below(200) as u32)));
        }
        faults.extend((0..20).map(|_| Fault::Own(Own::StateOut, draw.below(400) as u32)));
        faults.extend((0..2).map(|nth| Fault::Own(Own::StateIn, nth)));
        if draw.scale == Scale::Sample {
            return (0..3).map(|_| faults[draw.below(faults.len() as u64) as usize]).collect();
        }
        faults
    });
}

#[test]
fn a_cancellation_at_any_moment_is_survived() {
    test("kinds::a_cancellation_at_any_moment_is_survived", |draw| {
        // Up to twice as long as it takes where nothing else runs, or where much does.
        let takes = draw.takes.as_micros() as u64;
        let cancelled = |draw: &mut Draw<'_>| {
            let sides = if draw.way.has_relay() { 3 } else { 2 };
            let side = [Side::Source, Side::Destination, Side::Relay][draw.below(sides) as usize];
            let most = takes << (1 + draw.below(6));
            Fault::Cancel(side, draw.below(most) as u32)
        };
        (0..draw.many(250, 3)).map(|_| cancelled(draw)).collect()
    });
}

#[test]
fn repeat_a_fault() {
    repeat("kinds::repeat_a_fault");
}
