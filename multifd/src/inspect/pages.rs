//! The pages of a packet, checked.

use multifd_core::wire::{BlockName, Pages};

use super::channel::{at, field};
use super::finding::{Connection, FindingKind, Place};
use super::report::Counts;
use super::tally::Tally;

impl Tally {
    /// Checks the pages of a packet of `round`. Before the main channel has listed the RAM blocks,
    /// nothing is checked.
    pub(super) fn pages(&mut self, place: Place, round: u64, pages: &Pages<'_>, counts: &Counts) {
        let Some(blocks) = &mut self.blocks else { return };
        let Some(block) = blocks.find(pages.block) else {
            let kind = FindingKind::UnknownBlock(pages.block.to_owned());
            return self.findings.add(at(place, field::NAME), kind);
        };
        blocks.count(block, counts);
        let mut again = Again::default();
        let mut outside = None;
        let offsets = || pages.normal.iter().chain(pages.zero).map(|offset| offset.get());
        for (slot, offset) in (0..).zip(offsets()) {
            // Both are multiples of the page size: a page that starts inside also ends inside.
            if offset >= blocks.bytes(block) {
                outside.get_or_insert((slot, offset));
                continue;
            }
            let page = offset / self.page_size.bytes() as u64;
            if let Some(other) = blocks.mark(block, page, round, place.connection) {
                let times = offsets().filter(|&other| other == offset).count();
                again.add(offset, other, place.connection, times);
            }
        }
        let name = blocks.name(block);
        if let Some((slot, offset)) = outside {
            let (block, bytes) = (name.clone(), blocks.bytes(block));
            let kind = FindingKind::OutsideBlock { offset, block, bytes };
            self.findings.add(at(place, field::SLOTS + 8 * slot), kind);
        }
        for kind in again.kinds(name) {
            self.findings.add(place, kind);
        }
    }
}

/// For each kind of repetition in a round, a packet's first such page and the number of such pages.
#[derive(Debug, Default)]
struct Again {
    on_another: Option<(u64, Connection, u64)>,
    in_packet: Option<(u64, u64)>,
    in_round: Option<(u64, u64)>,
}

impl Again {
    /// Notes a page that came on `other` earlier, and is in this packet so many `times`.
    fn add(&mut self, offset: u64, other: Connection, own: Connection, times: usize) {
        if other != own {
            self.on_another.get_or_insert((offset, other, 0)).2 += 1;
        } else if times > 1 {
            self.in_packet.get_or_insert((offset, 0)).1 += 1;
        } else {
            self.in_round.get_or_insert((offset, 0)).1 += 1;
        }
    }

    fn kinds(self, block: &BlockName) -> impl Iterator<Item = FindingKind> {
        let block = || block.clone();
        let on_another = self.on_another.map(|(offset, other, pages)| {
            FindingKind::TwoConnections { offset, block: block(), other, pages }
        });
        let in_packet = self.in_packet.map(|(offset, pages)| FindingKind::RepeatedInPacket {
            offset,
            block: block(),
            pages,
        });
        let in_round = self.in_round.map(|(offset, pages)| FindingKind::RepeatedInRound {
            offset,
            block: block(),
            pages,
        });
        [on_another, in_packet, in_round].into_iter().flatten()
    }
}
