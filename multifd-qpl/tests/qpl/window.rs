//! Whatever a page holds, its chunk is one whole stream, and no distance in it passes the window.

use crate::support::inflate::inflate;
use crate::support::streams::{at_distance, deflate_wide, text};
use crate::support::{chunks, engines};
use multifd_conformance::ends::noise;
use multifd_core::PageSize;
use multifd_qpl::WINDOW;
use proptest::prelude::*;

/// Pages made of noise, of runs, and of what was there before at any distance.
fn page() -> impl Strategy<Value = (PageSize, Vec<u8>)> {
    let piece = prop_oneof![
        (any::<u64>(), 1..600_usize).prop_map(|(seed, count)| Piece::Noise(seed, count)),
        (any::<u8>(), 1..3000_usize).prop_map(|(byte, count)| Piece::Run(byte, count)),
        (1..40_000_usize, 3..5000_usize).prop_map(|(back, count)| Piece::Again(back, count)),
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
    Run(u8, usize),
    Again(usize, usize),
}

fn fill(page_bytes: usize, pieces: &[Piece]) -> Vec<u8> {
    let mut page = Vec::with_capacity(page_bytes + 5000);
    for &piece in pieces.iter().cycle() {
        match piece {
            Piece::Noise(seed, count) => {
                let mut state = seed | 1;
                page.extend((0..count).map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                }));
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

fn check(page_size: PageSize, page: &[u8]) {
    for (path, codec) in engines() {
        // Twice, since what one page leaves behind must not reach into the next.
        for chunk in chunks(&codec, page_size, &page.repeat(2)) {
            if chunk.len() == page.len() {
                assert!(chunk == page, "{path:?}, pages of {page_size}");
                continue;
            }
            let inflated = inflate(&chunk).unwrap();
            assert!(inflated.bytes == page, "{path:?}, pages of {page_size}");
            assert_eq!(inflated.read, chunk.len(), "{path:?}, pages of {page_size}");
            assert!(
                inflated.distance <= WINDOW,
                "{path:?}, pages of {page_size}: a distance of {}",
                inflated.distance
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn no_stream_has_a_distance_above_the_window((page_size, page) in page()) {
        check(page_size, &page);
    }
}

#[test]
fn pages_that_invite_large_distances_do_not_get_them() {
    for page_size in PageSize::ALL {
        for period in [4095, 4096, 4097, 5000, 8192, 16000, 32768] {
            let page: Vec<_> = noise(period).into_iter().cycle().take(page_size.bytes()).collect();
            check(page_size, &page);
        }
        check(page_size, &text(page_size.bytes()));
    }
}

#[test]
fn the_inflate_that_checks_sees_a_large_distance() {
    for distance in [1, 4, 5, 4096, 4097, 32768] {
        let inflated = inflate(&at_distance(distance, 65536)).unwrap();
        assert_eq!((inflated.bytes.len(), inflated.distance), (65536, distance));
    }
    let page = noise(20_000).repeat(2);
    let inflated = inflate(&deflate_wide(&page)).unwrap();
    assert!(inflated.bytes == page && inflated.distance == 20_000);
    assert_eq!(inflate(&[1, 2]), Err("the stream is cut short"));
}
