//! Each path decodes what each other makes, and counts what it did.

use std::collections::BTreeMap;

use crate::support::engines;
use crate::support::streams::text;
use multifd_conformance::ends::{Receiver, Sender, noise};
use multifd_core::PageSize;
use multifd_qpl::Path;

/// A page of each kind.
fn pages(page_bytes: usize) -> Vec<u8> {
    let mut last_byte = vec![0; page_bytes];
    last_byte[page_bytes - 1] = 1;
    let half = [noise(page_bytes / 2), text(page_bytes / 2)].concat();
    let repeated = noise(4096).repeat(page_bytes / 4096);
    [text(page_bytes), noise(page_bytes), vec![7; page_bytes], last_byte, half, repeated].concat()
}

#[test]
fn each_path_decodes_what_each_other_makes() {
    for (from, sending) in engines() {
        for (to, receiving) in engines() {
            for page_size in PageSize::ALL {
                let pages = pages(page_size.bytes());
                let payload = Sender::of_pages(&sending, None, page_size).send(&pages);
                let mut receiver = Receiver::of_pages(&receiving, page_size);
                let received = receiver.receive(&payload, pages.len() / page_size.bytes());
                let equal =
                    received.unwrap_or_else(|error| panic!("{from:?} to {to:?}: {error}")) == pages;
                assert!(equal, "{from:?} to {to:?}, pages of {page_size}");
            }
        }
    }
}

#[test]
fn pages_are_counted_by_the_engine_that_did_them_and_raw_ones_apart() {
    for (path, codec) in engines() {
        let (sent, received) = match path {
            Path::Hardware => ("hardware pages", "hardware pages"),
            Path::Software => ("software pages", "portable pages"),
            _ => ("portable pages", "portable pages"),
        };
        let mut sender = Sender::new(&codec, None);
        let mut receiver = Receiver::new(&codec);
        for _ in 0..3 {
            let payload = sender.send(&[text(2 * 4096), noise(4096)].concat());
            receiver.receive(&payload, 3).unwrap();
        }
        for (name, stats) in [(sent, sender.finish()), (received, receiver.finish())] {
            let counted: BTreeMap<_, _> = stats.iter().filter(|&(_, count)| count > 0).collect();
            assert_eq!(counted, BTreeMap::from([(name, 6), ("raw pages", 3)]), "{path}");
        }
    }
}

#[test]
fn the_path_that_registers_itself_is_the_automatic_one() {
    let registry = multifd_core::Registry::collected().unwrap();
    let codec = registry.by_name("qpl").unwrap();
    assert_eq!(Path::default(), Path::Auto);
    codec.require().unwrap();
}
