//! A packet's payload while it is being made.

use std::ops::Range;

use crate::channel::Part;
use crate::ram::{GuestSlices, NormalPages, PageMemory};
use crate::wire::MAX_PAYLOAD;

/// What a codec sends for one packet, in the order in which it goes out: compressed bytes, parts
/// of memory that a device has written, and references to pages that are sent as they are.
///
/// The bytes lie in one buffer of 1 MiB, the most that a packet may carry, which is reused from
/// packet to packet.
#[derive(Debug)]
pub struct Payload {
    bytes: Box<[u8]>,
    used: usize,
    /// Bytes that are not in the buffer.
    elsewhere: usize,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug)]
enum Segment {
    /// A range of the buffer.
    Bytes(Range<usize>),
    /// A range of memory that the method has written.
    Part(PageMemory, Range<usize>),
    /// A range of the packet's normal pages.
    Pages(Range<usize>),
}

impl Default for Payload {
    fn default() -> Self {
        let bytes = vec![0; MAX_PAYLOAD].into();
        Self { bytes, used: 0, elsewhere: 0, segments: Vec::new() }
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
        self.elsewhere = 0;
        self.segments.clear();
    }

    /// Bytes in the payload, those of parts and pages included.
    pub fn len(&self) -> usize {
        self.used + self.elsewhere
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

    /// Appends the bytes in `range` of `memory`, without a copy: the payload holds a clone until it
    /// is cleared.
    ///
    /// # Panics
    /// With a range past the memory's end.
    pub fn push_part(&mut self, memory: &PageMemory, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= memory.as_slice().len(), "no such bytes");
        self.elsewhere += range.len();
        self.segments.push(Segment::Part(memory.clone(), range));
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
        self.elsewhere += range.len() * pages.page_size().bytes();
        match self.segments.last_mut() {
            Some(Segment::Pages(last)) if last.end == range.start => last.end = range.end,
            _ => self.segments.push(Segment::Pages(range)),
        }
    }

    /// What goes out, in order. `pages` are those that the payload was made from.
    pub fn parts<'a>(
        &'a self,
        pages: &NormalPages<'a>,
    ) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let pages = *pages;
        (0..).map_while(move |index| self.part(index, &pages))
    }

    /// A copy of all that goes out. `pages` are those that the payload was made from.
    pub fn to_vec(&self, pages: &NormalPages<'_>) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        let mut at = 0;
        for part in self.parts(pages) {
            at += part.copy_to(&mut bytes[at..]);
        }
        bytes
    }

    /// The part with the index `index`; `None` behind the last.
    pub(crate) fn part<'a>(&'a self, index: usize, pages: &NormalPages<'a>) -> Option<Part<'a>> {
        let page_bytes = pages.page_size().bytes();
        let part = match (self.segments.get(index)?, pages.private_if_any()) {
            (Segment::Bytes(range), _) => Part::Bytes(&self.bytes[range.clone()]),
            (Segment::Part(memory, range), _) => Part::Bytes(&memory.as_slice()[range.clone()]),
            (Segment::Pages(range), Some(private)) => {
                Part::Bytes(&private[range.start * page_bytes..range.end * page_bytes])
            }
            (Segment::Pages(range), None) => {
                Part::Guest(GuestSlices::new(pages.guest().subset(range.clone()), 0))
            }
        };
        Some(part)
    }
}
