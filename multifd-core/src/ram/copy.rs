//! The private copy of a page and the scan for zeros, in one pass.
//!
//! A codec must not read guest memory: a page that changes while it is compressed can break the
//! stream. So a page is copied first. A copy may tear where the guest writes meanwhile; the
//! source then sends the page again in the next round.

use std::mem::transmute;

use vm_memory::VolatileSlice;

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::uint8x16_t as Wide;
// What one load takes: 16 bytes, which any bits are.
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m128i as Wide;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Wide = u128;

/// Bytes that the scan looks at between two branches.
const STEP: usize = 128;

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
    if start.align_offset(align_of::<Wide>()) != 0 || page.len() % STEP != 0 {
        return leading_zeros_of_any(page);
    }
    for at in (0..page.len()).step_by(STEP) {
        prefetch_step(start.wrapping_add(page.len() + at));
        // SAFETY: `at` is inside the slice, whose memory the guard keeps.
        let loads = unsafe { start.add(at) }.cast::<Wide>();
        let mut seen = 0;
        for load in 0..STEP / size_of::<Wide>() {
            // SAFETY: `at + STEP <= page.len()`, so it is inside the slice.
            let load = unsafe { loads.add(load) };
            // SAFETY: it is inside the slice and aligned, since `start` and `at` are. The guest may
            // write it meanwhile, hence the volatile read.
            let load = unsafe { load.read_volatile() };
            // SAFETY: both have 16 bytes, and any bits are a `u128`.
            seen |= unsafe { transmute::<Wide, u128>(load) };
        }
        if seen != 0 {
            return at;
        }
    }
    page.len()
}

/// Asks the processor for the [`STEP`] bytes at `at`, which may be any address. The pages of a batch mostly
/// follow each other, and a processor hardly looks ahead beyond a page by itself: so the scan asks for as much of the
/// next page as it looks at in this one.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn prefetch_step(at: *const u8) {
    for line in (0..STEP).step_by(64) {
        // SAFETY: it is a hint. It reads nothing that a program could see, and no address makes it fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line).cast()) };
    }
}

/// Nothing elsewhere, nor in Miri: for aarch64, nightly Rust alone has it.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn prefetch_step(_: *const u8) {}

/// [`leading_zeros`] for memory that is not laid out in aligned loads, which no guest page is.
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
        for (start, len) in [(0, 300), (1, 200), (3, 128), (8, 256), (0, 256), (8, 100), (0, 0)] {
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
