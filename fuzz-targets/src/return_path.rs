//! The return path: no panic, and the same messages however the bytes are split.

use multifd_core::stream::{ReturnDecoder, ReturnMessage};

fn decode(bytes: &[u8], step: usize) -> (Vec<ReturnMessage>, Option<String>) {
    let mut decoder = ReturnDecoder::new();
    let mut said = Vec::new();
    for mut piece in bytes.chunks(step) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(message)) => said.push(message),
                Ok(None) => break,
                Err(error) => return (said, Some(error.to_string())),
            }
        }
    }
    (said, decoder.finish().err().map(|error| error.to_string()))
}

/// Runs the target on one input.
pub fn return_path(bytes: &[u8]) {
    let whole = decode(bytes, usize::MAX);
    for step in [1, 5] {
        assert_eq!(whole, decode(bytes, step), "in steps of {step}");
    }
}
