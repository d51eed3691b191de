//! Descriptors of the simulated IAA: whatever they say, there is a status, and an engine keeps nothing of one for
//! the next.

use std::cell::RefCell;

use iaa_sim::completion::Completion;
use iaa_sim::descriptor::{DESCRIPTOR_BYTES, Descriptor};
use iaa_sim::engine::Engine;
use iaa_sim::memory::{Memory, PageFault};

/// Where the memory begins.
const BASE: u64 = 0x1_0000;

/// Bytes behind those of the input.
const MORE: usize = 16 << 10;

/// The first status by which a descriptor is refused, before anything is done.
const REFUSED: u8 = 0x10;

/// Memory from [`BASE`] on, and none elsewhere.
#[derive(Clone)]
struct Few(RefCell<Vec<u8>>);

impl Few {
    /// The part of it, of so many bytes at `address`, that is there, and the fault behind that.
    fn range(&self, address: u64, bytes: usize) -> (std::ops::Range<usize>, Result<(), PageFault>) {
        let here = self.0.borrow().len();
        let fault = |address| Err(PageFault { address });
        let Some(at) = address.checked_sub(BASE).map(|at| at as usize).filter(|&at| at < here)
        else {
            return (0..0, if bytes == 0 { Ok(()) } else { fault(address) });
        };
        match bytes <= here - at {
            true => (at..at + bytes, Ok(())),
            false => (at..here, fault(BASE + here as u64)),
        }
    }
}

impl Memory for Few {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), PageFault> {
        let (range, verdict) = self.range(address, into.len());
        into[..range.len()].copy_from_slice(&self.0.borrow()[range]);
        verdict
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), PageFault> {
        let (range, verdict) = self.range(address, from.len());
        let bytes = range.len();
        self.0.borrow_mut()[range].copy_from_slice(&from[..bytes]);
        verdict
    }
}

/// Runs the target on one input: a byte that says how many descriptors there are, they, and memory.
pub fn descriptor(input: &[u8]) {
    let Some((&count, rest)) = input.split_first() else { return };
    let bytes = (usize::from(count % 4) + 1) * DESCRIPTOR_BYTES;
    let (descriptors, memory) = rest.split_at(bytes.min(rest.len()));
    let memory = Few(RefCell::new([memory, &vec![0; MORE]].concat()));
    let mut used = Engine::default();
    for bytes in descriptors.chunks_exact(DESCRIPTOR_BYTES) {
        let descriptor = Descriptor(bytes.try_into().expect("as many as a descriptor has"));
        let (before, other) = (memory.0.borrow().clone(), memory.clone());
        let completion: Completion = used.run(&descriptor, &memory);
        assert_ne!(completion.status, 0, "it has not ended");
        assert_eq!(completion, Engine::default().run(&descriptor, &other));
        assert!(*memory.0.borrow() == *other.0.borrow());
        if (REFUSED..0x80).contains(&completion.status) {
            assert!(*memory.0.borrow() == before, "it is refused, and has written");
        }
    }
}
