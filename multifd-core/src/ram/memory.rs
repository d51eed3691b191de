//! Memory of ours that a device may work on.

use std::fmt;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The unit of [`PageMemory`], and its alignment: what devices and the kernel's page tables have.
const UNIT: usize = 4096;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
struct Unit([u8; UNIT]);

/// Memory aligned to 4096 bytes that several may hold.
///
/// It is written only while one holds it ([`get_mut`](Self::get_mut)). Whoever hands it to a
/// device keeps a clone until the device has let go: nobody changes or frees it before.
#[derive(Clone)]
pub struct PageMemory(Arc<[Unit]>);

impl PageMemory {
    /// Zeroed memory of at least `bytes` bytes, in units of 4096.
    pub fn new(bytes: usize) -> Self {
        Self(std::iter::repeat_n(Unit([0; UNIT]), bytes.div_ceil(UNIT)).collect())
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The bytes, to be written. `None` while a clone is held.
    pub fn get_mut(&mut self) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.0).map(IntoBytes::as_mut_bytes)
    }

    /// The bytes, to be written: of other memory of the same size where a clone of this is held.
    pub fn get_mut_or_new(&mut self) -> &mut [u8] {
        if Arc::strong_count(&self.0) > 1 {
            *self = Self::new(self.as_slice().len());
        }
        // Nobody else can have a clone of either.
        self.get_mut().unwrap_or_default()
    }
}

impl fmt::Debug for PageMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageMemory({} bytes)", self.as_slice().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_aligned_and_at_least_as_large_as_asked_for() {
        for bytes in [0, 1, 4096, 4097, 65536] {
            let memory = PageMemory::new(bytes);
            assert_eq!(memory.as_slice().as_ptr().addr() % 4096, 0);
            assert_eq!(memory.as_slice().len(), bytes.next_multiple_of(4096));
            assert!(memory.as_slice().iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn memory_that_is_held_elsewhere_is_not_written() {
        let mut memory = PageMemory::new(4096);
        memory.get_mut().unwrap()[0] = 1;
        let held = memory.clone();
        assert!(memory.get_mut().is_none());
        memory.get_mut_or_new()[0] = 2;
        assert_eq!((held.as_slice()[0], memory.as_slice()[0]), (1, 2));
        let before = memory.as_slice().as_ptr();
        memory.get_mut_or_new()[0] = 3;
        assert_eq!(memory.as_slice().as_ptr(), before, "memory that nobody holds is kept");
    }
}
