//! A look at some of a page's bytes, to tell what becomes of all.

use super::code::{self, LOGARITHM_BITS};

/// Bytes that are looked at, at most.
pub(super) const MOST: usize = 128;

/// Bytes from all over the page, and not always from the same place of what is aligned.
pub(super) fn bytes(page: &[u8]) -> impl ExactSizeIterator<Item = &u8> {
    let step = page.len().div_ceil(MOST) | 1;
    page.iter().step_by(step)
}

/// Bits of these bytes in a code that were made for them, without its header: each has the logarithm of one over its
/// share.
pub(super) fn bits_in_their_own_code(page: &[u8]) -> u64 {
    const LANES: usize = 8;
    let mut counts = [0_u16; 256];
    bytes(page).for_each(|&byte| counts[usize::from(byte)] += 1);
    let mut sums = [0.0; LANES];
    for counts in counts.chunks_exact(LANES) {
        for (sum, &count) in sums.iter_mut().zip(counts) {
            *sum += f32::from(count) * logarithm(count);
        }
    }
    let total = bytes(page).len() as u16;
    (f32::from(total) * logarithm(total) - sums.iter().sum::<f32>()) as u64
}

fn logarithm(value: u16) -> f32 {
    code::logarithm(value.into()) as f32 / (1 << LOGARITHM_BITS) as f32
}

/// Whether the bytes that were looked at, which take so many bits in some code, are hardly shorter in it.
pub(super) fn is_dense(page: &[u8], bits: u64) -> bool {
    bits * 32 >= bytes(page).len() as u64 * 8 * 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one_byte_takes_nothing_and_what_is_all_bytes_takes_all() {
        assert_eq!(bits_in_their_own_code(&[7; 4096]), 0);
        let two: Vec<_> = (0..4096).map(|at| (at / 2048) as u8).collect();
        let bits = bits_in_their_own_code(&two);
        assert!(bits.abs_diff(bytes(&two).len() as u64) <= 1, "{bits}");
        let count = bytes(&two).len();
        let noise = crate::noise(4096);
        // There are no more than 128 different ones among them.
        let most = (count as f64 * (count as f64).log2()) as u64;
        let bits = bits_in_their_own_code(&noise);
        assert!((most * 8 / 10..=most).contains(&bits), "{bits} of {most}");
    }

    #[test]
    fn a_sample_is_from_all_over_a_page_of_any_length() {
        for page_bytes in [1, 127, 128, 129, 4096, 65536] {
            let page: Vec<_> = (0..page_bytes).map(|at| (at * 255 / page_bytes) as u8).collect();
            let sample: Vec<_> = bytes(&page).copied().collect();
            assert!((1..=MOST).contains(&sample.len()) && sample.is_sorted(), "{page_bytes}");
            let last = page[page_bytes - 1 - page_bytes / 64];
            assert!(sample[0] == 0 && sample[sample.len() - 1] >= last, "{page_bytes}");
        }
    }
}
