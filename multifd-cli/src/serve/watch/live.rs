//! A migration while it runs.

use std::time::{Duration, Instant};

use multifd::Stats;

use super::clock;
use super::events::{Event, Events};
use super::migration::{About, End, Ended, How, Migration, Moved, Who, short};
use super::rounds::{Round, Rounds};
use super::view::Totals;

/// A migration that runs.
pub(super) struct Live {
    pub(super) who: Who,
    pub(super) about: About,
    began: String,
    since: Instant,
    rounds: Rounds,
    /// The most that was ever said.
    cpu: Duration,
}

impl Live {
    /// A migration that begins now, with this number.
    pub(super) fn new(id: u64, mut about: About) -> Self {
        let who = Who {
            id,
            uuid: short(std::mem::take(&mut about.uuid)),
            peer: short(std::mem::take(&mut about.peer)),
            certificate: about.certificate.take().map(short),
        };
        let (began, since) = (clock::now(), Instant::now());
        Self { who, about, began, since, rounds: Rounds::default(), cpu: Duration::ZERO }
    }

    /// Looks at its counters, and has events say what is new.
    pub(super) fn look(&mut self, events: &Events) {
        let over = self.rounds.look(&self.about.from.snapshot(), self.since.elapsed());
        if let Some(round) = over {
            self.say(&round, events);
        }
    }

    /// As it is now. Adds what it has moved to `totals`.
    pub(super) fn shown(&mut self, events: &Events, totals: &mut Totals) -> Migration {
        self.look(events);
        self.look_at_cpu();
        self.migration(totals, true)
    }

    /// As it is at its end, which this is. Adds what it has moved to `totals`.
    pub(super) fn end(&mut self, ended: Ended, events: &Events, totals: &mut Totals) -> Migration {
        self.look(events);
        self.look_at_cpu();
        let done = matches!(ended.how, How::Done { .. });
        let over = self.rounds.finish(&self.about.from.snapshot(), self.since.elapsed(), done);
        for round in over {
            self.say(&round, events);
        }
        let end = End::new(ended, clock::now());
        Migration { end: Some(end), ..self.migration(totals, false) }
    }

    /// Only for whoever asks: it takes a look at each thread.
    fn look_at_cpu(&mut self) {
        self.cpu = self.cpu.max((self.about.cpu)());
    }

    fn say(&self, round: &Round, events: &Events) {
        events.say(&Event::Round { id: self.who.id, uuid: &self.who.uuid, round });
    }

    fn migration(&self, totals: &mut Totals, by_channel: bool) -> Migration {
        let About { from, to, from_codec, to_codec, .. } = &self.about;
        let time = self.since.elapsed();
        let moved = |codec: &str, stats: &Stats| {
            let moved = Moved::new(codec, stats, time);
            if by_channel { moved.by_channel(stats) } else { moved }
        };
        let stats = from.snapshot();
        totals.from.add(&stats);
        let from = moved(from_codec, &stats);
        let to = to.as_ref().map(|to| {
            let stats = to.snapshot();
            totals.to.add(&stats);
            moved(to_codec.as_deref().unwrap_or_default(), &stats)
        });
        totals.cpu += self.cpu;
        Migration {
            who: self.who.clone(),
            began: self.began.clone(),
            seconds: time.as_secs_f64(),
            cpu_seconds: self.cpu.as_secs_f64(),
            from,
            to,
            round: self.rounds.under_way(),
            rounds: self.rounds.over(),
            rounds_forgotten: self.rounds.forgotten(),
            end: None,
        }
    }
}
