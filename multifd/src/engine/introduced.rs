//! Which migration a main channel is of, where connections prove it.

use std::collections::BTreeMap;

use super::connections::{Arrival, Connections};
use crate::transport::MigrationId;

/// The main channels that have proven which migration they are of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Introduced {
    mains: BTreeMap<Arrival, MigrationId>,
}

/// Where a channel belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// To the migration whose main channel is here.
    Here,
    /// To an attempt whose main channel was given up.
    GivenUp,
    /// To a migration that has no place here.
    Elsewhere,
}

impl Introduced {
    /// A connection has proven that it is the main channel of `migration`. What has gone is forgotten.
    pub(crate) fn add<H: Clone>(
        &mut self,
        arrival: Arrival,
        migration: MigrationId,
        connections: &Connections<H>,
    ) {
        let main = connections.main_arrival();
        self.mains.retain(|&at, _| main == Some(at) || connections.is_waiting(at));
        self.mains.insert(arrival, migration);
    }

    /// Where the channel of `migration` belongs, when `main`, the main channel, is there.
    ///
    /// A source connects its main channel first. So one that came before the main channel, and is not
    /// of its migration, is of an attempt that was given up.
    pub(crate) fn place(
        &self,
        arrival: Arrival,
        migration: MigrationId,
        main: Option<Arrival>,
    ) -> Option<Place> {
        let main = main?;
        match self.mains.get(&main) {
            Some(&own) if own == migration => Some(Place::Here),
            _ if arrival < main => Some(Place::GivenUp),
            _ => Some(Place::Elsewhere),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: MigrationId = MigrationId([1; 16]);
    const OTHER: MigrationId = MigrationId([2; 16]);

    /// A connection, silent or not.
    fn come(connections: &mut Connections<()>) -> Arrival {
        connections.add((), None, |()| true).unwrap().arrival
    }

    #[test]
    fn a_channel_is_here_if_it_is_of_the_main_channels_migration_and_else_late_or_early() {
        let mut connections = Connections::new(2, None, 10);
        let mut introduced = Introduced::default();
        let [before, second, first, after] = [(); 4].map(|()| come(&mut connections));
        for at in [before, after] {
            assert_eq!(introduced.place(at, ONE, connections.main_arrival()), None);
        }
        // Both have proven it, and one of them is the main channel.
        introduced.add(second, OTHER, &connections);
        introduced.add(first, ONE, &connections);
        assert!(connections.add_main(first, (), Vec::new(), |()| false));
        let main = connections.main_arrival();
        for at in [before, after] {
            assert_eq!(introduced.place(at, ONE, main), Some(Place::Here));
        }
        assert_eq!(introduced.place(before, OTHER, main), Some(Place::GivenUp));
        assert_eq!(introduced.place(after, OTHER, main), Some(Place::Elsewhere));
    }

    #[test]
    fn what_has_gone_is_forgotten_and_the_main_channel_never_is() {
        let mut connections = Connections::new(2, None, 10);
        let mut introduced = Introduced::default();
        let main = come(&mut connections);
        introduced.add(main, ONE, &connections);
        assert!(connections.add_main(main, (), Vec::new(), |()| false));
        for _ in 0..100 {
            let second = come(&mut connections);
            introduced.add(second, OTHER, &connections);
            connections.remove(second);
        }
        assert_eq!(introduced.mains.len(), 2);
        assert_eq!(introduced.mains.get(&main), Some(&ONE));
    }
}
