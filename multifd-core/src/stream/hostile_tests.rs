//! Streams that are cut, damaged, endless or made up: an error or events, never a panic.

use std::io::{self, Read};

use proptest::prelude::*;

use super::tests::{DEVICES, described_devices, read, stream, writer};
use super::*;

fn whole(sync: SyncForm) -> Vec<u8> {
    stream(writer(), sync)
}

/// Gives what the iterator does, for ever.
struct Endless<I>(I);

impl<I: Iterator<Item = u8>> Read for Endless<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(buffer.iter_mut().zip(&mut self.0).map(|(to, from)| *to = from).count())
    }
}

#[test]
fn a_stream_cut_off_at_any_byte_is_truncated_there() {
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let bytes = whole(sync);
        // Where there is no VMDESCRIPTION, because the source suppresses it, this is the end.
        let suppressed = bytes.len() - described_devices().len() + DEVICES.len();
        for end in (0..bytes.len()).filter(|&end| end != suppressed) {
            let error = read(&bytes[..end]).unwrap_err();
            assert!(matches!(error.kind, StreamErrorKind::Truncated { .. }), "{error}");
            assert_eq!(error.offset, end as u64, "{error}");
        }
        read(&bytes[..suppressed]).unwrap();
    }
}

#[test]
fn an_endless_device_state_ends_at_the_limit() {
    let bytes = whole(SyncForm::Flush);
    let before = bytes.len() - described_devices().len();
    let limits = Limits { device_state: 1 << 20, ..Limits::default() };
    let endless = bytes[..before].chain(DEVICES).chain(io::repeat(b'}'));
    let mut reader = MainReader::new(endless, limits);
    let error = loop {
        match reader.next_event() {
            Ok(event) => assert_ne!(event, Event::End),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind, StreamErrorKind::DeviceStateTooLarge { .. }), "{error}");
    assert!(reader.offset() < before as u64 + (1 << 20) + (64 << 10));
}

#[test]
fn an_endless_list_of_blocks_ends_at_the_limit() {
    let start =
        b"QEVM\0\0\0\x03\x01\0\0\0\x01\x03ram\0\0\0\0\0\0\0\x04\xff\xff\xff\xff\xff\xff\xf0\x04";
    let blocks = (0_u32..).flat_map(|n| {
        let name = format!("{n:08}");
        let size = 4096_u64.to_be_bytes();
        [[8].as_slice(), name.as_bytes(), &size].concat()
    });
    let error = read(start.chain(Endless(blocks))).unwrap_err();
    assert!(matches!(error.kind, StreamErrorKind::TooManyBlocks { limit: 1024 }), "{error}");
}

proptest! {
    #[test]
    fn made_up_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(bytes.as_slice());
        let _ = read(b"QEVM\0\0\0\x03".chain(bytes.as_slice()));
        let _ = ReturnReader::new(bytes.as_slice()).next_message();
    }

    #[test]
    fn made_up_bytes_after_a_good_beginning_never_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..0x11], 0..256),
        keep in any::<prop::sample::Index>(),
        flush in any::<bool>(),
    ) {
        let good = whole(if flush { SyncForm::Flush } else { SyncForm::EachSection });
        let _ = read(good[..keep.index(good.len())].chain(bytes.as_slice()));
    }

    #[test]
    fn a_damaged_stream_never_panics_and_keeps_its_pages_inside_the_blocks(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
        flush in any::<bool>(),
    ) {
        let mut bytes = whole(if flush { SyncForm::Flush } else { SyncForm::EachSection });
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let mut reader = MainReader::new(bytes.as_slice(), Limits::default());
        let mut sizes = Vec::new();
        while let Ok(event) = reader.next_event() {
            match event {
                Event::End => break,
                Event::RamStart { blocks, .. } => {
                    sizes = blocks.iter().map(|block| block.bytes).collect();
                }
                Event::ZeroPage { block, offset } | Event::Page { block, offset, .. } => {
                    prop_assert!(offset + reader.page_size() <= sizes[block]);
                }
                Event::DeviceState(state) => prop_assert!(state.len() <= bytes.len()),
                _ => {}
            }
        }
    }
}
