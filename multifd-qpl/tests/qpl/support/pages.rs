//! Pages of every kind.

use multifd_core::PageSize;
use proptest::prelude::*;

/// Pages made of noise, of bytes of which some are frequent, of runs, and of what was there before
/// at any distance.
pub fn page() -> impl Strategy<Value = (PageSize, Vec<u8>)> {
    let piece = prop_oneof![
        (any::<u64>(), 1..600_usize).prop_map(|(seed, count)| Piece::Noise(seed, count)),
        (any::<u64>(), 1..64_u8, 1..5000_usize)
            .prop_map(|(seed, spread, count)| Piece::Skewed(seed, spread, count)),
        (any::<u8>(), 1..3000_usize).prop_map(|(byte, count)| Piece::Run(byte, count)),
        (1..40_000_usize, 3..5000_usize).prop_map(|(back, count)| Piece::Again(back, count)),
        (1..4096_usize, 3..20_usize).prop_map(|(back, count)| Piece::Again(back, count)),
        // Around the window, where a mistake would be.
        (4050..4150_usize, 3..5000_usize).prop_map(|(back, count)| Piece::Again(back, count)),
    ];
    let pieces = proptest::collection::vec(piece, 1..60);
    (0..PageSize::ALL.len(), pieces).prop_map(|(size, pieces)| {
        let page_size = PageSize::ALL[size];
        (page_size, fill(page_size.bytes(), &pieces))
    })
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    Noise(u64, usize),
    /// Bytes of which each next so many are half as frequent.
    Skewed(u64, u8, usize),
    Run(u8, usize),
    Again(usize, usize),
}

fn fill(page_bytes: usize, pieces: &[Piece]) -> Vec<u8> {
    let mut page = Vec::with_capacity(page_bytes + 5000);
    for &piece in pieces.iter().cycle() {
        match piece {
            Piece::Noise(seed, count) => {
                page.extend(random(seed).take(count).map(|word| (word >> 56) as u8));
            }
            Piece::Skewed(seed, spread, count) => {
                let bytes = random(seed).take(count).map(|word| {
                    let far = (word.leading_zeros() as u8).wrapping_mul(spread);
                    far.wrapping_add((word >> 20) as u8 % spread).wrapping_add(seed as u8)
                });
                page.extend(bytes);
            }
            Piece::Run(byte, count) => page.resize(page.len() + count, byte),
            Piece::Again(back, count) => {
                for _ in 0..count {
                    page.push(page.len().checked_sub(back).map_or(0, |at| page[at]));
                }
            }
        }
        if page.len() >= page_bytes {
            page.truncate(page_bytes);
            return page;
        }
    }
    unreachable!("there is at least one piece")
}

fn random(seed: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed | 1), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
    })
}
