//! The private copy of a page and the scan for zeros, in one pass.
//!
//! A codec must not read guest memory: a page that changes while it is compressed can break the
//! stream. So a page is copied first. A copy may tear where the guest writes meanwhile; the
//! source then sends the page again in the next round.

use vm_memory::VolatileSlice;

/// Bytes that the scan looks at between two branches.
const STEP: usize = 64;

/// Copies `page` to `private` unless it is all zero. Returns whether it was copied.
///
/// Each byte of guest memory is read once: what the scan has seen to be zero is filled in, not
/// read again, so that the copy is of what was scanned.
///
/// # Panics
/// Where the two have different lengths.
pub fn copy_unless_zero(page: VolatileSlice<'_>, private: &mut [u8]) -> bool {
    assert_eq!(page.len(), private.len(), "the private copy is as large as the page");
    let zeros = leading_zeros(page);
    if zeros == private.len() {
        return false;
    }
    let (head, tail) = private.split_at_mut(zeros);
    head.fill(0);
    page.offset(zeros).expect("the zeros are inside the page").copy_to(tail);
    true
}

/// Whether `page` is all zero.
pub fn is_zero(page: VolatileSlice<'_>) -> bool {
    leading_zeros(page) == page.len()
}

/// A number of bytes at the start of `page` that are zero: all, where the page is zero, else a
/// multiple of [`STEP`].
fn leading_zeros(page: VolatileSlice<'_>) -> usize {
    let guard = page.ptr_guard();
    let start = guard.as_ptr();
    if start.align_offset(align_of::<u64>()) != 0 || page.len() % STEP != 0 {
        return leading_zeros_of_any(page);
    }
    for at in (0..page.len()).step_by(STEP) {
        // SAFETY: `at` is inside the slice, whose memory the guard keeps.
        let words = unsafe { start.add(at) }.cast::<u64>();
        let mut seen = 0;
        for word in 0..STEP / size_of::<u64>() {
            // SAFETY: `at + STEP <= page.len()`, so the word is inside the slice.
            let word = unsafe { words.add(word) };
            // SAFETY: the word is inside the slice and aligned, since `start` and `at` are. The
            // guest may write it meanwhile, hence the volatile read; any bits are a `u64`.
            seen |= unsafe { word.read_volatile() };
        }
        if seen != 0 {
            return at;
        }
    }
    page.len()
}

/// [`leading_zeros`] for memory that is not laid out in aligned words, which no guest page is.
fn leading_zeros_of_any(page: VolatileSlice<'_>) -> usize {
    let mut step = [0_u8; STEP];
    let mut at = 0;
    while let Ok(rest) = page.offset(at) {
        let copied = rest.copy_to(&mut step);
        if copied == 0 || step[..copied].iter().any(|&byte| byte != 0) {
            break;
        }
        at += copied;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_makes_a_page_not_zero_and_the_copy_equal() {
        let mut page = vec![0u8; 4096];
        // Miri takes minutes for every byte.
        for at in (0..page.len()).step_by(if cfg!(miri) { 509 } else { 1 }) {
            page[at] = 1;
            let mut copy = vec![0xaa; 4096];
            assert!(copy_unless_zero(VolatileSlice::from(&mut page[..]), &mut copy), "{at}");
            assert!(copy == page, "{at}");
            page[at] = 0;
        }
    }

    #[test]
    fn a_zero_page_is_not_copied() {
        let mut page = vec![0u8; 4096];
        let mut copy = vec![0xaa; 4096];
        assert!(!copy_unless_zero(VolatileSlice::from(&mut page[..]), &mut copy));
        assert!(copy.iter().all(|&byte| byte == 0xaa));
    }

    #[test]
    fn memory_of_any_alignment_and_length_is_scanned() {
        let mut memory = vec![0u8; 300];
        for (start, len) in [(0, 300), (1, 200), (3, 64), (8, 100), (0, 0)] {
            let zeros = leading_zeros(VolatileSlice::from(&mut memory[start..start + len]));
            assert_eq!(zeros, len, "{start}, {len}");
            if len > 0 {
                memory[start + len - 1] = 1;
                assert!(!is_zero(VolatileSlice::from(&mut memory[start..start + len])));
                memory[start + len - 1] = 0;
            }
        }
    }
}
