//! A whole destination: a main channel and channels that come as they like. It ends, and takes a VM only
//! where its own rules hold.

#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use multifd::core::Registry;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::{Destination, Error};
use multifd_fuzz::parts;

/// The most RAM that is provided.
const MOST: u64 = 64 << 20;

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| multifd::registry().expect("the bundled codecs"))
}

fuzz_target!(|input: &[u8]| {
    let (choice, parts) = parts(input);
    let Some((&main, channels)) = parts.split_first() else { return };
    let codecs = registry().iter().count();
    let codec = registry().iter().nth(usize::from(choice) % codecs).expect("one of them");
    let channels: Vec<_> =
        channels.iter().map(|bytes| std::io::Cursor::new(bytes.to_vec())).collect();
    let arrived = Destination::builder(registry())
        .compression(Arc::clone(codec))
        .device_state_limit(1 << 20)
        .early_state_limit(1 << 20)
        .decode(main, channels, |incoming| {
            let total =
                incoming.blocks.iter().fold(0, |sum: u64, block| sum.saturating_add(block.bytes));
            if total > MOST {
                return Err(Error::caller("too much RAM"));
            }
            let blocks = incoming.blocks.iter().map(|info| {
                let memory = MmapRegion::<()>::new(info.bytes as usize).map_err(Error::caller)?;
                Ok(RamBlock::new(info.name.clone(), memory).fresh())
            });
            let blocks: Vec<_> = blocks.collect::<Result<_, Error>>()?;
            Ok(Arc::new(Ram::new(incoming.page_size, blocks)?))
        });
    if let Ok(arrived) = arrived {
        assert!(!arrived.device_state.is_empty());
        assert!(arrived.missing_pages() <= arrived.ram.bytes() / 4096);
        // Nobody has opened a return path that could be answered.
        _ = arrived.confirm();
    }
});
