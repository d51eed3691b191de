//! The decoder.

mod table;

use table::{
    DISTANCE_BITS, DISTANCE_MAIN, DISTANCE_TABLE, END_FLAG, EXCEPTIONAL, FIXED, LITERAL,
    LITLEN_BITS, LITLEN_MAIN, LITLEN_TABLE, SUBTABLE, Tables,
};

/// Why a stream is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is not one of DEFLATE, is cut short, or reaches back further than the window or the page's start.
    #[error("the stream is malformed, ends before its final block does, or reaches too far back")]
    Malformed,
    /// It ends before the page does.
    #[error("the stream inflates to {0} bytes, fewer than a page has")]
    Short(usize),
    /// It goes on when the page is full.
    #[error("the stream inflates to more than a page")]
    Long,
}

use DecodeError as Refusal;

/// What a copy of a match may write behind its end, and the longest match.
const MARGIN: usize = 320;

/// Restores pages of memory, each from a stream of its own.
#[derive(Debug)]
pub struct Decoder {
    input: Box<[u8]>,
    output: Box<[u8]>,
    tables: Box<Tables>,
    window: usize,
}

impl Decoder {
    /// For pages of up to `page_bytes`, from streams whose matches reach up to `window` bytes back.
    pub fn new(page_bytes: usize, window: usize) -> Self {
        Self {
            input: vec![0; page_bytes + 32].into(),
            output: vec![0; page_bytes + MARGIN].into(),
            tables: Box::new(Tables::new()),
            window,
        }
    }

    /// Restores `page` from the stream at the start of `stream`. Returns how many bytes the stream has.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(&mut self, stream: &[u8], page: &mut [u8]) -> Result<usize, DecodeError> {
        let n = stream.len();
        if self.input.len() < n + 16 {
            self.input = vec![0; n + 32].into();
        }
        self.input[..n].copy_from_slice(stream);
        self.input[n..n + 16].fill(0);
        let input = &self.input[..n + 16];
        let mut s = State { held: 0, count: 0, at: 0, out: 0 };
        loop {
            s.refill(input)?;
            let last = s.take(1) == 1;
            match s.take(2) {
                0 => {
                    s.count &= 63;
                    let spare = s.count / 8;
                    let at = s.at - spare as usize;
                    let Some(&[a, b, c, d]) = input.get(at..).and_then(|i| i.first_chunk::<4>())
                    else {
                        return Err(Refusal::Malformed);
                    };
                    let length = u16::from_le_bytes([a, b]);
                    if length != !u16::from_le_bytes([c, d]) || at + 4 + usize::from(length) > n {
                        return Err(Refusal::Malformed);
                    }
                    let length = usize::from(length);
                    if s.out + length > page.len() {
                        return Err(Refusal::Long);
                    }
                    self.output[s.out..][..length].copy_from_slice(&input[at + 4..][..length]);
                    s = State { held: 0, count: 0, at: at + 4 + length, out: s.out + length };
                }
                1 => block(
                    &mut s,
                    input,
                    &mut self.output,
                    &FIXED.litlen,
                    &FIXED.distance,
                    page.len(),
                    self.window,
                )?,
                2 => {
                    self.tables.read(&mut s, input)?;
                    block(
                        &mut s,
                        input,
                        &mut self.output,
                        &self.tables.litlen,
                        &self.tables.distance,
                        page.len(),
                        self.window,
                    )?;
                }
                _ => return Err(Refusal::Malformed),
            }
            if last {
                break;
            }
        }
        let read = s.at - (s.count & 63) as usize / 8;
        if read > n {
            return Err(Refusal::Malformed);
        }
        if s.out < page.len() {
            return Err(Refusal::Short(s.out));
        }
        if s.out > page.len() {
            return Err(Refusal::Long);
        }
        page.copy_from_slice(&self.output[..page.len()]);
        Ok(read)
    }
}

pub(crate) struct State {
    held: u64,
    count: u32,
    at: usize,
    out: usize,
}

impl State {
    #[inline(always)]
    fn refill(&mut self, input: &[u8]) -> Result<(), Refusal> {
        let Some(next) = input.get(self.at..).and_then(|i| i.first_chunk::<8>()) else {
            return Err(Refusal::Malformed);
        };
        self.held |= u64::from_le_bytes(*next).wrapping_shl(self.count);
        self.at += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
        Ok(())
    }
    #[inline(always)]
    fn take(&mut self, n: u32) -> u32 {
        let v = self.held & ((1 << n) - 1);
        self.held >>= n;
        self.count -= n;
        v as u32
    }
    #[inline(always)]
    fn skip(&mut self, entry: u32) {
        self.held = self.held.wrapping_shr(entry);
        self.count = self.count.wrapping_sub(entry & 63);
    }
}

#[inline(never)]
fn block(
    s0: &mut State,
    input: &[u8],
    output: &mut [u8],
    litlen: &[u32; LITLEN_TABLE],
    distance: &[u32; DISTANCE_TABLE],
    page: usize,
    window: usize,
) -> Result<(), Refusal> {
    let mut s = State { ..*s0 };
    loop {
        s.refill(input)?;
        // 56 bits: up to three literals of the main table, or one and a match of 48.
        let mut entry = litlen[s.held as usize % LITLEN_MAIN];
        if entry & LITERAL != 0 {
            s.skip(entry);
            let Some(to) = output.get_mut(s.out) else { return Err(Refusal::Long) };
            *to = (entry >> 16) as u8;
            s.out += 1;
            entry = litlen[s.held as usize % LITLEN_MAIN];
            if entry & LITERAL != 0 {
                s.skip(entry);
                let Some(to) = output.get_mut(s.out) else { return Err(Refusal::Long) };
                *to = (entry >> 16) as u8;
                s.out += 1;
                entry = litlen[s.held as usize % LITLEN_MAIN];
                if entry & LITERAL != 0 {
                    s.skip(entry);
                    let Some(to) = output.get_mut(s.out) else { return Err(Refusal::Long) };
                    *to = (entry >> 16) as u8;
                    s.out += 1;
                    continue;
                }
            }
        }
        if entry & EXCEPTIONAL != 0 {
            if entry & SUBTABLE != 0 {
                s.skip(LITLEN_BITS);
                let index =
                    (entry >> 16 & 0x7fff) as usize + (s.held as usize & ((1 << (entry & 15)) - 1));
                entry = litlen[index % LITLEN_TABLE];
                if entry & LITERAL != 0 {
                    s.skip(entry);
                    let Some(to) = output.get_mut(s.out) else { return Err(Refusal::Long) };
                    *to = (entry >> 16) as u8;
                    s.out += 1;
                    continue;
                }
            }
            if entry & EXCEPTIONAL != 0 {
                if entry & END_FLAG != 0 {
                    s.skip(entry & 63);
                    *s0 = s;
                    return Ok(());
                }
                return Err(Refusal::Malformed);
            }
        }
        let saved = s.held;
        s.skip(entry);
        let length = (entry >> 16) as usize
            + ((saved & ((1u64 << (entry & 63)) - 1)) >> (entry >> 8 & 31)) as usize;
        if s.count < 32 {
            s.refill(input)?;
        }
        let mut entry = distance[s.held as usize % DISTANCE_MAIN];
        if entry & EXCEPTIONAL != 0 {
            if entry & SUBTABLE == 0 {
                return Err(Refusal::Malformed);
            }
            s.skip(DISTANCE_BITS);
            entry = distance[((entry >> 16 & 0x7fff) as usize
                + (s.held as usize & ((1 << (entry & 15)) - 1)))
                % DISTANCE_TABLE];
            if entry & EXCEPTIONAL != 0 {
                return Err(Refusal::Malformed);
            }
        }
        let saved = s.held;
        s.skip(entry);
        let dist = (entry >> 16) as usize
            + ((saved & ((1u64 << (entry & 63)) - 1)) >> (entry >> 8 & 31)) as usize;
        if dist > s.out || dist > window {
            return Err(Refusal::Malformed);
        }
        if s.out >= page {
            return Err(Refusal::Long);
        }
        let (mut from, mut to) = (s.out - dist, s.out);
        s.out += length;
        let end = s.out;
        if dist >= 16 {
            copy16(output, from, to)?;
            if length > 16 {
                loop {
                    from += 16;
                    to += 16;
                    copy16(output, from, to)?;
                    if to + 16 >= end {
                        break;
                    }
                }
            }
        } else if dist == 1 {
            let Some(t) = output.get_mut(to - 1..to + length) else { return Err(Refusal::Long) };
            let b = t[0];
            t.fill(b);
        } else {
            // doubles the period until it is 16 or more
            let Some(t) = output.get_mut(from..end) else { return Err(Refusal::Long) };
            let mut at = dist;
            while at < t.len() {
                t[at] = t[at - dist];
                at += 1;
            }
        }
    }
}

#[inline(always)]
fn copy16(output: &mut [u8], from: usize, to: usize) -> Result<(), Refusal> {
    let Some(v) = output.get(from..).and_then(|o| o.first_chunk::<16>()) else {
        return Err(Refusal::Long);
    };
    let v = *v;
    let Some(t) = output.get_mut(to..).and_then(|o| o.first_chunk_mut::<16>()) else {
        return Err(Refusal::Long);
    };
    *t = v;
    Ok(())
}
