//! What a peer must not send is an error on every path, which says what is wrong.

use crate::support::streams::{Writer, at_distance, deflate, deflate_wide, text};
use crate::support::{chunks, engines, receive_chunk};
use flate2::FlushCompress;
use multifd_conformance::ends::{Receiver, noise};
use multifd_core::{ErrorKind, PageSize, PeerError};
use multifd_qpl::{Path, Qpl};

/// Asserts that on every path and for every page size a packet with the payload that `make` gives
/// for its only page is refused, with words of which one is in `says`.
#[track_caller]
fn refused(says: &[&str], make: impl Fn(usize) -> Vec<u8>) {
    refused_on(&engines(), says, make);
}

/// As [`refused`], on some paths.
#[track_caller]
fn refused_on(engines: &[(Path, Qpl)], says: &[&str], make: impl Fn(usize) -> Vec<u8>) {
    for (path, codec) in engines {
        for page_size in PageSize::ALL {
            let payload = make(page_size.bytes());
            let error = Receiver::of_pages(codec, page_size).receive(&payload, 1);
            let Err(error) = error else { panic!("{path:?}, pages of {page_size}: it was taken") };
            assert!(
                matches!(error.kind(), ErrorKind::Peer(PeerError::Payload { .. })),
                "{path:?}, pages of {page_size}: {error}"
            );
            let text = error.to_string();
            assert!(says.iter().any(|says| text.contains(says)), "{path:?}, {page_size}: {text}");
        }
    }
}

/// As [`refused`], with a payload of one chunk.
#[track_caller]
fn chunk_refused(says: &str, make: impl Fn(usize) -> Vec<u8>) {
    refused(&[says], |page_bytes| payload(&make(page_bytes), page_bytes));
}

/// The payload of a chunk.
fn payload(chunk: &[u8], page_bytes: usize) -> Vec<u8> {
    assert!(chunk.len() < page_bytes, "a chunk that is not a raw page");
    [&(chunk.len() as u32).to_be_bytes(), chunk].concat()
}

/// A chunk that is right, for a page of text.
fn right(page_bytes: usize) -> Vec<u8> {
    deflate(&text(page_bytes), FlushCompress::Finish)
}

#[test]
fn a_chunk_that_is_right_is_taken() {
    for (path, codec) in engines() {
        for page_size in PageSize::ALL {
            let page = noise(100).repeat(page_size.bytes() / 100 + 1);
            let page = &page[..page_size.bytes()];
            let chunk = deflate(page, FlushCompress::Finish);
            let received =
                receive_chunk(&mut Receiver::of_pages(&codec, page_size), &chunk).unwrap();
            assert!(received == page, "{path:?}, pages of {page_size}");
        }
    }
}

#[test]
fn a_chunk_length_of_0_is_an_error() {
    // With a second chunk, so that the payload is not too short for the header already.
    for (path, codec) in engines() {
        for page_size in PageSize::ALL {
            let chunk = chunks(&codec, page_size, &vec![7; page_size.bytes()]).remove(0);
            let payload = [&[0; 4], &(chunk.len() as u32).to_be_bytes(), &chunk[..]].concat();
            let error = Receiver::of_pages(&codec, page_size).receive(&payload, 2).unwrap_err();
            assert!(error.to_string().contains("a chunk has 0 bytes"), "{path:?}: {error}");
            assert_eq!(error.place().page, Some(0));
        }
    }
}

#[test]
fn a_chunk_length_above_the_page_size_is_an_error() {
    for (path, codec) in engines() {
        for page_size in PageSize::ALL {
            let (page, chunk) = (page_size.bytes(), right(page_size.bytes()));
            let lengths = [chunk.len(), page + 1].map(|length| (length as u32).to_be_bytes());
            let payload = [&lengths.concat(), &chunk[..], &noise(page + 1)].concat();
            // So much payload is refused before; two pages leave room for it.
            let mut receiver = Receiver::of_pages(&codec, page_size);
            let error = receiver.receive(&payload, 2).unwrap_err().to_string();
            assert!(
                error.contains(&format!("a chunk has {} bytes, not 1 to {page}", page + 1)),
                "{path:?}: {error}"
            );
        }
    }
}

#[test]
fn lengths_that_do_not_add_up_are_an_error() {
    for off_by in [-1_i64, 1, 1 << 31] {
        refused(&["its chunk lengths add up to"], |page_bytes| {
            let chunk = right(page_bytes);
            let length = (chunk.len() as i64 + off_by) as u32;
            [&length.to_be_bytes(), &chunk[..]].concat()
        });
    }
}

#[test]
fn a_stream_that_inflates_to_less_than_a_page_is_an_error() {
    for less in [1, 2, 100, 4095, 4096] {
        chunk_refused("bytes, a page has", |page_bytes| {
            deflate(&text(page_bytes - less), FlushCompress::Finish)
        });
    }
}

#[test]
fn a_stream_that_inflates_to_more_than_a_page_is_an_error() {
    for more in [1, 2, 100, 4095, 4096, 4097, 200_000] {
        chunk_refused("inflates to more than a page's", |page_bytes| {
            deflate(&vec![7; page_bytes + more], FlushCompress::Finish)
        });
    }
}

#[test]
fn a_distance_beyond_the_window_is_an_error_and_one_as_large_as_it_is_not() {
    for (path, codec) in engines() {
        for page_size in [PageSize::Kib16, PageSize::Kib64] {
            let mut receiver = Receiver::of_pages(&codec, page_size);
            let mut receive =
                |distance| receive_chunk(&mut receiver, &at_distance(distance, page_size.bytes()));
            for distance in [1, 258, 4095, 4096] {
                assert!(receive(distance).is_ok(), "{path:?}, pages of {page_size}: {distance}");
            }
            let wide = deflate_wide(&noise(6000).repeat(11)[..page_size.bytes()]);
            let far = [4097, 4098, 5000, 8192, 12000];
            let far = far.map(|distance| at_distance(distance, page_size.bytes()));
            for (number, chunk) in far.into_iter().chain([wide]).enumerate() {
                let error = receive_chunk(&mut receiver, &chunk).unwrap_err().to_string();
                assert!(
                    error.contains("a distance that reaches past 4096 bytes"),
                    "{path:?}, pages of {page_size}, number {number}: {error}"
                );
            }
        }
    }
}

#[test]
fn a_distance_to_before_the_page_is_an_error() {
    // What was received before must be out of reach.
    for (path, codec) in engines() {
        for page_size in PageSize::ALL {
            for literals in [0, 1, 1000, 3800] {
                let mut receiver = Receiver::of_pages(&codec, page_size);
                receive_chunk(&mut receiver, &right(page_size.bytes())).unwrap();
                let mut writer = Writer::default();
                writer.stored(&noise(literals));
                writer.fixed_header(true);
                let matches = (page_size.bytes() - literals) / 258;
                (0..matches).for_each(|_| writer.longest_match(literals + 1));
                writer.end_of_block();
                let error = receive_chunk(&mut receiver, &writer.finish()).unwrap_err().to_string();
                assert!(error.contains("or to before the page"), "{path:?}, {page_size}: {error}");
            }
        }
    }
}

#[test]
fn a_last_block_that_is_not_the_final_one_is_an_error() {
    chunk_refused("ends before its final block does", |page_bytes| {
        deflate(&text(page_bytes), FlushCompress::Sync)
    });
    chunk_refused("ends before its final block does", |page_bytes| {
        deflate(&text(page_bytes), FlushCompress::Partial)
    });
}

#[test]
fn a_stream_cut_short_anywhere_is_an_error() {
    for (path, codec) in engines() {
        for page_size in PageSize::ALL {
            let chunk = right(page_size.bytes());
            let mut receiver = Receiver::of_pages(&codec, page_size);
            for end in (1..chunk.len() - 20).step_by(101).chain(chunk.len() - 20..chunk.len()) {
                let received = receive_chunk(&mut receiver, &chunk[..end]);
                assert!(received.is_err(), "{path:?}, {page_size}: {end} of {}", chunk.len());
            }
            assert!(receive_chunk(&mut receiver, &chunk).is_ok());
        }
    }
}

/// What may be behind a stream: nothing, another stream, bytes.
const TAILS: [&[u8]; 5] = [&[0], &[0xff], &[3, 0], &[0; 9], &[0xff; 64]];

#[test]
fn bytes_after_the_final_block_are_an_error() {
    let mut engines = engines();
    engines.retain(|(path, _)| *path != Path::Hardware);
    for tail in TAILS {
        let says = format!("goes on for {} bytes after its stream", tail.len());
        refused_on(&engines, &[&says], |page_bytes| {
            payload(&[&right(page_bytes), tail].concat(), page_bytes)
        });
    }
}

#[test]
fn bytes_after_the_final_block_do_no_harm_on_the_hardware_path_whoever_does_the_page() {
    for (path, codec) in engines().into_iter().filter(|(path, _)| *path == Path::Hardware) {
        for (page_size, tail) in
            PageSize::ALL.into_iter().flat_map(|size| TAILS.map(|it| (size, it)))
        {
            let chunk = [&right(page_size.bytes()), tail].concat();
            let mut receiver = Receiver::of_pages(&codec, page_size);
            for _ in 0..3 {
                let received = receive_chunk(&mut receiver, &chunk).unwrap();
                assert!(received == text(page_size.bytes()), "{path:?}, pages of {page_size}");
            }
        }
    }
}

#[test]
fn what_is_not_a_stream_is_an_error() {
    chunk_refused("is not a valid DEFLATE stream", |_| vec![7]);
    chunk_refused("is not a valid DEFLATE stream", |_| vec![0xff; 300]);
    // A zlib header, as UADK has it.
    chunk_refused("a chunk", |page_bytes| [&[0x78, 0x01], &right(page_bytes)[..]].concat());
}

#[test]
fn a_receiver_goes_on_after_what_it_refused_as_if_nothing_had_been() {
    // The engine gives a channel up after an error; the state must not be spoiled all the same.
    for (path, codec) in engines() {
        for page_size in PageSize::ALL {
            let mut receiver = Receiver::of_pages(&codec, page_size);
            for _ in 0..3 {
                assert!(receive_chunk(&mut receiver, &noise(1000)).is_err());
                let page = text(page_size.bytes());
                let received = receive_chunk(&mut receiver, &right(page.len())).unwrap();
                assert!(received == page, "{path:?}, pages of {page_size}");
            }
        }
    }
}
