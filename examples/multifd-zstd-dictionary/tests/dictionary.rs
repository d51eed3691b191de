//! What is the dictionary's: that it is used, that both sides must have it, and what may be one.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use multifd_conformance::ends::{PAGE_BYTES, Receiver, Sender, noise};
use multifd_core::codec::PageMethods;
use multifd_core::{Availability, MultiFdMethods};
use multifd_zstd_dictionary::ZstdDictionary;

fn codec(dictionary: &[u8]) -> PageMethods<ZstdDictionary> {
    PageMethods::new(ZstdDictionary::new(dictionary))
}

#[test]
fn a_page_that_the_dictionary_holds_takes_a_few_bytes() {
    let pages = noise(2 * PAGE_BYTES);
    let codec = codec(&pages);
    let payload = Sender::new(&codec, None).send(&pages);
    assert!(payload.len() < 100, "{} bytes", payload.len());
    assert!(Receiver::new(&codec).receive(&payload, 2).unwrap() == pages);
}

#[test]
fn a_page_made_with_another_dictionary_is_refused() {
    let mut dictionary = noise(PAGE_BYTES);
    let payload = Sender::new(&codec(&dictionary), None).send(&dictionary);
    dictionary[PAGE_BYTES / 2] ^= 1;
    let refused = Receiver::new(&codec(&dictionary)).receive(&payload, 1);
    assert!(refused.unwrap_err().to_string().contains("a zstd frame is malformed"));
}

#[test]
fn an_empty_or_malformed_dictionary_makes_the_codec_unavailable() {
    // The magic number of a trained dictionary, and nothing that belongs behind it.
    let malformed = [&[0x37, 0xa4, 0x30, 0xec][..], &[0xff; 60]].concat();
    for (dictionary, reason) in [(&[][..], "is empty"), (&malformed, "is malformed")] {
        let probed = codec(dictionary).probe();
        assert!(
            matches!(&probed, Availability::Unavailable(it) if it.contains(reason)),
            "{probed:?}"
        );
    }
    assert!(matches!(codec(b"any bytes").probe(), Availability::Available(_)));
}
