//! What is to be moved: packets of pages, by their shapes.

use multifd::core::PageSize;
use multifd::core::wire::RamPacket;

pub(super) const PAGE: usize = PageSize::Kib4.bytes();

/// Pages in a whole packet.
pub(super) const PACKET_PAGES: u64 = PageSize::Kib4.page_count() as u64;

/// Bytes of a packet before its payload.
const HEADER_BYTES: u64 = RamPacket::bytes(PageSize::Kib4.page_count()) as u64;

/// One packet, as far as the simulation looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) normal: u64,
    pub(super) zero: u64,
    /// What the normal pages are compressed to.
    pub(super) payload: u64,
}

impl Shape {
    pub(super) fn pages(self) -> u64 {
        self.normal + self.zero
    }

    pub(super) fn wire_bytes(self) -> u64 {
        HEADER_BYTES + self.payload
    }

    /// The part of it that has `pages` pages.
    fn cut(self, pages: u64) -> Self {
        let normal = (self.normal * pages + self.pages() / 2) / self.pages();
        let payload = (self.payload * normal).checked_div(self.normal).unwrap_or(0);
        Self { normal, zero: pages - normal, payload }
    }

    /// It, with data in all of its pages, as compressible as in those that have some.
    fn dirtied(self) -> Option<Self> {
        let normal = self.pages();
        let payload = (self.payload * normal).checked_div(self.normal)?;
        Some(Self { normal, zero: 0, payload })
    }
}

/// A memory of any size, as shapes of whole packets that come round again and again.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pages: u64,
    shapes: Vec<Shape>,
}

impl Workload {
    /// `pages` pages of the `shapes`, in order and then from the first again. Of a memory of which
    /// no packet was seen, all is zero.
    pub(super) fn new(pages: u64, mut shapes: Vec<Shape>) -> Self {
        shapes.retain(|shape| shape.pages() > 0);
        if shapes.is_empty() {
            shapes.push(Shape { normal: 0, zero: PACKET_PAGES, payload: 0 });
        }
        Self { pages, shapes }
    }

    /// `pages` pages of which a share is zero, spread evenly, and the others shrink by `ratio`.
    pub(super) fn even(pages: u64, zero_share: f64, ratio: f64) -> Self {
        /// Enough that a packet's whole pages add up to the share.
        const COUNT: u64 = 1000;
        let zeros_before =
            |packet: u64| ((packet * PACKET_PAGES) as f64 * zero_share).round() as u64;
        let shapes = (0..COUNT).map(|packet| {
            let zero = zeros_before(packet + 1) - zeros_before(packet);
            let normal = PACKET_PAGES - zero;
            let payload = ((normal * PAGE as u64) as f64 / ratio).round() as u64;
            Shape { normal, zero, payload }
        });
        Self::new(pages, shapes.collect())
    }

    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// The share of pages that are zero.
    pub(super) fn zero_share(&self) -> f64 {
        let zero: u64 = self.shapes.iter().map(|shape| shape.zero).sum();
        let pages: u64 = self.shapes.iter().map(|shape| shape.pages()).sum();
        zero as f64 / pages as f64
    }

    /// Bytes of normal pages for each byte of payload.
    pub(super) fn ratio(&self) -> Option<f64> {
        let normal: u64 = self.shapes.iter().map(|shape| shape.normal).sum();
        let payload: u64 = self.shapes.iter().map(|shape| shape.payload).sum();
        (payload > 0).then(|| (normal * PAGE as u64) as f64 / payload as f64)
    }

    /// What is sent of `pages` pages that the guest has written: none of them is zero.
    pub(super) fn dirtied(&self, pages: u64) -> Self {
        let shapes: Vec<_> = self.shapes.iter().filter_map(|shape| shape.dirtied()).collect();
        if shapes.is_empty() {
            let payload = PACKET_PAGES * PAGE as u64;
            return Self { pages, shapes: vec![Shape { normal: PACKET_PAGES, zero: 0, payload }] };
        }
        Self { pages, shapes }
    }

    /// All packets, the last one perhaps part full.
    pub(super) fn packets(&self) -> impl Iterator<Item = Shape> + '_ {
        let mut left = self.pages;
        self.shapes.iter().cycle().map_while(move |&shape| {
            let pages = shape.pages().min(left);
            left -= pages;
            match pages {
                0 => None,
                all if all == shape.pages() => Some(shape),
                some => Some(shape.cut(some)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_all_pages_and_no_others() {
        for pages in [1, 127, 128, 129, 10_000, 1_000_001] {
            for zero_share in [0.0, 0.3, 0.999, 1.0] {
                let workload = Workload::even(pages, zero_share, 2.0);
                assert_eq!(workload.packets().map(Shape::pages).sum::<u64>(), pages);
            }
        }
    }

    #[test]
    fn an_even_workload_has_its_share_and_its_ratio() {
        let workload = Workload::even(1 << 20, 0.09, 1.95);
        let zero: u64 = workload.packets().map(|packet| packet.zero).sum();
        assert!((zero as f64 / f64::from(1 << 20) - 0.09).abs() < 1e-4);
        assert!((workload.zero_share() - 0.09).abs() < 1e-4);
        assert!((workload.ratio().unwrap() - 1.95).abs() < 1e-3);
    }

    #[test]
    fn dirtied_pages_have_data_as_compressible_as_before() {
        let dirtied = Workload::even(1 << 20, 0.9, 3.0).dirtied(1000);
        assert_eq!((dirtied.pages(), dirtied.zero_share()), (1000, 0.0));
        assert!((dirtied.ratio().unwrap() - 3.0).abs() < 1e-2);
        let of_zeros = Workload::even(1 << 20, 1.0, 1.0).dirtied(1000);
        assert_eq!((of_zeros.zero_share(), of_zeros.ratio()), (0.0, Some(1.0)));
    }
}
