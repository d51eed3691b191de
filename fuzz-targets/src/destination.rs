//! A whole destination: a main channel and channels that come as they like. It ends, and takes a VM only
//! where its own rules hold.

use std::io::Cursor;
use std::sync::Arc;

use multifd::Destination;

use crate::{codec, parts, provide, registry};

/// Runs the target on one input.
pub fn destination(input: &[u8]) {
    let (choice, parts) = parts(input);
    let Some((&main, channels)) = parts.split_first() else { return };
    let channels: Vec<_> = channels.iter().map(|bytes| Cursor::new(bytes.to_vec())).collect();
    let arrived = Destination::builder(registry())
        .compression(Arc::clone(codec(choice)))
        .device_state_limit(1 << 20)
        .early_state_limit(1 << 20)
        .decode(main, channels, provide);
    if let Ok(arrived) = arrived {
        assert!(!arrived.vm.device_state.is_empty());
        assert!(arrived.missing_pages() <= arrived.ram.bytes() / 4096);
        // Nobody has opened a return path that could be answered.
        _ = arrived.confirm();
    }
}
