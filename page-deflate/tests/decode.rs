//! The decoder takes what other encoders make, and refuses what other decoders refuse.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor};
use page_deflate::{DecodeError, Decoder, Encoder, LARGEST_WINDOW, Level};
use proptest::prelude::*;

/// Pages of all kinds: noise, text, runs, repeats, and bytes whose shares differ so much that codes get long.
fn page() -> impl Strategy<Value = Vec<u8>> {
    let skewed = proptest::collection::vec(0..1_u32 << 31, 4096).prop_map(|numbers| {
        // Each value is half as frequent as the one before.
        numbers.into_iter().map(|number| number.leading_zeros() as u8 * 7).collect()
    });
    let repeats = (proptest::collection::vec(any::<u8>(), 1..600), 1..20_000_usize)
        .prop_map(|(bytes, count)| bytes.into_iter().cycle().take(count).collect());
    let mixed = proptest::collection::vec((any::<u8>(), 1..40_usize, any::<bool>()), 1..600)
        .prop_map(|parts| {
            let mut page = Vec::new();
            for (byte, count, again) in parts {
                match page.len().checked_sub(usize::from(byte) * 16 + count) {
                    Some(start) if again => page.extend_from_within(start..start + count),
                    _ => page.extend((0..count as u8).map(|at| byte.wrapping_mul(at | 1))),
                }
            }
            page
        });
    let noise = proptest::collection::vec(any::<u8>(), 0..5000);
    prop_oneof![skewed, repeats, mixed, noise]
}

/// Streams of one page by every encoder there is here.
fn streams(page: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut streams = Vec::new();
    for level in [0, 1, 4, 6, 9] {
        for window_bits in [9, 12, 15] {
            let mut deflate =
                Compress::new_with_window_bits(Compression::new(level), false, window_bits);
            let mut stream = Vec::with_capacity(2 * page.len() + 100);
            deflate.compress_vec(page, &mut stream, FlushCompress::Finish).unwrap();
            streams.push((format!("zlib-rs, level {level}, window {window_bits}"), stream));
        }
    }
    for level in [0, 1, 6, 12] {
        let mut compressor = Compressor::new(CompressionLvl::new(level).unwrap());
        let mut stream = vec![0; compressor.deflate_compress_bound(page.len())];
        let bytes = compressor.deflate_compress(page, &mut stream).unwrap();
        stream.truncate(bytes);
        streams.push((format!("libdeflate, level {level}"), stream));
    }
    if page.len() <= 1 << 16 {
        for (level, window) in [
            (Level::Strong, 4096),
            (Level::Strong, LARGEST_WINDOW),
            (Level::Balanced, 4096),
            (Level::Balanced, LARGEST_WINDOW),
            (Level::Fast, 4096),
            (Level::Fast, LARGEST_WINDOW),
        ] {
            let mut stream = vec![0; page.len() * 11 / 8 + 700];
            let mut encoder = Encoder::with_level(level, page.len(), window);
            let Some(bytes) = encoder.encode(page, &mut stream) else {
                assert_ne!(level, Level::Strong, "there is room for every page");
                continue;
            };
            stream.truncate(bytes);
            streams.push((format!("ours, {level}, window {window}"), stream));
        }
    }
    streams
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_any_encoder_makes_is_restored(page in page()) {
        let streams = streams(&page);
        let mut decoder = Decoder::new(page.len(), LARGEST_WINDOW);
        let mut seen = vec![false; streams.len()];
        // Some bytes behind, which belong to something else.
        let with_rest: Vec<_> = streams.iter().map(|(_, it)| [it, &[0xff; 5][..]].concat()).collect();
        decoder.decode_each(with_rest.iter().map(Vec::as_slice), page.len(), |index, decoded| {
            let (name, stream) = &streams[index];
            let decoded = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(decoded.page == page, "{name}");
            assert_eq!((decoded.read, decoded.left), (stream.len(), 5), "{name}");
            assert!(!std::mem::replace(&mut seen[index], true), "{name} came twice");
        });
        prop_assert!(seen.iter().all(|&seen| seen));
        for (name, stream) in &streams {
            let mut restored = vec![0xa5; page.len()];
            prop_assert_eq!(decoder.decode(stream, &mut restored), Ok(stream.len()), "{}", name);
            prop_assert!(restored == page, "{}", name);
        }
    }

    #[test]
    fn a_stream_that_is_cut_short_or_makes_another_size_is_refused(
        page in page(),
        which in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let streams = streams(&page);
        let (name, stream) = &streams[which.index(streams.len())];
        let mut decoder = Decoder::new(page.len() + 1, LARGEST_WINDOW);
        let mut restored = vec![0xa5; page.len() + 1];
        let cut = &stream[..cut.index(stream.len())];
        prop_assert!(decoder.decode(cut, &mut restored[1..]).is_err(), "{}", name);
        prop_assert_eq!(decoder.decode(stream, &mut restored), Err(DecodeError::Short(page.len())));
        if let Some(less) = page.len().checked_sub(1) {
            prop_assert_eq!(decoder.decode(stream, &mut restored[..less]), Err(DecodeError::Long));
        }
        prop_assert!(restored.iter().all(|&byte| byte == 0xa5), "a page that is refused was written");
    }

    #[test]
    fn a_stream_with_wrong_bits_has_the_fate_that_zlib_gives_it(
        page in page(),
        which in any::<prop::sample::Index>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..4),
        start in prop_oneof![Just(usize::MAX), Just(40_usize)],
    ) {
        let streams = streams(&page);
        let (name, stream) = &streams[which.index(streams.len())];
        let mut stream = stream.clone();
        for (at, bit) in flips {
            let at = at.index(stream.len().min(start));
            stream[at] ^= 1 << bit;
        }
        let mut restored = vec![0; page.len()];
        let ours = Decoder::new(page.len(), LARGEST_WINDOW).decode(&stream, &mut restored);
        match by_zlib(&stream, page.len()) {
            Some((zlibs, read)) => {
                prop_assert_eq!(ours, Ok(read), "{}", name);
                prop_assert!(restored == zlibs, "{}", name);
            }
            None => prop_assert!(ours.is_err(), "{}: {:?}", name, ours),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        streams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5),
    ) {
        let mut fates = vec![None; streams.len()];
        let mut decoder = Decoder::new(4096, 4096);
        decoder.decode_each(streams.iter().map(Vec::as_slice), 4096, |index, decoded| {
            fates[index] = Some(decoded.map(|decoded| decoded.page.to_vec()));
        });
        // What is beside a stream has no say in its fate.
        for (stream, fate) in streams.iter().zip(fates) {
            let mut page = vec![0; 4096];
            let alone = Decoder::new(4096, 4096).decode(stream, &mut page).map(|_| page);
            prop_assert_eq!(fate, Some(alone));
        }
    }
}

/// The page that the stream makes, if it is that long, and how much of the stream makes it.
fn by_zlib(stream: &[u8], page_bytes: usize) -> Option<(Vec<u8>, usize)> {
    let mut page = Vec::with_capacity(page_bytes + 1);
    let mut inflate = Decompress::new_with_window_bits(false, 15);
    let status = inflate.decompress_vec(stream, &mut page, FlushDecompress::Finish).ok()?;
    let ended = status == Status::StreamEnd && page.len() == page_bytes;
    ended.then(|| (page, inflate.total_in() as usize))
}

#[test]
fn a_distance_above_the_window_is_refused() {
    let noise: Vec<u8> =
        (0..5000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let page = [&noise[..], &noise[..]].concat();
    let mut compressor = Compressor::new(CompressionLvl::best());
    let mut stream = vec![0; compressor.deflate_compress_bound(page.len())];
    let bytes = compressor.deflate_compress(&page, &mut stream).unwrap();
    let mut restored = vec![0; page.len()];
    let mut with =
        |window| Decoder::new(page.len(), window).decode(&stream[..bytes], &mut restored);
    assert_eq!(with(5000), Ok(bytes));
    assert_eq!(with(4999), Err(DecodeError::Malformed));
}

#[test]
fn headers_that_are_alike_are_told_from_headers_that_are_not() {
    let page = |seed: usize| -> Vec<u8> {
        (0..4096_usize).map(|at| ((at * at + seed * at) % 251) as u8 & 0x3f).collect()
    };
    let stream = |page: &[u8]| {
        let mut stream = vec![0; 8192];
        let bytes = Encoder::new(4096, 4096).encode(page, &mut stream).unwrap();
        stream.truncate(bytes);
        stream
    };
    let one = stream(&page(1));
    let mut decoder = Decoder::new(4096, 4096);
    let mut restored = vec![0; 4096];
    assert_eq!(one[0] & 7, 0b101, "the stream has codes of its own");
    // Every bit of the first 60 bytes, between two that are whole.
    for bit in 0..8 * 60 {
        assert_eq!(decoder.decode(&one, &mut restored), Ok(one.len()));
        assert!(restored == page(1));
        let mut other = one.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let mut expected = vec![0; 4096];
        let fate = Decoder::new(4096, 4096).decode(&other, &mut expected);
        assert_eq!(decoder.decode(&other, &mut restored), fate, "bit {bit}");
        assert!(fate.is_err() || restored == expected, "bit {bit}");
    }
}

#[test]
fn what_was_decoded_before_changes_nothing() {
    // Pages of several kinds, for which each level has codes of its own; the fast one has few, which come again.
    let kinds: [fn(usize) -> u8; 6] = [
        |at| b"the quick brown fox "[at * 7 / 5 % 20],
        |at| if at % 8 < 3 { (at * at % 91) as u8 } else { 0 },
        |at| (at * at % 251) as u8 & 0x3f,
        |at| if at % 64 == 0 { at as u8 } else { 0xff },
        |at| [0x48, 0x8b, 0x05, 0xe8, (at / 3) as u8, 0, 0, 0x0f][at % 8],
        |at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8,
    ];
    let mut streams = Vec::new();
    for level in Level::ALL {
        for (kind, byte) in kinds.iter().enumerate() {
            for variant in 0..3 {
                let page: Vec<_> = (0..4096).map(|at| byte(at + variant * 1000 + kind)).collect();
                let mut stream = vec![0; 8192];
                let bytes =
                    Encoder::with_level(level, 4096, 4096).encode(&page, &mut stream).unwrap();
                stream.truncate(bytes);
                streams.push(stream);
            }
        }
    }
    let mut state = 1_usize;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    // One in three has a wrong bit, most of them in its header.
    let streams: Vec<_> = (0..if cfg!(miri) { 30 } else { 3000 })
        .map(|_| {
            let mut stream = streams[random(streams.len())].clone();
            if random(3) == 0 {
                let most = if random(3) == 0 { stream.len() } else { 70.min(stream.len()) };
                let bit = random(8 * most);
                stream[bit / 8] ^= 1 << (bit % 8);
            }
            stream
        })
        .collect();
    let mut decoder = Decoder::new(4096, 4096);
    let mut found = vec![None; streams.len()];
    decoder.decode_each(streams.iter().map(Vec::as_slice), 4096, |index, decoded| {
        found[index] = Some(decoded.map(|decoded| decoded.page.to_vec()));
    });
    for (index, (stream, found)) in streams.iter().zip(found).enumerate() {
        let mut page = vec![0; 4096];
        let alone = Decoder::new(4096, 4096).decode(stream, &mut page).map(|_| page);
        assert!(found == Some(alone), "stream {index}");
    }
}

/// Bits, the first of them lowest.
struct Bits(Vec<bool>);

impl Bits {
    fn number(&mut self, value: usize, bits: usize) -> &mut Self {
        self.0.extend((0..bits).map(|bit| value >> bit & 1 == 1));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let byte =
            |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
        self.0.chunks(8).map(byte).collect()
    }
}

/// A header with so many symbols of each code, whose lengths go out in a code in which 0, 1, 2 and 18 have two
/// bits each.
fn header(litlen: usize, distances: usize) -> Bits {
    let mut bits = Bits(Vec::new());
    bits.number(0b101, 3).number(litlen - 257, 5).number(distances - 1, 5).number(18 - 4, 4);
    for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1] {
        bits.number(if [0, 1, 2, 18].contains(&symbol) { 2 } else { 0 }, 3);
    }
    bits
}

impl Bits {
    fn length(&mut self, length: usize) -> &mut Self {
        // The codes are 00, 01, 10 and 11, from their highest bit on.
        self.number([0b00, 0b10, 0b01][length], 2)
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.number(0b11, 2).number(count - 11, 7)
    }
}

#[test]
fn a_block_needs_an_end_and_codes_that_are_whole() {
    let fate = |bits: &mut Bits| {
        let stream = bits.number(0, 32).bytes();
        let mut page = [0; 1];
        let ours = Decoder::new(1, 4096).decode(&stream, &mut page);
        assert_eq!(ours.is_ok(), by_zlib(&stream, 1).is_some());
        ours.map(|_| page[0])
    };
    // Byte 0 and the end have a bit each; there are no distances.
    let mut good = header(257, 1);
    good.length(1).zeros(138).zeros(117).length(1).length(0);
    assert_eq!(fate(good.number(0b10, 2)), Ok(0));
    // The same with one distance, which leaves its code incomplete, but is taken.
    let mut one_distance = header(257, 1);
    one_distance.length(1).zeros(138).zeros(117).length(1).length(1);
    assert_eq!(fate(one_distance.number(0b10, 2)), Ok(0));
    let malformed = Err(DecodeError::Malformed);
    let mut no_end = header(257, 1);
    no_end.length(1).length(1).zeros(138).zeros(116).length(0).length(0);
    assert_eq!(fate(no_end.number(0b10, 2)), malformed);
    let mut too_many = header(257, 1);
    too_many.length(1).length(1).zeros(138).zeros(116).length(1).length(0);
    assert_eq!(fate(too_many.number(0b110, 3)), malformed);
    let mut too_few = header(257, 1);
    too_few.length(1).zeros(138).zeros(117).length(2).length(0);
    assert_eq!(fate(too_few.number(0b10, 3)), malformed);
    let mut one_distance_of_two_bits = header(257, 1);
    one_distance_of_two_bits.length(1).zeros(138).zeros(117).length(1).length(2);
    assert_eq!(fate(one_distance_of_two_bits.number(0b10, 2)), malformed);
    let mut runs_over = header(257, 1);
    runs_over.length(1).zeros(138).zeros(117).length(1).zeros(11);
    assert_eq!(fate(runs_over.number(0b10, 2)), malformed);
    for (litlen, distances) in [(287, 1), (288, 1), (257, 31), (257, 32)] {
        assert_eq!(fate(&mut header(litlen, distances)), malformed);
    }
    // A distance of the fixed code that never occurs, and the two lengths.
    for (code, bits) in [(0b1100_0110, 8), (0b1100_0111, 8)] {
        let mut length = Bits(Vec::new());
        length.number(0b011, 3).number(0x0c, 8);
        (0..bits).rev().for_each(|bit| _ = length.number(code >> bit & 1, 1));
        assert_eq!(fate(&mut length), malformed);
    }
}
