//! Prefix codes: from code lengths, or from an AECS, to tables by which bits are looked up.

/// The codes of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    pub(crate) literals: Huffman<1024>,
    pub(crate) distances: Huffman<256>,
}

/// A code whose words of each length are consecutive. Words of as many bits as `ROOM` has values are looked up
/// at once, longer ones bit by bit.
#[derive(Clone, Debug)]
pub(crate) struct Huffman<const ROOM: usize> {
    /// By the next bits: symbol << 4 | length; 0 when the word is longer, or there is none.
    short: [u16; ROOM],
    /// For each length how many words there are,
    pub(crate) count: [u16; 16],
    /// the first of them,
    pub(crate) first: [u16; 16],
    /// and where their symbols begin.
    offset: [u16; 16],
    symbols: [u16; 288],
}

/// What bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The word of a symbol, with so many bits.
    Symbol(u16, u32),
    /// The beginning of a word, perhaps.
    Short,
    /// No word.
    Nothing,
}

/// More words than there are of some length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oversubscribed;

impl Tables {
    /// Those of fixed blocks, RFC 1951, 3.2.6. Symbols that must not occur have codes.
    pub(super) fn fixed() -> Self {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        let mut tables = Self::default();
        let fits = tables.literals.assign(&lengths).and(tables.distances.assign(&[5; 32]));
        debug_assert_eq!(fits, Ok(()));
        tables
    }
}

impl<const ROOM: usize> Default for Huffman<ROOM> {
    fn default() -> Self {
        Self {
            short: [0; ROOM],
            count: [0; 16],
            first: [0; 16],
            offset: [0; 16],
            symbols: [0; 288],
        }
    }
}

impl<const ROOM: usize> Huffman<ROOM> {
    const SHORT_BITS: u32 = ROOM.trailing_zeros();

    /// Gives words to symbols by their lengths, of 0 to 15 bits (RFC 1951, 3.2.2).
    pub(crate) fn assign(&mut self, lengths: &[u8]) -> Result<(), Oversubscribed> {
        let mut count = [0; 16];
        for length in lengths {
            count[usize::from(*length)] += 1;
        }
        count[0] = 0;
        let (mut first, mut code) = ([0; 16], 0_u32);
        for length in 1..16 {
            code = (code + u32::from(count[length - 1])) << 1;
            first[length] = code.min(u16::MAX.into()) as u16;
        }
        let mut next = self.set(count, first)?;
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let place = &mut next[usize::from(*length)];
            self.symbols[usize::from(*place)] = symbol as u16;
            *place += 1;
        }
        self.fill();
        Ok(())
    }

    /// Takes words as they are; `symbols` gives the symbols of a length in their order.
    pub(crate) fn restore<'a>(
        &mut self,
        count: [u16; 16],
        first: [u16; 16],
        symbols: impl Iterator<Item = u16> + 'a,
    ) -> Result<(), Oversubscribed> {
        self.set(count, first)?;
        self.symbols.iter_mut().zip(symbols).for_each(|(place, symbol)| *place = symbol);
        self.fill();
        Ok(())
    }

    /// Sets how many words there are, and from where on; where each length's symbols go.
    fn set(&mut self, count: [u16; 16], first: [u16; 16]) -> Result<[u16; 16], Oversubscribed> {
        let mut offset = [0; 16];
        let mut total = 0_u32;
        for length in 1..16 {
            offset[length] = total as u16;
            total += u32::from(count[length]);
            let end = u32::from(first[length]) + u32::from(count[length]);
            let beyond = count[length] > 0 && end > 1 << length;
            if beyond || total as usize > self.symbols.len() {
                return Err(Oversubscribed);
            }
        }
        (self.count, self.first, self.offset) = (count, first, offset);
        Ok(offset)
    }

    fn fill(&mut self) {
        self.short.fill(0);
        for length in 1..=Self::SHORT_BITS {
            let (count, first) = (self.count[length as usize], self.first[length as usize]);
            for nth in 0..count {
                let symbol = self.symbols[usize::from(self.offset[length as usize] + nth)];
                let word = (first + nth).reverse_bits() >> (16 - length);
                for at in (usize::from(word)..ROOM).step_by(1 << length) {
                    self.short[at] = symbol << 4 | length as u16;
                }
            }
        }
    }

    /// Looks up the next bits, of which `held` count.
    #[inline(always)]
    pub(super) fn find(&self, bits: u64, held: u32) -> Found {
        let entry = self.short[bits as usize % ROOM];
        let length = u32::from(entry & 15);
        if length == 0 {
            self.find_long(bits, held)
        } else if length <= held {
            Found::Symbol(entry >> 4, length)
        } else {
            Found::Short
        }
    }

    #[inline(never)]
    fn find_long(&self, bits: u64, held: u32) -> Found {
        let mut code = 0_u16;
        for length in 1..16 {
            if length > held {
                return Found::Short;
            }
            code = code << 1 | (bits >> (length - 1) & 1) as u16;
            let at = length as usize;
            if code >= self.first[at] && code - self.first[at] < self.count[at] {
                let nth = code - self.first[at];
                return Found::Symbol(self.symbols[usize::from(self.offset[at] + nth)], length);
            }
        }
        Found::Nothing
    }

    /// The symbols of a length, in the order of their words.
    pub(crate) fn symbols(&self, length: usize) -> &[u16] {
        let from = usize::from(self.offset[length]);
        &self.symbols[from..from + usize::from(self.count[length])]
    }
}
