//! tables
use super::{DecodeError as Refusal, State};
pub(crate) const LITLEN_BITS: u32 = 11;
pub(crate) const LITLEN_MAIN: usize = 1 << LITLEN_BITS;
pub(crate) const LITLEN_TABLE: usize = 4096;
pub(crate) const DISTANCE_BITS: u32 = 8;
pub(crate) const DISTANCE_MAIN: usize = 1 << DISTANCE_BITS;
pub(crate) const DISTANCE_TABLE: usize = 1024;
pub(crate) const LITERAL: u32 = 1 << 31;
pub(crate) const EXCEPTIONAL: u32 = 1 << 15;
pub(crate) const SUBTABLE: u32 = 1 << 14;
pub(crate) const END_FLAG: u32 = 1 << 13;

const fn bases(first: u32, count: usize, per: u32, n0: usize) -> [u32; 32] {
    let mut r = [0; 32];
    let mut i = 0;
    let mut start = first;
    while i < count {
        let extra = if i < n0 { 0 } else { (i as u32) / per - 1 };
        r[i] = start << 16 | extra;
        start += 1 << extra;
        i += 1;
    }
    r
}
pub(crate) const LITLEN_ENTRIES: [u32; 288] = {
    let mut e = [EXCEPTIONAL; 288];
    let mut i = 0;
    while i < 256 {
        e[i] = LITERAL | (i as u32) << 16;
        i += 1;
    }
    e[256] = EXCEPTIONAL | END_FLAG;
    let b = bases(3, 28, 4, 8);
    i = 0;
    while i < 28 {
        e[257 + i] = b[i];
        i += 1;
    }
    e[285] = 258 << 16;
    e
};
pub(crate) const DISTANCE_ENTRIES: [u32; 32] = {
    let mut b = bases(1, 30, 2, 4);
    b[30] = EXCEPTIONAL;
    b[31] = EXCEPTIONAL;
    b
};

#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) litlen: [u32; LITLEN_TABLE],
    pub(crate) distance: [u32; DISTANCE_TABLE],
    pre: [u32; 128],
    lengths: [u8; 320 + 138],
}
pub(crate) struct Fixed {
    pub(crate) litlen: [u32; LITLEN_TABLE],
    pub(crate) distance: [u32; DISTANCE_TABLE],
}
pub(crate) static FIXED: std::sync::LazyLock<Fixed> = std::sync::LazyLock::new(|| {
    let mut t = Tables::new();
    let mut l = [8u8; 288];
    l[144..256].fill(9);
    l[256..280].fill(7);
    assert!(build(&l, &LITLEN_ENTRIES, &mut t.litlen, LITLEN_BITS));
    assert!(build(&[5; 32], &DISTANCE_ENTRIES, &mut t.distance, DISTANCE_BITS));
    Fixed { litlen: t.litlen, distance: t.distance }
});

impl Tables {
    pub(crate) fn new() -> Self {
        Self {
            litlen: [EXCEPTIONAL; LITLEN_TABLE],
            distance: [EXCEPTIONAL; DISTANCE_TABLE],
            pre: [0; 128],
            lengths: [0; 458],
        }
    }
    #[inline(never)]
    pub(crate) fn read(&mut self, s: &mut State, input: &[u8]) -> Result<(), Refusal> {
        const ORDER: [usize; 19] =
            [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        s.refill(input)?;
        let litlen = s.take(5) as usize + 257;
        let dist = s.take(5) as usize + 1;
        let pre = s.take(4) as usize + 4;
        if litlen > 286 || dist > 30 {
            return Err(Refusal::Malformed);
        }
        let mut pl = [0u8; 19];
        for (i, &o) in ORDER[..pre].iter().enumerate() {
            if i % 12 == 0 {
                s.refill(input)?;
            }
            pl[o] = s.take(3) as u8;
        }
        const E: [u32; 19] = {
            let mut e = [0; 19];
            let mut i = 0;
            while i < 19 {
                e[i] = (i as u32) << 16;
                i += 1;
            }
            e
        };
        if !build(&pl, &E, &mut self.pre, 7) {
            return Err(Refusal::Malformed);
        }
        let total = litlen + dist;
        let mut at = 0;
        while at < total {
            s.refill(input)?;
            // 14 bits a code at most
            let mut n = 0;
            while n < 4 && at < total {
                let e = self.pre[s.held as usize % 128];
                if e & EXCEPTIONAL != 0 {
                    return Err(Refusal::Malformed);
                }
                s.skip(e);
                let sym = e >> 16;
                if sym < 16 {
                    self.lengths[at] = sym as u8;
                    at += 1;
                } else {
                    let (v, c) = match sym {
                        16 => {
                            if at == 0 {
                                return Err(Refusal::Malformed);
                            }
                            (self.lengths[at - 1], 3 + s.take(2))
                        }
                        17 => (0, 3 + s.take(3)),
                        _ => (0, 11 + s.take(7)),
                    };
                    self.lengths[at..at + c as usize].fill(v);
                    at += c as usize;
                }
                n += 1;
            }
        }
        if at > total {
            return Err(Refusal::Malformed);
        }
        if self.lengths[256] == 0 {
            return Err(Refusal::Malformed);
        }
        if !build(&self.lengths[..litlen], &LITLEN_ENTRIES, &mut self.litlen, LITLEN_BITS) {
            return Err(Refusal::Malformed);
        }
        if !build(
            &self.lengths[litlen..total],
            &DISTANCE_ENTRIES,
            &mut self.distance,
            DISTANCE_BITS,
        ) {
            return Err(Refusal::Malformed);
        }
        Ok(())
    }
}

#[inline(always)]
fn entry(e: u32, length: u32) -> u32 {
    if e & (LITERAL | EXCEPTIONAL) != 0 {
        e | length
    } else {
        (e & 0xffff_0000) | length << 8 | ((e & 31) + length)
    }
}

pub(crate) fn build(lengths: &[u8], entries: &[u32], table: &mut [u32], bits: u32) -> bool {
    let mut counts = [0u16; 16];
    for &l in lengths {
        counts[l as usize & 15] += 1;
    }
    counts[0] = 0;
    let mut left = 1i32;
    for l in 1..16 {
        left = left * 2 - i32::from(counts[l]);
        if left < 0 {
            return false;
        }
    }
    let used: u16 = counts.iter().sum();
    let main = 1usize << bits;
    if left > 0 {
        table[..main].fill(EXCEPTIONAL);
        if used == 0 {
            return true;
        }
        if used != 1 || counts[1] != 1 {
            return false;
        }
    }
    let mut offsets = [0u16; 17];
    for l in 1..16 {
        offsets[l + 1] = offsets[l] + counts[l];
    }
    let mut sorted = [0u16; 288];
    for (sym, &l) in lengths.iter().enumerate() {
        if l != 0 {
            let o = &mut offsets[l as usize & 15];
            sorted[*o as usize] = sym as u16;
            *o += 1;
        }
    }
    // fill
    let mut code = 0usize; // reversed
    let mut at = 0usize;
    let mut size = 1usize;
    for length in 1..=bits {
        if at > 0 {
            table.copy_within(..size, size);
        }
        size *= 2;
        for _ in 0..counts[length as usize] {
            let sym = sorted[at] as usize;
            at += 1;
            table[code] = entry(entries[sym], length);
            code = next(code, length);
        }
    }
    // longer
    let mut room = main;
    let mut length = bits + 1;
    let mut i = 0;
    while at < used as usize && length < 16 {
        if i == counts[length as usize] {
            length += 1;
            i = 0;
            continue;
        }
        // new prefix
        let prefix = code & (main - 1);
        let mut sub = length - bits;
        let mut cap = i32::from(counts[length as usize] - i);
        while cap < 1 << sub && sub + bits < 15 {
            sub += 1;
            cap = (cap << 1) + i32::from(counts[(bits + sub) as usize]);
        }
        if room + (1 << sub) > table.len() {
            return false;
        }
        table[prefix] = EXCEPTIONAL | SUBTABLE | (room as u32) << 16 | sub;
        while at < used as usize && code & (main - 1) == prefix {
            if i == counts[length as usize] {
                length += 1;
                i = 0;
                continue;
            }
            let sym = sorted[at] as usize;
            at += 1;
            i += 1;
            let e = entry_sub(entries[sym], length, bits);
            let mut k = code >> bits;
            while k < 1 << sub {
                table[room + k] = e;
                k += 1 << (length - bits);
            }
            code = next(code, length);
        }
        room += 1 << sub;
    }
    true
}
fn entry_sub(e: u32, length: u32, bits: u32) -> u32 {
    entry(e, length - bits)
}

/// The next code of that length, in reversed bits.
#[inline(always)]
fn next(code: usize, length: u32) -> usize {
    let ones = (code ^ ((1 << length) - 1)) as u64;
    if ones == 0 {
        return 0;
    }
    let top = 1usize << (63 - ones.leading_zeros());
    (code & (top - 1)) | top
}
