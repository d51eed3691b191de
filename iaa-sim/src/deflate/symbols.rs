//! The symbols of lengths and distances, RFC 1951, 3.2.5.

/// A length or distance: its symbol, and the bits behind the symbol's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) symbol: usize,
    pub(super) extra: u32,
    pub(super) extra_bits: u32,
}

/// The symbol of a match's length, 3 to 258.
#[inline]
pub(super) fn length(length: usize) -> Symbol {
    let at = (length - 3) as u32;
    if at < 8 {
        return Symbol { symbol: 257 + at as usize, extra: 0, extra_bits: 0 };
    }
    if length == 258 {
        return Symbol { symbol: 285, extra: 0, extra_bits: 0 };
    }
    let extra_bits = at.ilog2() - 2;
    let symbol = 257 + 4 * (extra_bits + 1) + (at >> extra_bits & 3);
    Symbol { symbol: symbol as usize, extra: at & ((1 << extra_bits) - 1), extra_bits }
}

/// The symbol of a match's distance, 1 to 32768.
#[inline]
pub(super) fn distance(distance: usize) -> Symbol {
    let at = (distance - 1) as u32;
    if at < 2 {
        return Symbol { symbol: at as usize, extra: 0, extra_bits: 0 };
    }
    let extra_bits = at.ilog2() - 1;
    let symbol = 2 * (extra_bits + 1) + (at >> extra_bits & 1);
    Symbol { symbol: symbol as usize, extra: at & ((1 << extra_bits) - 1), extra_bits }
}

/// The lowest length of a symbol, 257 to 285, and how many bits of more follow.
pub(crate) const fn length_base(symbol: usize) -> (usize, u32) {
    match symbol - 257 {
        at @ 0..8 => (3 + at, 0),
        28 => (258, 0),
        at => (3 + ((4 + at % 4) << (at / 4 - 1)), at as u32 / 4 - 1),
    }
}

/// The lowest distance of a symbol, 0 to 29, and how many bits of more follow.
pub(crate) const fn distance_base(symbol: usize) -> (usize, u32) {
    match symbol {
        0..2 => (1 + symbol, 0),
        at => (1 + ((2 + at % 2) << (at / 2 - 1)), at as u32 / 2 - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_distance_comes_back_from_its_symbol() {
        for given in 3..=258 {
            let Symbol { symbol, extra, extra_bits } = length(given);
            let (base, bits) = length_base(symbol);
            assert_eq!((base + extra as usize, bits), (given, extra_bits));
            assert!(extra < 1 << bits);
        }
        for given in 1..=32768 {
            let Symbol { symbol, extra, extra_bits } = distance(given);
            let (base, bits) = distance_base(symbol);
            assert_eq!((base + extra as usize, bits), (given, extra_bits));
            assert!(extra < 1 << bits);
        }
    }

    #[test]
    fn symbols_are_those_of_the_rfc() {
        assert_eq!((length(3).symbol, length(10).symbol, length(11).symbol), (257, 264, 265));
        assert_eq!((length(257).symbol, length(258).symbol), (284, 285));
        assert_eq!(length_base(284), (227, 5));
        assert_eq!((distance(4).symbol, distance(5).symbol, distance(4096).symbol), (3, 4, 23));
        assert_eq!(distance_base(29), (24577, 13));
    }
}
