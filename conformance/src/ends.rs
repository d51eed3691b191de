//! The two ends of a codec, a payload at a time: for a codec's own tests, of what is special to it
//! and no part of the suite.

use multifd_core::ram::{GuestPages, NormalPages, PageMemory, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::BlockName;
use multifd_core::{Error, MethodStats, MultiFdMethods, PageSize, Payload, RecvMethod, SendMethod};
use pollster::block_on;

/// Bytes in a page, where no other size is asked for.
pub const PAGE_BYTES: usize = PageSize::Kib4.bytes();

/// A codec's compressing side.
#[allow(missing_debug_implementations, reason = "a method need not be Debug")]
pub struct Sender {
    method: Box<dyn SendMethod>,
    page_size: PageSize,
}

impl Sender {
    /// The side of a new channel, at `level` or the codec's default.
    ///
    /// # Panics
    /// Where the codec cannot be set up.
    pub fn new(codec: &dyn MultiFdMethods, level: Option<i32>) -> Self {
        Self::of_pages(codec, level, PageSize::Kib4)
    }

    /// As [`new`](Self::new), for pages of another size.
    ///
    /// # Panics
    /// Where the codec cannot be set up.
    pub fn of_pages(codec: &dyn MultiFdMethods, level: Option<i32>, page_size: PageSize) -> Self {
        let config = codec.descriptor().config(0, page_size, level);
        let config = config.expect("the codec has the level");
        let method = block_on(codec.send_setup(&config));
        Self { method: method.expect("the codec can be set up"), page_size }
    }

    /// The payload of a packet with `pages`, whole pages one behind the other.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn send(&mut self, pages: &[u8]) -> Vec<u8> {
        let (block, offsets) = guest(pages.len() / self.page_size.bytes(), self.page_size);
        let guest =
            GuestPages::new(&block, self.page_size, &offsets).expect("the pages are in the block");
        let mut payload = Payload::new();
        let mut private = PageMemory::new(pages.len());
        private.get_mut_or_new()[..pages.len()].copy_from_slice(pages);
        block.write(0, pages);
        let normal = NormalPages::new(guest, Some(&private));
        block_on(self.method.send_prepare(&normal, &mut payload)).expect("the codec works");
        payload.to_vec(&normal)
    }

    /// Ends the channel. Returns what the codec has counted.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn finish(self) -> MethodStats {
        let counters = self.method.counters();
        block_on(self.method.send_cleanup()).expect("the codec works");
        counters.snapshot()
    }
}

/// A codec's decompressing side.
#[allow(missing_debug_implementations, reason = "a method need not be Debug")]
pub struct Receiver {
    method: Box<dyn RecvMethod>,
    page_size: PageSize,
}

impl Receiver {
    /// The side of a new channel.
    ///
    /// # Panics
    /// Where the codec cannot be set up.
    pub fn new(codec: &dyn MultiFdMethods) -> Self {
        Self::of_pages(codec, PageSize::Kib4)
    }

    /// As [`new`](Self::new), for pages of another size.
    ///
    /// # Panics
    /// Where the codec cannot be set up.
    pub fn of_pages(codec: &dyn MultiFdMethods, page_size: PageSize) -> Self {
        let config = codec.descriptor().config(0, page_size, None).expect("there is a default");
        let method = block_on(codec.recv_setup(&config));
        Self { method: method.expect("the codec can be set up"), page_size }
    }

    /// The pages of a packet with that payload.
    ///
    /// # Errors
    /// What the codec says of the payload.
    ///
    /// # Panics
    /// Without a page: a codec never sees that.
    pub fn receive(&mut self, payload: &[u8], pages: usize) -> Result<Vec<u8>, Error> {
        assert!(pages > 0, "a packet has pages");
        let (block, offsets) = guest(pages, self.page_size);
        let guest =
            GuestPages::new(&block, self.page_size, &offsets).expect("the pages are in the block");
        block_on(self.method.recv(payload, guest))?;
        let mut received = vec![0; pages * self.page_size.bytes()];
        block.slice(0, received.len()).copy_to(&mut received[..]);
        Ok(received)
    }

    /// Ends the channel. Returns what the codec has counted.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn finish(self) -> MethodStats {
        let counters = self.method.counters();
        block_on(self.method.recv_cleanup()).expect("the codec works");
        counters.snapshot()
    }
}

fn guest(pages: usize, page_size: PageSize) -> (RamBlock, Vec<u64>) {
    let page_bytes = page_size.bytes();
    let memory = MmapRegion::<()>::new(pages * page_bytes).expect("there is memory");
    let offsets = (0..pages).map(|page| (page * page_bytes) as u64).collect();
    (RamBlock::new(BlockName::new("ram").expect("a name"), memory), offsets)
}

/// Bytes that no codec makes shorter.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}
