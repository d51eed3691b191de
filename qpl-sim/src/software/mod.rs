//! What an engine computes: DEFLATE (RFC 1951) within a window of 4 KiB, on the CPU.

mod deflate;
mod inflate;
#[allow(unsafe_code, reason = "the safe crate does not say where a stream ends")]
mod libdeflate;
mod repeated;

use std::cell::RefCell;

use qpl_sys::{Operation, Status};

use self::deflate::Compressor;
use self::libdeflate::{Decompressor, Refusal};

/// The bytes that a distance may reach back.
const WINDOW: usize = 4096;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    /// Bytes of input used up.
    pub(crate) read: u32,
    /// Bytes of output written.
    pub(crate) written: u32,
    /// CRC-32 of what is not compressed.
    pub(crate) crc: u32,
}

impl Outcome {
    /// An end at which nothing is said to be done.
    pub(crate) fn failed(status: Status) -> Self {
        Self { status, read: 0, written: 0, crc: 0 }
    }

    fn done(read: usize, written: usize, crc: u32) -> Self {
        // Lengths came as `u32`.
        Self { status: Status::OK, read: read as u32, written: written as u32, crc }
    }
}

/// Runs a job.
pub(crate) fn run(operation: Operation, input: &[u8], output: &mut [u8]) -> Outcome {
    if let Some(outcome) = at_once(operation, input, output) {
        return outcome;
    }
    match operation {
        Operation::Compress => compress(input, output),
        Operation::Decompress => decompress(input, output),
    }
}

/// Runs a job that costs next to nothing: to compress a page that is one repeated byte, or to
/// decompress what came of one. `None` for all others, whose output is then untouched.
pub(crate) fn at_once(operation: Operation, input: &[u8], output: &mut [u8]) -> Option<Outcome> {
    match operation {
        Operation::Compress => {
            let byte = repeated::byte_of_page(input)?;
            let outcome = repeated::with_stream(byte, input.len(), |stream, crc| {
                let Some(output) = output.get_mut(..stream.len()) else {
                    return Outcome::failed(Status::MORE_OUTPUT_NEEDED);
                };
                output.copy_from_slice(stream);
                Outcome::done(input.len(), stream.len(), crc)
            });
            Some(outcome)
        }
        Operation::Decompress => {
            let byte = repeated::byte_of_stream(input)?;
            let bytes = output.len();
            let crc =
                repeated::with_stream(byte, bytes, |stream, crc| (stream == input).then_some(crc))?;
            output.fill(byte);
            Some(Outcome::done(input.len(), bytes, crc))
        }
    }
}

fn compress(input: &[u8], output: &mut [u8]) -> Outcome {
    thread_local!(static COMPRESSOR: RefCell<Compressor> = RefCell::default());
    let written = COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(input, output));
    match written {
        Some(written) => Outcome::done(input.len(), written, crc(input)),
        None => Outcome::failed(Status::MORE_OUTPUT_NEEDED),
    }
}

fn decompress(input: &[u8], output: &mut [u8]) -> Outcome {
    thread_local!(static DECOMPRESSOR: RefCell<Decompressor> = RefCell::default());
    let inflated = if output.len() <= WINDOW {
        // A distance above the window reaches to before the page, which any inflate refuses. This
        // one does not say what it has against a stream.
        DECOMPRESSOR.with_borrow_mut(|inflate| inflate.decompress(input, output)).map_err(
            |refusal| match refusal {
                Refusal::Long => Status::MORE_OUTPUT_NEEDED,
                Refusal::Malformed => {
                    inflate::inflate(input, output).err().unwrap_or(Status::BAD_LL_CODE)
                }
            },
        )
    } else {
        inflate::inflate(input, output)
    };
    match inflated {
        Ok((read, written)) => Outcome::done(read, written, crc(&output[..written])),
        Err(status @ Status::MORE_OUTPUT_NEEDED) => {
            Outcome { status, ..Outcome::done(input.len(), output.len(), 0) }
        }
        Err(status) => Outcome::failed(status),
    }
}

/// CRC-32 as gzip has it.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = libdeflater::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| b"hello brave world"[at % 17] + u8::from(at % 97 == 0)).collect()
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn pages_of_every_kind_and_size_come_back() {
        for bytes in [1, 2, 3, 5, 100, 4095, 4096, 4097, 16384, 65536] {
            for page in [vec![0; bytes], vec![200; bytes], text(bytes), noise(bytes)] {
                let mut stream = vec![0; 2 * bytes + 100];
                let compressed = run(Operation::Compress, &page, &mut stream);
                assert_eq!((compressed.status, compressed.read), (Status::OK, bytes as u32));
                stream.truncate(compressed.written as usize);
                let mut back = vec![1; bytes];
                let inflated = run(Operation::Decompress, &stream, &mut back);
                assert!(back == page, "{bytes} bytes: {inflated:?}");
                let expected = Outcome::done(stream.len(), bytes, crc(&page));
                assert_eq!(inflated, expected);
                assert_eq!(compressed.crc, expected.crc);
            }
        }
    }

    #[test]
    fn a_page_that_does_not_shrink_needs_more_output() {
        let page = noise(4096);
        let outcome = run(Operation::Compress, &page, &mut [0; 4095]);
        assert_eq!(outcome, Outcome::failed(Status::MORE_OUTPUT_NEEDED));
        let outcome = run(Operation::Compress, &[9; 4096], &mut [0; 5]);
        assert_eq!(outcome, Outcome::failed(Status::MORE_OUTPUT_NEEDED));
        assert_eq!(run(Operation::Compress, &noise(65536), &mut [0; 65535]).status, outcome.status);
    }

    #[test]
    fn a_page_that_does_not_fit_needs_more_output() {
        let mut stream = vec![0; 4096];
        let compressed = run(Operation::Compress, &text(4096), &mut stream);
        stream.truncate(compressed.written as usize);
        let outcome = run(Operation::Decompress, &stream, &mut [0; 4000]);
        assert_eq!((outcome.status, outcome.written), (Status::MORE_OUTPUT_NEEDED, 4000));
    }

    #[test]
    fn what_follows_a_stream_is_not_used_up() {
        let mut stream = vec![0; 4096];
        for page in [text(4096), vec![3; 4096]] {
            let written = run(Operation::Compress, &page, &mut stream).written;
            let outcome = run(Operation::Decompress, &stream, &mut [0; 4096]);
            assert_eq!((outcome.status, outcome.read), (Status::OK, written));
        }
    }

    #[test]
    fn a_broken_stream_is_refused_on_either_side_of_the_window() {
        for bytes in [4096, 65536] {
            let mut stream = vec![0; bytes];
            let written = run(Operation::Compress, &text(bytes), &mut stream).written as usize;
            let mut page = vec![0; bytes];
            let cut = run(Operation::Decompress, &stream[..written - 2], &mut page);
            assert_eq!(cut, Outcome::failed(Status::BAD_EOF), "{bytes}");
            stream[0] |= 6;
            let outcome = run(Operation::Decompress, &stream[..written], &mut page);
            assert_eq!(outcome, Outcome::failed(Status::INVALID_BLOCK_TYPE), "{bytes}");
        }
    }

    #[test]
    fn a_distance_past_the_window_is_refused() {
        // What repeats after 5000 bytes can only be shortened by a distance of 5000.
        let page: Vec<_> = noise(5000).into_iter().cycle().take(8192).collect();
        let mut stream = vec![0; 16384];
        let level = libdeflater::CompressionLvl::new(6).unwrap();
        let mut wide = libdeflater::Compressor::new(level);
        let written = wide.deflate_compress(&page, &mut stream).unwrap();
        assert!(written < 6000, "no match at all in {written} bytes");
        let outcome = run(Operation::Decompress, &stream[..written], &mut vec![0; 8192]);
        assert_eq!(outcome, Outcome::failed(Status::BAD_DIST));
        assert_eq!(
            run(Operation::Compress, &page, &mut vec![0; 8191]).status,
            Status::MORE_OUTPUT_NEEDED
        );
    }
}
