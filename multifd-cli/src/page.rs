//! Pages, as bytes.

use multifd::core::PageSize;

/// Bytes in a page of memory that the program makes up or reads from a file.
pub(crate) const PAGE: usize = PageSize::Kib4.bytes();

/// Whether all bytes are zero. It compares memory, which is faster than a loop over the bytes:
/// half of a guest's pages are zero and must be read to their ends.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    bytes.chunks(PAGE).all(|part| part == &ZEROS[..part.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_anywhere_in_a_page_of_any_size_is_seen() {
        for bytes in [0, 1, 100, PAGE, PAGE + 1, 4 * PAGE, 16 * PAGE] {
            let mut page = vec![0; bytes];
            assert!(is_zero(&page));
            for at in (0..bytes).step_by(997).chain(bytes.checked_sub(1)) {
                page[at] = 1;
                assert!(!is_zero(&page), "byte {at} of {bytes}");
                page[at] = 0;
            }
        }
    }
}
