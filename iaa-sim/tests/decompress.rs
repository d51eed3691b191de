//! Decompress: streams of encoders that are not ours, in one piece and in many.

mod support;

use std::collections::BTreeSet;
use std::io::Write;

use flate2::{Compress, Compression, FlushCompress};
use iaa_sim::completion::Completion;
use iaa_sim::engine::Engine;
use proptest::collection::vec;
use proptest::prelude::*;
use support::*;

const ENABLE: u16 = 1;
const FLUSH: u16 = 2;
const STOP: u16 = 4;
const CHECK: u16 = 8;
const LAST_BLOCK: u16 = 0x10;
const SUPPRESS: u16 = 0x200;
/// As libqpl asks for a whole stream.
const WHOLE: u16 = ENABLE | FLUSH | STOP | CHECK | LAST_BLOCK;

const SUCCESS: u8 = 0x01;
const DATA_ERROR: u8 = 0x0a;
const OVERFLOW: u8 = 0x0b;

fn job(bytes: usize, room: usize, flags: u16) -> Job {
    Job::new(Job::DECOMPRESS)
        .source(SOURCE, bytes)
        .destination(DESTINATION, room)
        .operation_flags(flags)
}

fn memory(stream: &[u8], room: usize) -> Pages {
    let memory = Pages::default();
    memory.put(SOURCE, stream).map(DESTINATION, room).map(AECS, 2 * DECOMPRESS_AECS);
    memory
}

fn decompress(stream: &[u8], room: usize, flags: u16) -> (Completion, Vec<u8>) {
    let memory = memory(stream, room);
    let completion = job(stream.len(), room, flags).run(&mut Engine::default(), &memory);
    (completion, memory.get(DESTINATION, completion.output_bytes as usize))
}

/// The error of a stream.
fn error(stream: &[u8]) -> u8 {
    let (completion, _) = decompress(stream, 1 << 16, WHOLE);
    assert_eq!(completion.status, if completion.error == 0 { SUCCESS } else { DATA_ERROR });
    completion.error
}

/// A stream of zlib's, whose distances are below 4096.
fn zlib(data: &[u8], level: u32, strategy_fixed: bool) -> Vec<u8> {
    let mut compress = Compress::new_with_window_bits(Compression::new(level), false, 12);
    let mut stream = Vec::with_capacity(2 * data.len() + 1000);
    // Flushes make more blocks, and empty stored ones.
    let middle = if strategy_fixed { data.len() / 2 } else { 0 };
    compress
        .compress_vec(&data[..middle], &mut stream, FlushCompress::Sync)
        .expect("it compresses");
    let status = compress.compress_vec(&data[middle..], &mut stream, FlushCompress::Finish);
    assert_eq!(status.expect("it compresses"), flate2::Status::StreamEnd);
    stream
}

fn libdeflate(data: &[u8], level: i32) -> Vec<u8> {
    let level = libdeflater::CompressionLvl::new(level).expect("a level");
    let mut compressor = libdeflater::Compressor::new(level);
    let mut stream = vec![0; compressor.deflate_compress_bound(data.len())];
    let bytes = compressor.deflate_compress(data, &mut stream).expect("there is room");
    stream.truncate(bytes);
    stream
}

/// A stream by an encoder, a level and a seed.
fn stream(data: &[u8], how: u32) -> Vec<u8> {
    match how % 23 {
        how @ 0..10 => zlib(data, how, true),
        how @ 10..20 => zlib(data, how - 10, false),
        how => libdeflate(&data[..data.len().min(4096)], [1, 6, 12][how as usize - 20]),
    }
}

#[test]
fn streams_of_zlib_and_libdeflate_come_out() {
    // With a run of code lengths from literals to distances, by the encoder.
    let mut refused = BTreeSet::new();
    for seed in 0..40 {
        let data = sample(seed, [4096, 0, 1, 4095, 300, 50_000, 200_000][seed as usize % 7]);
        for how in 0..23 {
            let stream = stream(&data, how);
            let data = if how < 20 { &data[..] } else { &data[..data.len().min(4096)] };
            let (completion, output) = decompress(&stream, data.len().max(1), WHOLE);
            if spans(&stream) {
                assert_eq!((completion.status, completion.error), (DATA_ERROR, 6), "{seed} {how}");
                refused.insert(how);
                continue;
            }
            assert_eq!((completion.status, completion.error), (SUCCESS, 0), "{seed} {how}");
            assert!(output == data, "{seed} {how}");
            assert_eq!(completion.crc, libdeflater::crc32(data));
            assert_eq!(completion.bytes_completed as usize, stream.len());
        }
    }
    assert!(refused.iter().all(|how| *how >= 20), "libdeflate's alone: {refused:?}");
}

#[test]
fn a_distance_beyond_4096_is_an_error_and_one_of_4096_is_not() {
    let mut data: Vec<u8> = sample(7, 1 << 17).iter().step_by(13).copied().collect();
    data.truncate(6000);
    data.extend_from_within(..500);
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&data).unwrap();
    assert_eq!(error(&encoder.finish().unwrap()), 17);
    // With the fixed code: 4096 literals, then 3 bytes from as far away.
    let mut bits = Bits::default();
    bits.number(3, 3);
    (0..4096).for_each(|nth| {
        bits.word(0x30 + nth % 100, 8);
    });
    let with_distance = |extra| {
        let mut bits = bits.clone();
        // Symbol 257: 3 bytes. Symbol 23: 3073 and 10 bits of more; 24: 4097 and 11 bits of more.
        match extra {
            0..1024 => bits.word(1, 7).word(23, 5).number(extra, 10).word(0, 7),
            more => bits.word(1, 7).word(24, 5).number(more - 1024, 11).word(0, 7),
        };
        decompress(&bits.bytes(), 5000, WHOLE)
    };
    let (completion, output) = with_distance(1023);
    assert_eq!((completion.status, output.len()), (SUCCESS, 4099));
    assert_eq!(output[4096..], output[..3]);
    let (completion, output) = with_distance(1024);
    assert_eq!((completion.status, completion.error, output.len()), (DATA_ERROR, 17, 4096));
}

/// The beginning of a block with the fixed code.
fn fixed() -> Bits {
    let mut bits = Bits::default();
    bits.number(3, 3);
    bits
}

/// The beginning of a dynamic block, with the lengths of the code lengths' code in their order.
fn dynamic(literals: u32, distances: u32, lengths: &[u32]) -> Bits {
    let mut bits = Bits::default();
    bits.number(5, 3).number(literals - 257, 5).number(distances - 1, 5);
    bits.number(lengths.len() as u32 - 4, 4);
    lengths.iter().for_each(|length| {
        bits.number(*length, 3);
    });
    bits
}

/// A dynamic header by code lengths, each of which is sent with 4 bits.
fn header(change: impl FnOnce(&mut Code)) -> Bits {
    let mut code = Code::fixed();
    code.literals = vec![0; 286];
    code.literals[usize::from(b'a')] = 1;
    code.literals[256] = 2;
    code.literals[257] = 2;
    code.distances = vec![0; 30];
    code.distances[0] = 1;
    change(&mut code);
    code.header(true)
}

#[test]
fn each_kind_of_bad_stream_has_its_error() {
    // 2: the code lengths' code has the one word 0, and a 1 comes.
    assert_eq!(
        error(
            dynamic(257, 1, &[1, 0, 0, 0])
                .number(0xffff, 16)
                .align()
                .number(0, 32)
                .bytes()
                .as_slice()
        ),
        2
    );
    // 3: 16 (by the word 0) repeats what has not been.
    assert_eq!(error(&dynamic(257, 1, &[1, 1, 0, 0]).number(0, 32).bytes()), 3);
    // 5: 18 three times, 138 + 119 zeros for 257, and 11.
    let mut none = dynamic(257, 11, &[0, 0, 1, 1]);
    none.word(1, 1).number(127, 7).word(1, 1).number(108, 7).word(1, 1).number(0, 7);
    assert_eq!(error(&none.bytes()), 5);
    // 6: 18 twice, 138 + 138 zeros for 257; by one, which would be the distance's.
    for last in [127, 110] {
        let mut more = dynamic(257, 1, &[0, 0, 1, 1]);
        more.word(1, 1).number(127, 7).word(1, 1).number(last, 7);
        assert_eq!(error(&more.bytes()), 6);
    }
    // 7: those of literals are right, and of the distance there are 11.
    let mut more = dynamic(257, 1, &[0, 0, 1, 1]);
    more.word(1, 1).number(127, 7).word(1, 1).number(108, 7).word(1, 1).number(0, 7);
    assert_eq!(error(&more.bytes()), 7);
    // 4: 16 for the distance, behind 256 zeros and a 1: the words are 0 for 18, 10 for 16, 11 for 1.
    let mut first = dynamic(257, 1, &[2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    first.word(0, 1).number(127, 7).word(0, 1).number(107, 7).word(2, 2).word(3, 2).number(0, 2);
    assert_eq!(error(&first.bytes()), 4);
    // 8: three words of 1 bit.
    assert_eq!(error(&dynamic(257, 1, &[1, 1, 1, 0]).number(0, 32).bytes()), 8);
    assert_eq!(error(&header(|code| code.literals[0] = 1).bytes()), 9);
    assert_eq!(error(&header(|code| code.distances[1..3].fill(1)).bytes()), 10);
    // 11: the code has no word 11; and a symbol of the fixed code that must not occur.
    assert_eq!(error(&header(|code| code.literals[257] = 0).number(3, 2).bytes()), 15);
    assert_eq!(
        error(&header(|code| code.literals[257] = 0).number(3, 2).number(0x3ff, 32).bytes()),
        11
    );
    assert_eq!(error(&fixed().word(0b1100_0110, 8).number(0, 32).bytes()), 11);
    // 12: the distance's word 1, of a code with 0 only; and a symbol of the fixed code.
    let far = header(|_| ()).word(0, 1).word(3, 2).word(1, 1).number(0, 32).bytes();
    assert_eq!(error(&far), 12);
    assert_eq!(error(&fixed().word(0x30, 8).word(1, 7).word(30, 5).number(0, 32).bytes()), 12);
    assert_eq!(error(&[0b111]), 13);
    assert_eq!(error(&[1, 5, 0, 0xfa, 0xfe, 1, 2, 3, 4, 5]), 14);
    assert_eq!(error(&[1, 5, 0, 0xfa, 0xff, 1, 2, 3, 4, 5]), 0);
    assert_eq!(error(&[1, 5, 0, 0xfa, 0xff, 1, 2, 3, 4]), 15);
    assert_eq!(error(&[]), 15);
    assert_eq!(error(&fixed().word(0x30, 8).word(1, 7).word(1, 5).number(0, 32).bytes()), 18);
    assert_eq!(error(&fixed().word(0x30, 8).word(1, 7).word(0, 5).number(0, 7).bytes()), 0);
    assert_eq!(error(&dynamic(287, 1, &[1, 1, 0, 0]).number(0, 32).bytes()), 35);
    assert_eq!(error(&dynamic(286, 31, &[1, 1, 0, 0]).number(0, 32).bytes()), 36);
}

#[test]
fn a_header_that_does_not_fit_into_the_aecs_is_an_error() {
    // 316 lengths of 7 bits each, of which 2048 bits are not all.
    let mut bits = dynamic(286, 30, &[0, 0, 0, 7, 7, 6, 5, 4, 3, 2, 1]);
    bits.number(0, 0);
    (0..316).for_each(|_| {
        bits.number(0x7f, 7);
    });
    let bytes = bits.bytes();
    let memory = memory(&bytes, 100);
    let mut engine = Engine::default();
    let run = |engine: &mut Engine, bytes| {
        let job = job(bytes, 100, ENABLE).flags(WRITE_AECS).aecs(AECS, DECOMPRESS_AECS);
        let completion = job.run(engine, &memory);
        (completion.status, completion.error)
    };
    assert_eq!(run(&mut engine, 256), (SUCCESS, 0));
    assert_eq!(run(&mut engine, 257), (DATA_ERROR, 1));
}

#[test]
fn what_is_stopped_at_and_checked_is_as_the_flags_say() {
    // A block that is not the last, one that is, and a third behind it.
    let mut bits = Bits::default();
    bits.number(2, 3).word(0x30 + 1, 8).word(0, 7);
    let first = bits.clone();
    bits.number(3, 3).word(0x30 + 2, 8).word(0, 7);
    let two = bits.clone();
    bits.number(2, 3).word(0x30 + 3, 8).word(0, 7).align();
    // Bytes 1, 2 and 3 by the blocks.
    let run = |bits: &Bits, flags| {
        let (completion, output) = decompress(&bits.bytes(), 100, ENABLE | FLUSH | flags);
        (output, completion.error)
    };
    assert_eq!(run(&bits, 0), (vec![1, 2, 3], 0));
    assert_eq!(run(&bits, STOP), (vec![1], 0));
    assert_eq!(run(&bits, STOP | LAST_BLOCK), (vec![1, 2], 0));
    assert_eq!(run(&bits, CHECK), (vec![1, 2, 3], 0));
    assert_eq!(run(&bits, CHECK | LAST_BLOCK), (vec![1, 2, 3], 15));
    assert_eq!(run(&two, CHECK | LAST_BLOCK), (vec![1, 2], 0));
    assert_eq!(run(&first, CHECK | LAST_BLOCK), (vec![1], 15));
    assert_eq!(run(&first, CHECK), (vec![1], 0));
    assert_eq!(run(&first, STOP | LAST_BLOCK), (vec![1], 0));
    let mut open = Bits::default();
    open.number(2, 3).word(0x30 + 1, 8);
    assert_eq!(run(&open, CHECK), (vec![1], 15));
    let mut second = first.clone();
    second.number(2, 3).word(0x30 + 2, 8).align();
    assert_eq!(run(&second, CHECK), (vec![1, 2], 15));
    assert_eq!(run(&open, STOP), (vec![1], 0));
}

#[test]
fn bits_at_the_end_are_ignored() {
    let mut bits = Bits::default();
    bits.number(2, 3).word(0x30 + 1, 8).word(0x30 + 2, 8);
    let used = bits.0.len() % 8;
    bits.word(0x30 + 3, 8);
    let stream = bits.bytes();
    let ignored = (8 - (bits.0.len() % 8)) % 8;
    assert_eq!(ignored, 8 - used);
    for more in 0..=7 {
        let flags = ENABLE | (more as u16) << 6;
        let (completion, output) = decompress(&stream, 100, flags);
        assert_eq!(completion.status, SUCCESS);
        let whole = more <= ignored;
        assert_eq!(output, if whole { vec![1, 2, 3] } else { vec![1, 2] }, "{more}");
    }
}

#[test]
fn suppressed_output_is_only_counted_into_the_checksums() {
    let data = sample(4, 300_000);
    let stream = zlib(&data, 6, false);
    let memory = memory(&stream, 1);
    let completion = job(stream.len(), 0, WHOLE | SUPPRESS).run(&mut Engine::default(), &memory);
    assert_eq!((completion.status, completion.output_bytes), (SUCCESS, 0));
    assert_eq!(completion.crc, libdeflater::crc32(&data));
    assert_eq!(*memory.writes.borrow(), []);
}

#[test]
fn output_that_cannot_be_continued_is_an_error_and_else_an_overflow() {
    let data = sample(4, 4096);
    let stream = zlib(&data, 6, false);
    let memory = memory(&stream, 4096);
    let mut engine = Engine::default();
    let short = job(stream.len(), 4095, WHOLE);
    let completion = short.run(&mut engine, &memory);
    assert_eq!((completion.status, completion.error), (DATA_ERROR, 25));
    let written = short.clone().aecs(AECS, DECOMPRESS_AECS).flags(WRITE_AECS_ON_OVERFLOW);
    let completion = written.run(&mut engine, &memory);
    assert_eq!((completion.status, completion.error, completion.output_bytes), (OVERFLOW, 0, 4095));
    // With room for all, such an AECS is not written.
    memory.writes.borrow_mut().clear();
    let whole = written.destination(DESTINATION, 4096);
    assert_eq!(whole.run(&mut engine, &memory).status, SUCCESS);
    assert_eq!(*memory.writes.borrow(), [(DESTINATION, 4096)]);
}

/// Decompresses a stream whose bytes come in pieces, into room that comes in pieces, as libqpl does.
fn in_pieces(stream: &[u8], pieces: &[usize], rooms: &[usize]) -> (Vec<u8>, Completion) {
    let mut engine = Engine::default();
    let memory = memory(stream, 1 << 16);
    let (mut output, mut read, mut toggled, mut first) = (Vec::new(), 0, false, true);
    let (mut pieces, mut rooms) = (pieces.iter().cycle(), rooms.iter().cycle());
    let mut piece_end = 0;
    loop {
        if read == piece_end {
            piece_end = stream.len().min(read + pieces.next().expect("it cycles"));
        }
        let last = piece_end == stream.len();
        let room = *rooms.next().expect("it cycles");
        let flags = if last { WHOLE } else { ENABLE | STOP | LAST_BLOCK };
        let completion = Job::new(Job::DECOMPRESS)
            .source(SOURCE + read as u64, piece_end - read)
            .destination(DESTINATION, room)
            .aecs(AECS, DECOMPRESS_AECS)
            .operation_flags(flags)
            .flags(if first { 0 } else { READ_AECS })
            .flags(if last { WRITE_AECS_ON_OVERFLOW } else { WRITE_AECS })
            .flags(if toggled { TOGGLE } else { 0 })
            .run(&mut engine, &memory);
        output.extend(memory.get(DESTINATION, completion.output_bytes as usize));
        match completion.status {
            SUCCESS if last => return (output, completion),
            SUCCESS => read = piece_end,
            OVERFLOW => {
                assert_eq!(completion.output_bytes as usize, room);
                read += completion.bytes_completed as usize;
                assert!(read <= piece_end);
            }
            _ => return (output, completion),
        }
        (toggled, first) = (!toggled, false);
        // Nothing counts of the AECS that is not read.
        let other = AECS + if toggled { 0 } else { DECOMPRESS_AECS as u64 };
        memory.put(other, &[0xee; DECOMPRESS_AECS]);
    }
}

#[test]
fn a_stream_may_be_split_at_every_byte() {
    for how in [0, 1, 6, 9, 16, 20, 22] {
        let data = sample(how.into(), 2500);
        let stream = stream(&data, how);
        for split in 1..stream.len() {
            let rest = stream.len() - split;
            let (output, completion) = in_pieces(&stream, &[split, rest.max(1)], &[4000]);
            assert_eq!((completion.status, completion.error), (SUCCESS, 0), "{how} {split}");
            assert!(output == data, "{how} {split}");
            assert_eq!(completion.crc, libdeflater::crc32(&data));
        }
    }
}

#[test]
fn output_may_be_full_at_every_byte() {
    for how in [0, 1, 6, 16, 20] {
        let data = sample(40 + u64::from(how), 1500);
        let stream = stream(&data, how);
        for room in 1..data.len() {
            let (output, completion) = in_pieces(&stream, &[stream.len()], &[room, 3000]);
            assert_eq!((completion.status, completion.error), (SUCCESS, 0), "{how} {room}");
            assert!(output == data, "{how} {room}");
            assert_eq!(completion.crc, libdeflater::crc32(&data));
        }
    }
}

#[test]
fn a_header_alone_leaves_its_code_for_bodies_as_canned_streams_have_it() {
    // A header with its tokens cut off, decompressed once into an AECS without history.
    let code = {
        let mut code = Code::fixed();
        code.literals.truncate(286);
        code.literals[284..].fill(9);
        code.literals[143] = 0;
        code
    };
    let header = code.header(false);
    let ignored = (8 - header.0.len() % 8) % 8;
    let memory = memory(&header.bytes(), 4096);
    let mut engine = Engine::default();
    let completion = Job::new(Job::DECOMPRESS)
        .source(SOURCE, header.bytes().len())
        .aecs(AECS, 0x4e0)
        .flags(WRITE_AECS | TOGGLE)
        .operation_flags(ENABLE | SUPPRESS | (ignored as u16) << 6)
        .run(&mut engine, &memory);
    assert_eq!((completion.status, completion.error), (SUCCESS, 0));
    assert_eq!(memory.get(AECS + 0x434, 2), [0, 0], "Decompress State: at a token");
    assert_eq!(memory.get(AECS + 0x1b8, 32), [0; 32], "no input is left");
    // The body, of the compressor with the same code and no header.
    let data: Vec<u8> = sample(9, 3000).iter().map(|byte| byte & 0x7f).collect();
    memory.put(0x50_0000_0000, &code.compress_aecs(&Bits::default()));
    memory.put(SOURCE, &data);
    let compressed = Job::new(Job::COMPRESS)
        .source(SOURCE, data.len())
        .destination(DESTINATION, 4096)
        .aecs(0x50_0000_0000, COMPRESS_AECS)
        .flags(READ_AECS)
        .operation_flags(2 | 4)
        .run(&mut engine, &memory);
    assert_eq!(compressed.status, SUCCESS);
    let body = memory.get(DESTINATION, compressed.output_bytes as usize);
    memory.put(SOURCE, &body);
    let completion = Job::new(Job::DECOMPRESS)
        .source(SOURCE, body.len())
        .destination(DESTINATION, 4096)
        .aecs(AECS, 0x4e0)
        .flags(READ_AECS)
        .operation_flags(ENABLE | FLUSH | STOP)
        .run(&mut engine, &memory);
    assert_eq!((completion.status, completion.error), (SUCCESS, 0));
    assert_eq!(memory.get(DESTINATION, completion.output_bytes as usize), data);
}

#[test]
fn history_in_the_aecs_is_a_dictionary() {
    // libqpl writes it from 0 on; one that fills the buffer goes round.
    for (size, word) in [(5, 5_u16), (4096, 0x9000), (4096, 0x8000), (4096, 0x8003)] {
        let dictionary = sample(size, size as usize);
        let memory = memory(&fixed().word(1, 7).word(4, 5).number(0, 1).word(0, 7).bytes(), 100);
        let round = usize::from(word & 0xfff) % 4096;
        let mut buffer = dictionary.clone();
        if size == 4096 {
            buffer.rotate_right(round);
        }
        memory.put(AECS + 0x434, &[1, 0]).put(AECS + 0x4e4, &word.to_le_bytes());
        memory.put(AECS + 0x4e8, &buffer);
        let completion = job(4, 100, WHOLE)
            .aecs(AECS, DECOMPRESS_AECS)
            .flags(READ_AECS)
            .run(&mut Engine::default(), &memory);
        assert_eq!((completion.status, completion.error), (SUCCESS, 0), "{word:x}");
        // 3 bytes from 5 before.
        let start = dictionary.len() - 5;
        assert_eq!(memory.get(DESTINATION, 3), dictionary[start..start + 3], "{word:x}");
    }
}

#[test]
fn an_aecs_that_means_nothing_is_an_error() {
    let bad = |at: u64, bytes: &[u8]| {
        let memory = memory(&[3, 0], 100);
        memory.put(AECS + 0x434, &[1, 0]).put(AECS + at, bytes);
        let completion = job(2, 100, WHOLE)
            .aecs(AECS, DECOMPRESS_AECS)
            .flags(READ_AECS)
            .run(&mut Engine::default(), &memory);
        (completion.status, completion.error)
    };
    assert_eq!(bad(0, &[]), (SUCCESS, 0));
    assert_eq!(bad(0x1b8, &[65]), (DATA_ERROR, 22), "input bits");
    assert_eq!(bad(0x1dd, &[1]), (DATA_ERROR, 22), "a format of the next generation");
    assert_eq!(bad(0x4e4, &[1, 0x10]), (DATA_ERROR, 22), "history beyond its buffer");
    assert_eq!(bad(0x43c, &[3, 0, 0, 0]), (DATA_ERROR, 22), "a match without a distance");
    assert_eq!(bad(0x434, &[2, 0, 0, 0, 0, 0, 1, 0]), (DATA_ERROR, 22), "a stored block's bytes");
    // Codes: 3 of one bit; a literal beyond the table.
    assert_eq!(bad(0x1f4, &[3]), (SUCCESS, 0), "not looked at in a header");
    let tables = |at: u64, bytes: &[u8]| {
        let memory = memory(&[3, 0], 100);
        memory.put(AECS + 0x21c, &[0xff; 20]).put(AECS + at, bytes);
        let completion = job(2, 100, ENABLE)
            .aecs(AECS, DECOMPRESS_AECS)
            .flags(READ_AECS)
            .run(&mut Engine::default(), &memory);
        (completion.status, completion.error)
    };
    assert_eq!(tables(0x1f4, &[2]), (SUCCESS, 0));
    assert_eq!(tables(0x1f4, &[3]), (DATA_ERROR, 22));
    // A literal of 1 bit, and none or one of 15 bits, whose index may be anywhere.
    let index = |count: u8, index: &[u8]| {
        let memory = memory(&[3, 0], 100);
        memory.put(AECS + 0x21c, &[0xff; 20]).put(AECS + 0x1f4, &[2]);
        memory.put(AECS + 0x204, &[0, count << 7]).put(AECS + 0x1f0, index);
        let job = job(2, 100, ENABLE).aecs(AECS, DECOMPRESS_AECS).flags(READ_AECS);
        let completion = job.run(&mut Engine::default(), &memory);
        (completion.status, completion.error)
    };
    assert_eq!(index(0, &[0xff; 4]), (SUCCESS, 0));
    assert_eq!(index(1, &[0, 0x80, 0x7f]), (SUCCESS, 0), "255, the last of the table");
    assert_eq!(index(1, &[0, 0, 0x80]), (DATA_ERROR, 22), "256");
    assert_eq!(index(1, &[0xff; 4]), (DATA_ERROR, 22), "65535");
}

#[test]
fn more_literals_than_there_are_make_a_bad_aecs() {
    // The word of an ALU field for codes of 8 bits begins at bit 8, that for codes of 9 bits at bit 17.
    for (eight, nine, verdict) in
        [(256_u32, 0_u32, (SUCCESS, 0)), (128, 128, (SUCCESS, 0)), (128, 129, (DATA_ERROR, 22))]
    {
        let memory = memory(&[0, 0], 100);
        memory.put(AECS + 0x21c, &[0xff; 20]);
        memory.put(AECS + 0x1f8, &(eight << 8 | nine << 17).to_le_bytes());
        memory.put(AECS + 0x20c, &((256 << 17) as u32).to_le_bytes());
        let job = job(2, 100, ENABLE).aecs(AECS, DECOMPRESS_AECS).flags(READ_AECS);
        let completion = job.run(&mut Engine::default(), &memory);
        assert_eq!((completion.status, completion.error), verdict, "{eight} {nine}");
    }
}

#[test]
fn codes_that_libqpl_writes_for_huffman_only_streams_are_used() {
    // "a" has the word 0, "b" 10, "c" 11.
    let memory = memory(&Bits::default().word(0b0101_1010, 8).word(0, 8).bytes(), 100);
    memory.put(AECS + 0x21c, &[0xff, 0xff, 0xff, 7, 0xff, 0xff, 0xff, 7, 0xff, 0xff, 0x7f, 0]);
    memory.put(AECS + 0x228, &[0xff, 0xff, 0xff, 7, 0xff, 0xff, 0xff, 0x7f]);
    // One of 1 bit, two of 2 bits; the first of 2 bits is 2, and at 1 in the table.
    memory.put(AECS + 0x1f4, &[1 | 2 << 2]).put(AECS + 0x208, &[2 << 2]);
    memory.put(AECS + 0x1e0, &[1 << 2]).put(AECS + 0x328, b"abc");
    let completion = job(2, 100, ENABLE | FLUSH | 7 << 6)
        .aecs(AECS, 0x4e0)
        .flags(READ_AECS)
        .run(&mut Engine::default(), &memory);
    assert_eq!((completion.status, completion.error), (SUCCESS, 0));
    assert_eq!(memory.get(DESTINATION, completion.output_bytes as usize), b"abcaba");
}

#[test]
fn what_was_processed_to_its_end_stays_at_its_end() {
    let stream = zlib(b"hello", 6, false);
    let memory = memory(&stream, 100);
    let mut engine = Engine::default();
    let first = job(stream.len(), 100, ENABLE | STOP | LAST_BLOCK)
        .aecs(AECS, DECOMPRESS_AECS)
        .flags(WRITE_AECS | TOGGLE);
    assert_eq!(first.run(&mut engine, &memory).output_bytes, 5);
    assert_eq!(memory.get(AECS + 0x434, 2), [8, 0]);
    let again = job(stream.len(), 100, WHOLE).aecs(AECS, DECOMPRESS_AECS).flags(READ_AECS);
    let completion = again.run(&mut engine, &memory);
    assert_eq!((completion.status, completion.output_bytes), (SUCCESS, 0));
    assert_eq!(completion.crc, libdeflater::crc32(b"hello"));
}

proptest! {
    #[test]
    fn input_and_output_may_come_in_any_pieces(
        seed: u64,
        bytes in 0..20_000_usize,
        how in 0..20_u32,
        pieces in vec(1..400_usize, 1..6),
        rooms in vec(1..3000_usize, 1..6),
    ) {
        let data = sample(seed, bytes);
        let stream = stream(&data, how);
        let (output, completion) = in_pieces(&stream, &pieces, &rooms);
        prop_assert_eq!((completion.status, completion.error), (SUCCESS, 0));
        prop_assert!(output == data);
        prop_assert_eq!(completion.crc, libdeflater::crc32(&data));
    }

    #[test]
    fn a_changed_stream_is_read_as_zlib_reads_it(
        seed: u64,
        how in 0..20_u32,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut stream = stream(&sample(seed, 3000), how);
        for (at, byte) in changes {
            *at.get_mut(&mut stream) = byte;
        }
        let (completion, output) = decompress(&stream, 1 << 21, WHOLE);
        match inflate(&stream) {
            // zlib's window is larger, and it permits a run of code lengths of both codes.
            Ok((expected, bytes)) if completion.error != 17 && !spans(&stream) => {
                prop_assert_eq!((completion.status, completion.error), (SUCCESS, 0));
                prop_assert!(output == expected);
                prop_assert_eq!(completion.bytes_completed as usize, bytes);
            }
            Ok(_) => {}
            // zlib refuses some codes at once, of which nobody may have asked for a word that is not there.
            Err(_) if completion.status == SUCCESS => {
                prop_assert!(dynamic_blocks(&stream));
            }
            Err(_) => prop_assert_ne!(completion.error, 0),
        }
    }

    #[test]
    fn any_bytes_have_a_verdict_that_pieces_do_not_change(
        stream in vec(any::<u8>(), 1..300),
        pieces in vec(1..40_usize, 1..4),
    ) {
        let (whole, output) = decompress(&stream, 1 << 16, WHOLE);
        let (pieces, other) = in_pieces(&stream, &pieces, &[1 << 16]);
        prop_assert_eq!((whole.status, whole.error), (other.status, other.error));
        prop_assert_eq!(output, pieces);
    }
}

/// Whether the first block of a stream has codes of its own, and a run of code lengths that is of both.
fn spans(stream: &[u8]) -> bool {
    let bits = Bits::of(stream).0;
    let mut bits = bits.into_iter();
    let mut take =
        |count: u32| (0..count).map(|at| u32::from(bits.next() == Some(true)) << at).sum::<u32>();
    if take(3) >> 1 != 2 {
        return false;
    }
    let (literals, distances, count) = (257 + take(5), 1 + take(5), 4 + take(4));
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let mut lengths = [0; 19];
    ORDER[..count as usize].iter().for_each(|&symbol| lengths[symbol] = take(3));
    let mut at = 0;
    while at < literals + distances {
        // Canonical: words of each length in the order of symbols, RFC 1951, 3.2.2.
        let (mut word, mut first, mut symbol) = (0, 0, None);
        for length in 1..=7 {
            word = word << 1 | take(1);
            first <<= 1;
            let of_length = || (0..19).filter(|&symbol| lengths[symbol] == length);
            symbol = of_length().nth((word - first) as usize);
            first += of_length().count() as u32;
            if symbol.is_some() {
                break;
            }
        }
        let run = match symbol {
            Some(16) => 3 + take(2),
            Some(17) => 3 + take(3),
            Some(18) => 11 + take(7),
            Some(_) => 1,
            None => return false,
        };
        if at < literals && at + run > literals {
            return true;
        }
        at += run;
    }
    false
}

/// Whether a stream may have blocks with codes of their own.
fn dynamic_blocks(stream: &[u8]) -> bool {
    Bits::of(stream).0.windows(2).any(|bits| !bits[0] && bits[1])
}
