//! Whatever a page holds, its chunk is one whole stream, and no distance in it passes the window.

use crate::support::inflate::inflate;
use crate::support::pages::page;
use crate::support::streams::{at_distance, deflate_wide, text};
use crate::support::{chunks, engines};
use multifd_conformance::ends::noise;
use multifd_core::PageSize;
use multifd_qpl::WINDOW;
use proptest::prelude::*;

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
