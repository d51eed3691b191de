//! Taking a stream's fields out of bytes that come in pieces.

use std::mem;
use std::str;

use super::ram::Word;
use super::{StreamError, StreamErrorKind};
use crate::PageSize;

/// Why a field is not there.
#[derive(Debug)]
pub(super) enum Stop {
    /// Its last byte has not come yet. What has come is kept.
    Wait,
    /// It is against the format.
    Refused(StreamErrorKind),
}

impl From<StreamErrorKind> for Stop {
    fn from(kind: StreamErrorKind) -> Self {
        Self::Refused(kind)
    }
}

/// Where in the stream a decoder is, and what has come of a field whose end has not.
///
/// A field is taken whole or not at all: a decoder changes its state after each, and asks for the
/// same one again where it was told to [wait](Stop::Wait). Memory is taken for what has come, never
/// for a length that is claimed.
#[derive(Debug)]
pub(super) struct Input {
    gathered: Vec<u8>,
    /// The gathered field has been given out; what comes next is another one.
    given: bool,
    /// Bytes taken so far.
    offset: u64,
    /// The offset at which the current item starts, for errors.
    item: u64,
    what: &'static str,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { gathered: Vec::new(), given: false, offset: 0, item: 0, what: "the header" }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether nothing has come of the next field.
    pub(super) fn is_between_fields(&self) -> bool {
        self.given || self.gathered.is_empty()
    }

    /// The error with the place it belongs to.
    pub(super) fn error(&self, kind: StreamErrorKind) -> StreamError {
        let offset = match kind {
            StreamErrorKind::Truncated { .. } => self.offset,
            StreamErrorKind::Trailing { bytes } => self.offset - bytes as u64,
            _ => self.item,
        };
        StreamError { offset, kind }
    }

    /// The error of a stream that has ended before the field that was asked for.
    pub(super) fn truncated(&self) -> StreamErrorKind {
        StreamErrorKind::Truncated { what: self.what }
    }

    /// Notes that an item of the stream starts with the next field, of which some may have come.
    pub(super) fn begin_item(&mut self) {
        let pending = if self.given { 0 } else { self.gathered.len() };
        self.item = self.offset - pending as u64;
    }

    /// Takes `count` of the bytes, which the caller has looked at.
    pub(super) fn skip(&mut self, bytes: &mut &[u8], count: usize) {
        *bytes = &bytes[count..];
        self.offset += count as u64;
    }

    /// What comes next is at `offset`.
    pub(super) fn continue_at(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Takes note that the last `count` bytes taken are still to be decoded.
    pub(super) fn put_back(&mut self, count: usize) {
        self.offset -= count as u64;
    }

    /// The next byte, which stays where it is.
    pub(super) fn peek(&mut self, bytes: &[u8], what: &'static str) -> Result<u8, Stop> {
        self.what = what;
        bytes.first().copied().ok_or(Stop::Wait)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        bytes: &mut &[u8],
        what: &'static str,
    ) -> Result<[u8; N], Stop> {
        if self.is_between_fields() {
            if let Some(&array) = bytes.first_chunk() {
                self.skip(bytes, N);
                return Ok(array);
            }
        }
        let gathered = self.exact(bytes, N, what)?;
        gathered.try_into().map_err(|_| Stop::Wait)
    }

    pub(super) fn u8(&mut self, bytes: &mut &[u8], what: &'static str) -> Result<u8, Stop> {
        Ok(u8::from_be_bytes(self.array(bytes, what)?))
    }

    pub(super) fn u32(&mut self, bytes: &mut &[u8], what: &'static str) -> Result<u32, Stop> {
        Ok(u32::from_be_bytes(self.array(bytes, what)?))
    }

    pub(super) fn u64(&mut self, bytes: &mut &[u8], what: &'static str) -> Result<u64, Stop> {
        Ok(u64::from_be_bytes(self.array(bytes, what)?))
    }

    /// A word of the ram section, which is an item of its own.
    pub(super) fn word(&mut self, bytes: &mut &[u8], page_size: PageSize) -> Result<Word, Stop> {
        self.begin_item();
        Ok(Word::parse(self.u64(bytes, "the ram section")?, page_size)?)
    }

    /// A field of `size` bytes.
    pub(super) fn exact(
        &mut self,
        bytes: &mut &[u8],
        size: usize,
        what: &'static str,
    ) -> Result<&[u8], Stop> {
        self.gather(bytes, size, what)?;
        self.given = true;
        Ok(&self.gathered)
    }

    /// A field of `size` bytes, which are the caller's then.
    pub(super) fn owned(
        &mut self,
        bytes: &mut &[u8],
        size: usize,
        what: &'static str,
    ) -> Result<Box<[u8]>, Stop> {
        self.gather(bytes, size, what)?;
        Ok(mem::take(&mut self.gathered).into_boxed_slice())
    }

    /// A length byte and as many bytes; gives these.
    pub(super) fn short(&mut self, bytes: &mut &[u8], what: &'static str) -> Result<&[u8], Stop> {
        self.gather(bytes, 1, what)?;
        let length = usize::from(self.gathered[0]);
        self.gather(bytes, 1 + length, what)?;
        self.given = true;
        Ok(&self.gathered[1..])
    }

    /// A length byte and a name of as many bytes.
    pub(super) fn name(&mut self, bytes: &mut &[u8], what: &'static str) -> Result<&str, Stop> {
        Ok(name(self.short(bytes, what)?, what)?)
    }

    /// A field of a length byte, a name of as many bytes and a big-endian number. Gives the name's
    /// bytes and the number.
    pub(super) fn entry(
        &mut self,
        bytes: &mut &[u8],
        what: &'static str,
    ) -> Result<(&[u8], u64), Stop> {
        self.gather(bytes, 1, what)?;
        let name = 1..1 + usize::from(self.gathered[0]);
        self.gather(bytes, name.end + size_of::<u64>(), what)?;
        self.given = true;
        let number = self.gathered[name.end..].iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        Ok((&self.gathered[name], number))
    }

    /// Gathers until `size` bytes of the field are there.
    fn gather(&mut self, bytes: &mut &[u8], size: usize, what: &'static str) -> Result<(), Stop> {
        if mem::take(&mut self.given) {
            self.gathered.clear();
        }
        self.what = what;
        let count = size.saturating_sub(self.gathered.len()).min(bytes.len());
        self.gathered.extend_from_slice(&bytes[..count]);
        self.skip(bytes, count);
        if self.gathered.len() < size { Err(Stop::Wait) } else { Ok(()) }
    }
}

/// The bytes as a name: UTF-8, not empty, without a NUL.
pub(super) fn name<'b>(bytes: &'b [u8], what: &'static str) -> Result<&'b str, StreamErrorKind> {
    match str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() && !name.contains('\0') => Ok(name),
        _ => Err(StreamErrorKind::Name { what }),
    }
}
