//! A packet's payload while it is being made.

use std::ops::Range;

use crate::compression::MAX_PAYLOAD;
use crate::io::Part;
use crate::ram::NormalPages;

/// What a codec sends for one packet: compressed bytes and, where it sends pages as they are,
/// references to these pages, in the order in which they go out.
///
/// The bytes lie in one buffer of 1 MiB, the most that a packet may carry, which is reused from
/// packet to packet.
#[derive(Debug)]
pub struct Payload {
    bytes: Box<[u8]>,
    used: usize,
    page_bytes: usize,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug)]
enum Segment {
    /// A range of the buffer.
    Bytes(Range<usize>),
    /// A range of the packet's normal pages.
    Pages(Range<usize>),
}

impl Default for Payload {
    fn default() -> Self {
        let bytes = vec![0; MAX_PAYLOAD].into();
        Self { bytes, used: 0, page_bytes: 0, segments: Vec::new() }
    }
}

impl Payload {
    /// An empty payload with its buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the payload for the next packet.
    pub fn clear(&mut self) {
        self.used = 0;
        self.page_bytes = 0;
        self.segments.clear();
    }

    /// Bytes in the payload, those of referenced pages included.
    pub fn len(&self) -> usize {
        self.used + self.page_bytes
    }

    /// Whether the payload has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The unused rest of the buffer: write there, then [`advance`](Self::advance).
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used..]
    }

    /// Appends the first `count` bytes of [`spare`](Self::spare) to the payload.
    ///
    /// # Panics
    /// With more bytes than the buffer has left.
    pub fn advance(&mut self, count: usize) {
        let range = self.used..self.used + count;
        assert!(range.end <= self.bytes.len(), "more bytes than the buffer has");
        self.used = range.end;
        match self.segments.last_mut() {
            Some(Segment::Bytes(last)) => last.end = range.end,
            _ => self.segments.push(Segment::Bytes(range)),
        }
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// With more bytes than the buffer has left.
    pub fn push(&mut self, bytes: &[u8]) {
        self.spare()[..bytes.len()].copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// The bytes in `range` of the buffer, to fill in what is known only later, such as lengths.
    ///
    /// # Panics
    /// Where the range reaches past what has been appended.
    pub fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[..self.used][range]
    }

    /// Appends the normal page with the index `page`, as it is. It is not copied: the private
    /// copy, or the guest's memory where the method reads in place, is written out.
    pub fn push_page(&mut self, page: usize, pages: &NormalPages<'_>) {
        self.push_pages(page..page + 1, pages);
    }

    /// Appends the normal pages with the indices in `range`, as [`push_page`](Self::push_page).
    ///
    /// # Panics
    /// With indices past the last page.
    pub fn push_pages(&mut self, range: Range<usize>, pages: &NormalPages<'_>) {
        assert!(range.end <= pages.len(), "no such page");
        self.page_bytes += range.len() * pages.page_size().bytes();
        match self.segments.last_mut() {
            Some(Segment::Pages(last)) if last.end == range.start => last.end = range.end,
            _ => self.segments.push(Segment::Pages(range)),
        }
    }

    /// What goes out, in order. `pages` are those that the payload was made from.
    pub fn parts<'a>(&'a self, pages: &NormalPages<'a>) -> impl Iterator<Item = Part<'a>> {
        let (guest, private) = (pages.guest(), pages.private_if_any());
        let page_bytes = pages.page_size().bytes();
        self.segments.iter().map(move |segment| match (segment, private) {
            (Segment::Bytes(range), _) => Part::Bytes(&self.bytes[range.clone()]),
            (Segment::Pages(range), Some(private)) => {
                Part::Bytes(&private[range.start * page_bytes..range.end * page_bytes])
            }
            (Segment::Pages(range), None) => Part::Guest(guest.subset(range.clone())),
        })
    }
}
