//! Which packet numbers have come.

/// The most numbers that are kept: 2 MiB of bits, enough for packets with 8 TiB of pages.
const MOST: u64 = 1 << 24;

/// The packet numbers that have come. The source has one counter for all channels, so a number that
/// comes twice or never means a packet too many or too few.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    words: Vec<u64>,
    count: u64,
    /// A number has come that is too large to be kept.
    beyond: bool,
}

impl Numbers {
    /// Adds a number. False if it is known to have come before.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if number >= MOST {
            self.beyond = true;
            return true;
        }
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(is_new);
        is_new
    }

    /// How many numbers below the highest have not come, and the first of them. `None` if that is not
    /// known.
    pub(super) fn missing(&self) -> Option<(u64, u64)> {
        let last = self.words.last().filter(|_| !self.beyond)?;
        let end = self.words.len() as u64 * 64 - u64::from(last.leading_zeros());
        let word = self.words.iter().position(|&word| word != u64::MAX).unwrap_or_default();
        let first = word as u64 * 64 + u64::from(self.words[word].trailing_ones());
        Some((end - self.count, first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_once() {
        let mut numbers = Numbers::default();
        for number in [0, 70, 63, 64] {
            assert!(numbers.insert(number));
            assert!(!numbers.insert(number));
        }
    }

    #[test]
    fn missing_numbers_are_counted_below_the_highest() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.missing(), None);
        (0..130).for_each(|number| assert!(numbers.insert(number)));
        assert_eq!(numbers.missing().unwrap().0, 0);
        numbers.insert(133);
        assert_eq!(numbers.missing(), Some((3, 130)));
    }

    #[test]
    fn a_number_from_far_beyond_takes_no_memory() {
        let mut numbers = Numbers::default();
        assert!(numbers.insert(u64::MAX) && numbers.insert(u64::MAX));
        assert_eq!((numbers.missing(), numbers.words.len()), (None, 0));
    }
}
