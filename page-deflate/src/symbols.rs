//! The symbols of DEFLATE (RFC 1951, section 3.2.5).

use crate::LARGEST_WINDOW;
use crate::encode::bits::Bits;

/// Symbols for bytes, the end of the block, and lengths. The last two are never used, but have a
/// fixed code.
pub(crate) const LITLEN: usize = 288;

/// Symbols for distances. The last two are never used, but have a fixed code.
pub(crate) const DISTANCES: usize = 32;

/// The end of the block.
pub(crate) const END: usize = 256;

/// The length of the longest match, in bytes.
pub(crate) const LONGEST: usize = 258;

/// The length of the shortest match, in bytes.
pub(crate) const SHORTEST: usize = 3;

/// Symbols for lengths.
pub(crate) const LENGTHS: usize = 29;

/// Symbols for distances that are used.
pub(crate) const DISTANCES_USED: usize = 30;

/// A symbol is the first of so many lengths or distances, which extra bits tell apart.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) start: u16,
    pub(crate) extra: u8,
}

/// The lengths' symbols, from [`END`] + 1 on.
pub(crate) const LENGTH_RANGES: [Range; LENGTHS] = {
    let mut ranges = [Range { start: 0, extra: 0 }; LENGTHS];
    let (mut symbol, mut start) = (0, SHORTEST as u16);
    while symbol < LENGTHS - 1 {
        let extra = if symbol < 8 { 0 } else { symbol as u8 / 4 - 1 };
        ranges[symbol] = Range { start, extra };
        start += 1 << extra;
        symbol += 1;
    }
    ranges[LENGTHS - 1] = Range { start: LONGEST as u16, extra: 0 };
    ranges
};

/// The distances' symbols.
pub(crate) const DISTANCE_RANGES: [Range; DISTANCES] = {
    let mut ranges = [Range { start: 0, extra: 0 }; DISTANCES];
    let (mut symbol, mut start) = (0, 1_u16);
    while start as usize <= LARGEST_WINDOW {
        let extra = if symbol < 4 { 0 } else { symbol as u8 / 2 - 1 };
        ranges[symbol] = Range { start, extra };
        start += 1 << extra;
        symbol += 1;
    }
    ranges
};

/// The symbol of each length less [`SHORTEST`], less [`END`] + 1.
static LENGTH_SYMBOLS: [u8; LONGEST - SHORTEST + 1] = {
    let mut symbols = [0; LONGEST - SHORTEST + 1];
    let mut symbol = 0;
    while symbol < LENGTHS {
        let Range { start, extra } = LENGTH_RANGES[symbol];
        let mut at = start as usize - SHORTEST;
        let end = at + (1 << extra);
        // The longest has a symbol of its own, though the one before reaches it too.
        while at < end && at < symbols.len() {
            symbols[at] = symbol as u8;
            at += 1;
        }
        symbol += 1;
    }
    symbols
};

/// How many extra bits a symbol for bytes and lengths has.
pub(crate) const LITLEN_EXTRA: [u8; LITLEN] = {
    let mut extra = [0; LITLEN];
    let mut symbol = 0;
    while symbol < LENGTHS {
        extra[END + 1 + symbol] = LENGTH_RANGES[symbol].extra;
        symbol += 1;
    }
    extra
};

/// How many extra bits a distance's symbol has.
pub(crate) const DISTANCE_EXTRA: [u8; DISTANCES] = {
    let mut extra = [0; DISTANCES];
    let mut symbol = 0;
    while symbol < DISTANCES {
        extra[symbol] = DISTANCE_RANGES[symbol].extra;
        symbol += 1;
    }
    extra
};

/// The fixed code's lengths (RFC 1951, section 3.2.6).
pub(crate) const FIXED_LITLEN: [u8; LITLEN] = {
    let mut lengths = [8; LITLEN];
    let mut symbol = 144;
    while symbol < 280 {
        lengths[symbol] = if symbol < END { 9 } else { 7 };
        symbol += 1;
    }
    lengths
};

/// The same for distances.
pub(crate) const FIXED_DISTANCES: [u8; DISTANCES] = [5; DISTANCES];

/// Which symbol of the code for code lengths has its length when, in a header (RFC 1951, section 3.2.7).
pub(crate) const ORDER: [usize; 19] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The symbol of a length.
#[inline(always)]
pub(crate) fn of_length(length: u16) -> usize {
    END + 1 + usize::from(LENGTH_SYMBOLS[usize::from(length) - SHORTEST])
}

/// The extra bits behind the symbol of a length.
#[inline(always)]
pub(crate) fn length_extra(symbol: usize, length: u16) -> Bits {
    static RANGES: [Range; LENGTHS] = LENGTH_RANGES;
    RANGES[symbol - (END + 1)].extra_bits(length)
}

/// The symbol of a distance.
#[inline(always)]
pub(crate) fn of_distance(distance: u16) -> usize {
    let index = u32::from(distance) - 1;
    // Two symbols for each power of two, but for the first.
    let extra = (index | 2).ilog2() - 1;
    (2 * extra + (index >> extra)) as usize
}

/// The extra bits behind the symbol of a distance.
#[inline(always)]
pub(crate) fn distance_extra(symbol: usize, distance: u16) -> Bits {
    static RANGES: [Range; DISTANCES] = DISTANCE_RANGES;
    RANGES[symbol].extra_bits(distance)
}

impl Range {
    #[inline(always)]
    fn extra_bits(self, value: u16) -> Bits {
        Bits::new((value - self.start).into(), self.extra.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_in_its_symbols_range() {
        for length in SHORTEST as u16..=LONGEST as u16 {
            let Range { start, extra } = LENGTH_RANGES[of_length(length) - END - 1];
            assert!((start..start + (1 << extra)).contains(&length), "{length}");
        }
        // The RFC's table, where it is not regular.
        assert_eq!([3, 10, 11, 257, 258].map(of_length), [257, 264, 265, 284, 285]);
    }

    #[test]
    fn every_distance_is_in_its_symbols_range() {
        for distance in 1..=LARGEST_WINDOW as u16 {
            let Range { start, extra } = DISTANCE_RANGES[of_distance(distance)];
            assert!((start..start + (1 << extra)).contains(&distance), "{distance}");
        }
        assert_eq!([1, 4, 5, 7, 3072, 3073, 4096].map(of_distance), [0, 3, 4, 5, 22, 23, 23]);
    }
}
