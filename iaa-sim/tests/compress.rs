//! Compress: what comes out is read by decoders that are not ours.

mod support;

use iaa_sim::completion::Completion;
use iaa_sim::engine::Engine;
use proptest::collection::vec;
use proptest::prelude::*;
use support::*;

const STATISTICS: u16 = 1;
const FLUSH: u16 = 2;
const END_OF_BLOCK: u16 = 1 << 2;
const STORED_BLOCK: u16 = 2 << 2;
const LAST_STORED_BLOCK: u16 = 3 << 2;
const LITERALS_ONLY: u16 = 0x10;

fn job(bytes: usize, room: usize) -> Job {
    Job::new(Job::COMPRESS)
        .source(SOURCE, bytes)
        .destination(DESTINATION, room)
        .aecs(AECS, COMPRESS_AECS)
        .flags(READ_AECS)
}

fn memory(data: &[u8], aecs: &[u8], room: usize) -> Pages {
    let memory = Pages::default();
    memory.put(SOURCE, data).map(DESTINATION, room).put(AECS, aecs).map(AECS, 2 * COMPRESS_AECS);
    memory
}

fn compress(data: &[u8], aecs: &[u8], flags: u16) -> (Completion, Vec<u8>) {
    let room = 2 * data.len() + 1000;
    let memory = memory(data, aecs, room);
    let job = job(data.len(), room).operation_flags(flags);
    let completion = job.run(&mut Engine::default(), &memory);
    (completion, memory.get(DESTINATION, completion.output_bytes as usize))
}

fn fixed_header(last: bool) -> Bits {
    let mut bits = Bits::default();
    bits.number(u32::from(last) | 1 << 1, 3);
    bits
}

fn crc32(data: &[u8]) -> u32 {
    libdeflater::crc32(data)
}

#[test]
fn a_page_with_the_fixed_code_inflates_to_itself() {
    for seed in 0..200 {
        let data = sample(seed, [4096, 1, 0, 4095, 257, 20_000][seed as usize % 6]);
        let aecs = Code::fixed().compress_aecs(&fixed_header(true));
        let (completion, stream) = compress(&data, &aecs, FLUSH | END_OF_BLOCK);
        assert_eq!((completion.status, completion.error), (1, 0));
        assert_eq!(completion.crc, crc32(&data));
        assert_eq!(completion.bytes_completed as usize, data.len());
        assert_eq!(inflate(&stream), Ok((data, stream.len())));
    }
}

#[test]
fn data_that_repeats_becomes_smaller_and_its_distances_are_within_4096() {
    let aecs = Code::fixed().compress_aecs(&fixed_header(true));
    let (completion, _) = compress(&[0; 4096], &aecs, FLUSH | END_OF_BLOCK);
    assert!(completion.output_bytes < 50, "{}", completion.output_bytes);
    let text = b"the quick brown fox jumps over the lazy dog. ".repeat(90);
    let (completion, _) = compress(&text, &aecs, FLUSH | END_OF_BLOCK);
    assert!((completion.output_bytes as usize) < text.len() / 20, "{}", completion.output_bytes);
    // What repeats only after 5000 bytes is not found.
    let noise: Vec<u8> = sample(7, 1 << 16).iter().step_by(13).copied().take(5000).collect();
    let once = compress(&noise, &aecs, FLUSH | END_OF_BLOCK).0.output_bytes;
    let twice = compress(&noise.repeat(2), &aecs, FLUSH | END_OF_BLOCK).0.output_bytes;
    assert!(twice > once + once * 9 / 10, "{once} {twice}");
    let (_, stream) = compress(&sample(7, 100_000), &aecs, FLUSH | END_OF_BLOCK);
    assert!(tokens(&stream).iter().any(|token| token.distance > 4000));
    assert!(tokens(&stream).iter().all(|token| token.distance <= 4096));
}

#[test]
fn the_largest_source_is_compressed_and_a_larger_one_refused() {
    let data = sample(3, 2 << 20);
    let aecs = Code::fixed().compress_aecs(&fixed_header(true));
    let memory = memory(&data, &aecs, 2 << 20);
    let job = job(data.len(), 2 << 20).operation_flags(FLUSH | END_OF_BLOCK);
    let mut engine = Engine::with_largest_transfer(2 << 20);
    let completion = job.run(&mut engine, &memory);
    assert_eq!(completion.status, 1);
    let stream = memory.get(DESTINATION, completion.output_bytes as usize);
    assert_eq!(inflate(&stream), Ok((data, stream.len())));
    let larger = job.source(SOURCE, (2 << 20) + 1);
    assert_eq!(larger.run(&mut engine, &memory).status, 0x13);
}

#[test]
fn statistics_are_the_counts_of_the_stream() {
    for seed in 0..60 {
        for literals_only in [0, LITERALS_ONLY] {
            let data = sample(seed, 4096 + seed as usize);
            let aecs = Code::fixed().compress_aecs(&fixed_header(true));
            let (_, stream) = compress(&data, &aecs, FLUSH | END_OF_BLOCK | literals_only);
            let mut expected = [0_u32; 320];
            for token in tokens(&stream) {
                expected[token.symbol] += 1;
                if token.distance > 0 {
                    expected[288 + token.distance_symbol] += 1;
                }
            }
            let memory = memory(&data, &[], 1280);
            let job = Job::new(Job::COMPRESS)
                .source(SOURCE, data.len())
                .destination(DESTINATION, 1280)
                .operation_flags(STATISTICS | literals_only);
            let completion = job.run(&mut Engine::default(), &memory);
            assert_eq!((completion.status, completion.output_bytes), (1, 1280));
            assert_eq!(completion.crc, crc32(&data));
            let mut counts: Vec<u32> = memory
                .get(DESTINATION, 1280)
                .chunks(4)
                .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
                .collect();
            assert_eq!(counts[256], 0, "no end of a block was asked for");
            counts[256] = 1;
            assert_eq!(counts, expected);
            let job = job.operation_flags(END_OF_BLOCK);
            assert_eq!(job.run(&mut Engine::default(), &memory).status, 1);
            assert_eq!(memory.get(DESTINATION + 4 * 256, 4), [1, 0, 0, 0]);
        }
    }
}

#[test]
fn literals_only_means_no_match() {
    let aecs = Code::fixed().compress_aecs(&fixed_header(true));
    let (completion, stream) = compress(&[b'a'; 100], &aecs, FLUSH | END_OF_BLOCK | LITERALS_ONLY);
    assert_eq!(completion.output_bytes as usize, (3_usize + 100 * 8 + 7).div_ceil(8));
    assert_eq!(inflate(&stream), Ok((vec![b'a'; 100], stream.len())));
}

#[test]
fn a_symbol_without_a_code_is_an_error() {
    let mut code = Code::fixed();
    code.literals[usize::from(b'x')] = 0;
    let aecs = code.compress_aecs(&fixed_header(true));
    assert_eq!(compress(b"abc", &aecs, FLUSH | END_OF_BLOCK).0.status, 1);
    let (completion, _) = compress(b"abxc", &aecs, FLUSH | END_OF_BLOCK);
    assert_eq!((completion.status, completion.error, completion.output_bytes), (0x0a, 30, 0));
    code.literals[256] = 0;
    let aecs = code.compress_aecs(&fixed_header(true));
    assert_eq!(compress(b"abc", &aecs, FLUSH | END_OF_BLOCK).0.error, 30);
    assert_eq!(compress(b"abc", &aecs, FLUSH).0.error, 0);
    // A value that does not fit into its length.
    let mut aecs = Code::fixed().compress_aecs(&fixed_header(true));
    aecs[288 + 4 * 97..][..4].copy_from_slice(&(8_u32 << 15 | 256).to_le_bytes());
    assert_eq!(compress(b"abc", &aecs, FLUSH).0.error, 30);
}

#[test]
fn what_is_above_a_length_or_behind_the_accumulators_bits_does_not_count() {
    let mut aecs = Code::fixed().compress_aecs(&fixed_header(true));
    let expected = compress(&sample(5, 3000), &aecs, FLUSH | END_OF_BLOCK);
    aecs[32] |= 0xf8;
    aecs[33..288].fill(0xff);
    aecs[288..].chunks_mut(4).for_each(|word| word[3] = 0xff);
    aecs[288..].chunks_mut(4).for_each(|word| word[2] |= 0xf8);
    assert_eq!(compress(&sample(5, 3000), &aecs, FLUSH | END_OF_BLOCK), expected);
}

#[test]
fn without_an_aecs_nothing_has_a_code() {
    let memory = memory(b"abc", &[], 100);
    let job = Job::new(Job::COMPRESS).source(SOURCE, 3).destination(DESTINATION, 100);
    let completion = job.run(&mut Engine::default(), &memory);
    assert_eq!((completion.status, completion.error), (0x0a, 30));
}

#[test]
fn an_accumulator_of_more_than_256_bytes_is_an_error() {
    let mut aecs = Code::fixed().compress_aecs(&fixed_header(true));
    aecs[28..32].copy_from_slice(&2048_u32.to_le_bytes());
    assert_eq!(compress(b"abc", &aecs, FLUSH).0.status, 1);
    aecs[28..32].copy_from_slice(&2049_u32.to_le_bytes());
    let (completion, _) = compress(b"abc", &aecs, FLUSH);
    assert_eq!((completion.status, completion.error), (0x0a, 22));
}

#[test]
fn a_destination_that_is_a_byte_too_small_is_an_error_and_stays_as_it_was() {
    let data = sample(5, 4096);
    let aecs = Code::fixed().compress_aecs(&fixed_header(true));
    let needed = compress(&data, &aecs, FLUSH | END_OF_BLOCK).0.output_bytes as usize;
    let memory = memory(&data, &aecs, needed);
    let job = job(data.len(), needed).operation_flags(FLUSH | END_OF_BLOCK).flags(WRITE_AECS);
    assert_eq!(job.run(&mut Engine::default(), &memory).status, 1);
    memory.writes.borrow_mut().clear();
    let job = job.destination(DESTINATION, needed - 1);
    let completion = job.run(&mut Engine::default(), &memory);
    assert_eq!((completion.status, completion.error), (0x0a, 25));
    assert_eq!(*memory.writes.borrow(), []);
}

#[test]
fn what_is_written_of_the_aecs_is_all_but_the_codes() {
    let aecs = Code::fixed().compress_aecs(&fixed_header(false));
    let memory = memory(b"abc", &aecs, 100);
    memory.put(AECS + COMPRESS_AECS as u64, &[0xee; COMPRESS_AECS]);
    let job = job(3, 100).flags(WRITE_AECS);
    let completion = job.run(&mut Engine::default(), &memory);
    // 3 + 24 bits: 3 whole bytes, and 3 bits for the next time.
    assert_eq!((completion.status, completion.output_bytes, completion.output_bits), (1, 3, 0));
    assert_eq!(memory.get(AECS, COMPRESS_AECS), aecs, "the one that is read stays");
    let written = memory.get(AECS + COMPRESS_AECS as u64, COMPRESS_AECS);
    assert_eq!(written[..4], crc32(b"abc").to_le_bytes());
    assert_eq!(written[4..8], [b'a' ^ b'c', b'b', 0, 0]);
    assert_eq!(written[28..32], [3, 0, 0, 0]);
    assert!(written[33..288].iter().all(|byte| *byte == 0));
    assert_eq!(written[288..], [0xee; 1280]);
}

#[test]
fn the_crc_is_that_which_was_asked_for() {
    let aecs = Code::fixed().compress_aecs(&fixed_header(true));
    let memory = memory(b"123456789", &aecs, 100);
    let job = job(9, 100).operation_flags(FLUSH | END_OF_BLOCK);
    let mut engine = Engine::default();
    assert_eq!(job.run(&mut engine, &memory).crc, 0xcbf4_3926);
    let completion = job.flags(CRC32C).run(&mut engine, &memory);
    assert_eq!(completion.crc, 0xe306_9283);
    assert_eq!(completion.xor_checksum, 0x3231 ^ 0x3433 ^ 0x3635 ^ 0x3837 ^ 0x39);
}

proptest! {
    #[test]
    fn any_code_in_the_aecs_is_used(code in code(), seed: u64, bytes in 0..9000_usize) {
        let data = sample(seed, bytes);
        let aecs = code.compress_aecs(&code.header(true));
        let (completion, stream) = compress(&data, &aecs, FLUSH | END_OF_BLOCK);
        prop_assert_eq!(completion.status, 1);
        prop_assert_eq!(inflate(&stream), Ok((data, stream.len())));
    }

    #[test]
    fn bits_in_the_accumulator_come_first(bits in vec(any::<bool>(), 0..=2048), seed: u64) {
        let data = sample(seed, 300);
        let aecs = Code::fixed().compress_aecs(&Bits(bits.clone()));
        let (completion, stream) = compress(&data, &aecs, FLUSH | END_OF_BLOCK);
        prop_assert_eq!(completion.status, 1);
        let out = Bits::of(&stream).0;
        prop_assert_eq!(&out[..bits.len()], &bits[..]);
        // Behind them comes what comes behind none.
        let none = Code::fixed().compress_aecs(&Bits::default());
        let (alone, body) = compress(&data, &none, FLUSH | END_OF_BLOCK);
        let body_bits = used_bits(&alone);
        prop_assert_eq!(&out[bits.len()..bits.len() + body_bits], &Bits::of(&body).0[..body_bits]);
        prop_assert_eq!(used_bits(&completion), bits.len() + body_bits);
        prop_assert!(out[bits.len() + body_bits..].iter().all(|bit| !bit));
    }

    #[test]
    fn chunks_go_on_where_the_last_one_ended(
        seed: u64,
        sizes in vec(0..3000_usize, 1..8),
        stored in any::<bool>(),
    ) {
        let mut engine = Engine::default();
        let memory = Pages::default();
        memory.map(AECS, 2 * COMPRESS_AECS);
        let code = Code::fixed();
        memory.put(AECS, &code.compress_aecs(&fixed_header(!stored)));
        let (mut data, mut stream) = (Vec::new(), Vec::new());
        for (nth, bytes) in sizes.iter().enumerate() {
            let chunk = sample(seed ^ nth as u64, *bytes);
            memory.put(SOURCE, &chunk).map(SOURCE, 1);
            memory.map(DESTINATION, 10_000);
            let last = nth + 1 == sizes.len();
            let ending = match (last, stored) {
                (false, _) => 0,
                (true, true) => FLUSH | LAST_STORED_BLOCK,
                (true, false) => FLUSH | END_OF_BLOCK,
            };
            let read = AECS + (nth as u64 % 2) * COMPRESS_AECS as u64;
            // As libqpl does: the codes are put into whichever AECS is read.
            memory.put(read + 288, &code.compress_aecs(&Bits::default())[288..]);
            let job = job(*bytes, 10_000)
                .operation_flags(ending)
                .flags(if last { 0 } else { WRITE_AECS })
                .flags(if nth % 2 == 1 { TOGGLE } else { 0 });
            let completion = job.run(&mut engine, &memory);
            prop_assert_eq!(completion.status, 1);
            stream.extend(memory.get(DESTINATION, completion.output_bytes as usize));
            data.extend(chunk);
            prop_assert_eq!(completion.crc, crc32(&data));
        }
        prop_assert_eq!(inflate(&stream), Ok((data, stream.len())));
    }

    #[test]
    fn a_stored_block_that_is_not_the_last_ends_at_a_byte(seed: u64, bytes in 0..2000_usize) {
        let data = sample(seed, bytes);
        let aecs = Code::fixed().compress_aecs(&fixed_header(false));
        let (completion, mut stream) = compress(&data, &aecs, STORED_BLOCK);
        prop_assert_eq!(completion.status, 1);
        prop_assert_eq!(&stream[stream.len() - 4..], &[0, 0, 0xff, 0xff]);
        // An empty last block makes a whole stream of it.
        stream.extend([3, 0]);
        prop_assert_eq!(inflate(&stream), Ok((data, stream.len())));
    }
}

fn used_bits(completion: &Completion) -> usize {
    let unused = (8 - completion.output_bits) % 8;
    8 * completion.output_bytes as usize - usize::from(unused)
}

/// A complete code in which every symbol has a word, of at most 15 bits.
fn code() -> impl Strategy<Value = Code> {
    (lengths(286), lengths(30)).prop_map(|(literals, distances)| Code { literals, distances })
}

fn lengths(symbols: usize) -> impl Strategy<Value = Vec<u8>> {
    let splits = vec(any::<prop::sample::Index>(), symbols - 1);
    splits.prop_flat_map(|splits| {
        let mut leaves = vec![0_u8];
        for split in splits {
            let open: Vec<usize> = (0..leaves.len()).filter(|leaf| leaves[*leaf] < 15).collect();
            let leaf = *split.get(&open);
            leaves[leaf] += 1;
            leaves.push(leaves[leaf]);
        }
        Just(leaves).prop_shuffle()
    })
}

struct Token {
    symbol: usize,
    distance: usize,
    distance_symbol: usize,
}

/// The tokens of a block with the fixed code, read bit by bit.
fn tokens(stream: &[u8]) -> Vec<Token> {
    let bits = Bits::of(stream).0;
    let mut at = 3;
    let code = Code::fixed();
    let (literals, distances) = (words(&code.literals), words(&code.distances));
    let word = |at: &mut usize, words: &[u32], lengths: &[u8]| {
        let mut value = 0;
        for length in 1..16_u8 {
            value = value << 1 | u32::from(bits[*at]);
            *at += 1;
            let found =
                (0..words.len()).find(|nth| lengths[*nth] == length && words[*nth] == value);
            if let Some(symbol) = found {
                return symbol;
            }
        }
        panic!("no word");
    };
    let mut found = Vec::new();
    loop {
        let symbol = word(&mut at, &literals, &code.literals);
        let mut token = Token { symbol, distance: 0, distance_symbol: 0 };
        if symbol > 256 {
            at += match symbol {
                265..285 => (symbol - 261) / 4,
                _ => 0,
            };
            token.distance_symbol = word(&mut at, &distances, &code.distances);
            let extra = (token.distance_symbol / 2).saturating_sub(1);
            let more = (0..extra).map(|bit| usize::from(bits[at + bit]) << bit).sum::<usize>();
            at += extra;
            token.distance = 1
                + more
                + match token.distance_symbol {
                    symbol @ 0..2 => symbol,
                    symbol => (2 + symbol % 2) << extra,
                };
        }
        found.push(token);
        if symbol == 256 {
            return found;
        }
    }
}
