//! The memory that is sent: packets of pages, by their shapes.

use multifd_core::PageSize;
use multifd_core::wire::RamPacket;

/// The most memory to plan for, in bytes: 16 TiB. At the slowest [`Speed`](crate::Speed), its
/// times still fit into 64 bits of nanoseconds.
pub const MAX_BYTES: u64 = 16 << 40;

/// Bytes in a page.
pub(crate) const PAGE: usize = PageSize::Kib4.bytes();

/// Pages in a full packet.
pub(crate) const PACKET_PAGES: u64 = PageSize::Kib4.page_count() as u64;

/// Bytes of a packet before its payload.
const HEADER_BYTES: u64 = RamPacket::bytes(PageSize::Kib4.page_count()) as u64;

/// One packet, as the simulation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) normal: u64,
    pub(crate) zero: u64,
    /// Bytes to which the normal pages are compressed.
    pub(crate) payload: u64,
}

impl Shape {
    pub(crate) fn pages(self) -> u64 {
        self.normal + self.zero
    }

    pub(crate) fn wire_bytes(self) -> u64 {
        HEADER_BYTES + self.payload
    }

    /// A part of the packet, with `pages` pages.
    fn cut(self, pages: u64) -> Self {
        let normal = (self.normal * pages + self.pages() / 2) / self.pages();
        let payload = (self.payload * normal).checked_div(self.normal).unwrap_or(0);
        Self { normal, zero: pages - normal, payload }
    }

    /// The packet with data in all of its pages, as compressible as its normal pages; `None` if it
    /// has none.
    fn dirtied(self) -> Option<Self> {
        let normal = self.pages();
        let payload = (self.payload * normal).checked_div(self.normal)?;
        Some(Self { normal, zero: 0, payload })
    }
}

/// Memory of any size: full packets of a sample, repeated in order.
#[derive(Clone, Debug)]
pub struct Workload {
    pages: u64,
    shapes: Vec<Shape>,
}

impl Workload {
    /// `pages` pages of the `shapes`, repeated in order. Without a shape, all pages are zero.
    pub(crate) fn new(pages: u64, mut shapes: Vec<Shape>) -> Self {
        shapes.retain(|shape| shape.pages() > 0);
        if shapes.is_empty() {
            shapes.push(Shape { normal: 0, zero: PACKET_PAGES, payload: 0 });
        }
        Self { pages, shapes }
    }

    /// `pages` pages of 4 KiB. A share of them, 0 to 1, is zero, spread evenly. The others are
    /// compressed by `ratio`: bytes of pages for each byte of payload, 1 or more.
    pub fn even(pages: u64, zero_share: f64, ratio: f64) -> Self {
        /// Enough packets for whole pages to add up to the share.
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

    /// Memory of the same size, with another share of zero pages, another ratio or both, spread
    /// evenly. What is not given stays as it is.
    #[must_use]
    pub fn with(self, zero_share: Option<f64>, ratio: Option<f64>) -> Self {
        if zero_share.is_none() && ratio.is_none() {
            return self;
        }
        let zero_share = zero_share.unwrap_or_else(|| self.zero_share());
        let ratio = ratio.or(self.ratio()).unwrap_or(1.0);
        Self::even(self.pages, zero_share, ratio)
    }

    /// Number of pages.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The share of pages that are zero, 0 to 1.
    pub fn zero_share(&self) -> f64 {
        let zero: u64 = self.shapes.iter().map(|shape| shape.zero).sum();
        let pages: u64 = self.shapes.iter().map(|shape| shape.pages()).sum();
        zero as f64 / pages as f64
    }

    /// Bytes of normal pages for each byte of payload; `None` without a normal page.
    pub fn ratio(&self) -> Option<f64> {
        let normal: u64 = self.shapes.iter().map(|shape| shape.normal).sum();
        let payload: u64 = self.shapes.iter().map(|shape| shape.payload).sum();
        (payload > 0).then(|| (normal * PAGE as u64) as f64 / payload as f64)
    }

    /// `pages` pages that the guest has written: all of them have data.
    pub(crate) fn dirtied(&self, pages: u64) -> Self {
        let shapes: Vec<_> = self.shapes.iter().filter_map(|shape| shape.dirtied()).collect();
        if shapes.is_empty() {
            let payload = PACKET_PAGES * PAGE as u64;
            return Self { pages, shapes: vec![Shape { normal: PACKET_PAGES, zero: 0, payload }] };
        }
        Self { pages, shapes }
    }

    /// All packets. The last one may have fewer pages.
    pub(crate) fn packets(&self) -> impl Iterator<Item = Shape> + '_ {
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
