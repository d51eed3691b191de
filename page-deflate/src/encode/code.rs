//! Huffman codes (RFC 1951, section 3.2.2), nearly the best ones, quickly.

use super::bits::Bits;

/// A code for the symbols 0 to `N` - 1 that leaves no sequence of bits without a meaning.
#[derive(Debug)]
pub(super) struct Code<const N: usize> {
    /// The symbols that have a code, in order: the first so many.
    used: [u16; N],
    used_count: usize,
    /// Bits of each symbol's code: 0 where it has none.
    lengths: [u8; N],
    /// The code of each symbol that has one.
    bits: [Bits; N],
}

/// The logarithms have fractions of 1/8: finer ones gain a thousandth.
const FRACTION_BITS: u32 = 3;

/// No length may be longer.
const LONGEST: usize = 15;

/// The ideal lengths, in fractions, are not above that: shares are 1/2^17 or more.
const IDEALS: usize = (17 << FRACTION_BITS) + 1;

impl<const N: usize> Code<N> {
    pub(super) fn new() -> Self {
        Self { used: [0; N], used_count: 0, lengths: [0; N], bits: [Bits::NONE; N] }
    }

    /// The symbols that have a code, in order.
    pub(super) fn used(&self) -> &[u16] {
        &self.used[..self.used_count]
    }

    pub(super) fn lengths(&self) -> &[u8; N] {
        &self.lengths
    }

    /// The code of each symbol, once [`assign`](Self::assign) has made them.
    pub(super) fn bits(&self) -> &[Bits; N] {
        &self.bits
    }

    /// Chooses lengths of up to `longest` bits for symbols that occur so many times, less than 2^17
    /// in all.
    ///
    /// An ideal length is the logarithm of one over the symbol's share. They are rounded, just enough
    /// to make them a code; left-over code space goes to symbols that can use it.
    pub(super) fn fit(&mut self, frequencies: &[u16; N], longest: usize) {
        debug_assert!(longest <= LONGEST && N <= 1 << longest);
        self.use_those_that_occur(frequencies);
        self.lengths.fill(0);
        if self.used_count < 2 {
            return self.fit_two();
        }
        let ideals = self.ideals(frequencies);
        let ideals = &ideals[..self.used_count];
        let at_most = at_most(ideals);
        let whole = 1 << longest;
        let mut up = 0;
        let mut taken = share(&at_most, longest, up);
        while taken > whole {
            up += 1;
            taken = share(&at_most, longest, up);
        }
        for (&symbol, &ideal) in self.used[..self.used_count].iter().zip(ideals) {
            let length = (usize::from(ideal) + up) >> FRACTION_BITS;
            self.lengths[usize::from(symbol)] = length.clamp(1, longest) as u8;
        }
        self.give_away(whole - taken, longest);
    }

    fn use_those_that_occur(&mut self, frequencies: &[u16; N]) {
        let mut count = 0;
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            self.used[count] = symbol as u16;
            count += usize::from(frequency > 0);
        }
        self.used_count = count;
    }

    /// The code for one symbol, or for none. It has two, since not every decoder takes one that
    /// leaves sequences of bits without a meaning.
    fn fit_two(&mut self) {
        let other = if self.used_count == 0 { 0 } else { self.used[0] };
        (self.used[0], self.used[1]) = if other == 0 { (0, 1) } else { (0, other) };
        self.used_count = 2;
        for &symbol in &self.used[..2] {
            self.lengths[usize::from(symbol)] = 1;
        }
    }

    /// The ideal length of each symbol that is used, in fractions of a bit.
    fn ideals(&self, frequencies: &[u16; N]) -> [u8; N] {
        let total = fractions(frequencies.iter().map(|&frequency| u32::from(frequency)).sum());
        let mut ideals = [0; N];
        for (&symbol, ideal) in self.used().iter().zip(&mut ideals) {
            *ideal = (total - fractions(frequencies[usize::from(symbol)].into())) as u8;
        }
        ideals
    }

    /// Makes codes shorter until nothing is left. What is left is a multiple of what the longest
    /// code takes, so that one can always be: there are two symbols or more, which, if they all had
    /// the length 1, would leave nothing.
    fn give_away(&mut self, mut left: u32, longest: usize) {
        while left > 0 {
            for &symbol in &self.used[..self.used_count] {
                let length = &mut self.lengths[usize::from(symbol)];
                let taken = 1 << (longest - usize::from(*length));
                if taken <= left && *length > 1 {
                    left -= taken;
                    *length -= 1;
                }
            }
        }
    }

    /// Takes a code as it is: lengths that are complete.
    pub(super) fn set(&mut self, lengths: &[u8]) {
        self.lengths.fill(0);
        self.lengths[..lengths.len()].copy_from_slice(lengths);
        let frequencies = self.lengths.map(u16::from);
        self.use_those_that_occur(&frequencies);
        self.assign();
    }

    /// Makes the codes of the lengths.
    pub(super) fn assign(&mut self) {
        let mut counts = [0_u16; LONGEST + 1];
        for &symbol in self.used() {
            counts[usize::from(self.lengths[usize::from(symbol)])] += 1;
        }
        let mut next = [0; LONGEST + 1];
        for length in 1..LONGEST {
            next[length + 1] = (next[length] + counts[length]) << 1;
        }
        for &symbol in &self.used[..self.used_count] {
            let length = self.lengths[usize::from(symbol)];
            let next = &mut next[usize::from(length)];
            self.bits[usize::from(symbol)] = Bits::code(*next, length.into());
            *next += 1;
        }
    }
}

/// The logarithm to the base 2, in fractions.
fn fractions(value: u32) -> u32 {
    logarithm(value) as u32 >> (LOGARITHM_BITS - FRACTION_BITS)
}

/// Bits of a logarithm's fraction.
pub(super) const LOGARITHM_BITS: u32 = 23;

/// The logarithm to the base 2, times 2 to the power of [`LOGARITHM_BITS`], at most 0.09 too small; some number for 0.
#[inline(always)]
pub(super) fn logarithm(value: u32) -> i32 {
    // A float is an exponent and a mantissa, which between powers of two is nearly the logarithm.
    (value as f32).to_bits() as i32 - 1_f32.to_bits() as i32
}

/// For each ideal length, how many symbols have it or a shorter one.
fn at_most(ideals: &[u8]) -> [u16; IDEALS] {
    let mut counts = [0; IDEALS];
    for &ideal in ideals {
        counts[usize::from(ideal)] += 1;
    }
    let mut sum = 0;
    for count in &mut counts {
        sum += *count;
        *count = sum;
    }
    counts
}

/// What the lengths would take of all sequences of `longest` bits, if ideal lengths were rounded up
/// from so many fractions below.
fn share(at_most: &[u16; IDEALS], longest: usize, up: usize) -> u32 {
    let (mut shorter, mut taken) = (0, 0);
    for length in 1..=longest {
        let ideal = if length < longest {
            (((length + 1) << FRACTION_BITS) - 1).checked_sub(up)
        } else {
            Some(IDEALS - 1)
        };
        let up_to = ideal.map_or(0, |ideal| u32::from(at_most[ideal]));
        taken += (up_to - shorter) << (longest - length);
        shorter = up_to;
    }
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const N: usize = 288;

    fn frequencies() -> impl Strategy<Value = [u16; N]> {
        let one = (0..N, prop_oneof![Just(1_u16), 1..30_u16, 1..60_000_u16]);
        proptest::collection::vec(one, 0..600).prop_map(|symbols| {
            let mut frequencies = [0; N];
            let mut left = u16::MAX;
            for (symbol, count) in symbols {
                let count = count.min(left);
                left -= count;
                frequencies[symbol] += count;
            }
            frequencies
        })
    }

    fn bits(frequencies: &[u16; N], code: &Code<N>) -> u32 {
        let products = frequencies.iter().zip(code.lengths());
        products.map(|(&count, &length)| u32::from(count) * u32::from(length)).sum()
    }

    proptest! {
        #[test]
        fn every_code_is_complete_and_has_the_symbols_that_occur(
            frequencies in frequencies(),
            longest in 9..=LONGEST,
        ) {
            let mut code = Code::new();
            code.fit(&frequencies, longest);
            let lengths = code.lengths().iter().copied().filter(|&length| length > 0);
            prop_assert!(lengths.clone().all(|length| usize::from(length) <= longest));
            let taken: u32 = lengths.map(|length| 1 << (longest - usize::from(length))).sum();
            prop_assert_eq!(taken, 1 << longest);

            let have_one: Vec<_> =
                (0..N as u16).filter(|&symbol| code.lengths[usize::from(symbol)] > 0).collect();
            prop_assert_eq!(code.used(), have_one);
            let occur = (0..N).filter(|&symbol| frequencies[symbol] > 0).count();
            prop_assert_eq!(code.used().len(), occur.max(2));
            for (&frequency, &length) in frequencies.iter().zip(code.lengths()) {
                prop_assert!(frequency == 0 || length > 0);
            }
        }
    }

    #[test]
    fn a_code_is_nearly_as_short_as_the_symbols_shares_allow() {
        for spread in [3, 10, 30, 100, 280] {
            let frequencies: [u16; N] = std::array::from_fn(|at| {
                (2000.0 * (-(at as f64) / f64::from(spread)).exp()) as u16
            });
            let total: f64 = frequencies.iter().copied().map(f64::from).sum();
            let entropy: f64 = frequencies
                .iter()
                .filter(|&&count| count > 0)
                .map(|&count| f64::from(count) * (total / f64::from(count)).log2())
                .sum();
            let mut code = Code::new();
            code.fit(&frequencies, LONGEST);
            let bits = f64::from(bits(&frequencies, &code));
            assert!(bits < 1.03 * entropy, "{spread}: {bits} bits for {entropy}");
        }
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        let mut code = Code::<8>::new();
        // The example of section 3.2.2.
        code.lengths = [3, 3, 3, 3, 3, 2, 4, 4];
        code.used = [0, 1, 2, 3, 4, 5, 6, 7];
        code.used_count = 8;
        code.assign();
        let codes = [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111];
        for ((bits, code), length) in code.bits().iter().zip(codes).zip(code.lengths) {
            assert_eq!(*bits, Bits::code(code, length.into()));
        }
    }
}
