//! The main channel: no panic, and the same events at the same bytes however they are split.

use multifd_core::stream::{Limits, MainDecoder, MainEvent};

type Said = (Vec<(u64, MainEvent)>, Option<String>);

fn decode(choice: u8, bytes: &[u8], step: usize) -> Said {
    let mut limits = Limits::default();
    (limits.device_state, limits.early_state) = (64 << 10, 64 << 10);
    let mut decoder = MainDecoder::new(limits);
    if choice & 1 != 0 {
        decoder = decoder.passing_postcopy();
    }
    if choice & 2 != 0 {
        decoder = decoder.passing_device_state();
    }
    let mut events = Vec::new();
    for mut piece in bytes.chunks(step) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(event)) => events.push((decoder.offset(), event)),
                Ok(None) => break,
                Err(error) => return (events, Some(error.to_string())),
            }
        }
        if decoder.is_over() {
            break;
        }
    }
    loop {
        match decoder.finish() {
            Ok(Some(event)) => events.push((decoder.offset(), event)),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error.to_string())),
        }
    }
}

/// Runs the target on one input.
pub fn main_channel(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let whole = decode(choice, bytes, usize::MAX);
    let step = [1, 3, 50, 999][usize::from(choice >> 4) % 4];
    assert_eq!(whole, decode(choice, bytes, step), "in steps of {step}");
}
