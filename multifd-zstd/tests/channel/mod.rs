//! The two ends of a channel, a packet at a time.

use multifd_core::io::Blocking;
use multifd_core::ram::{GuestPages, NormalPages, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::{BlockName, RamPacket, RamPacketBuilder};
use multifd_core::{Error, MethodDescriptor, PageSize, Payload, RecvMethod, SendMethod};
use pollster::block_on;

const PAGE_SIZE: PageSize = PageSize::Kib4;
pub(crate) const PAGE_BYTES: usize = PAGE_SIZE.bytes();

pub(crate) struct Sender(Box<dyn SendMethod>);

impl Sender {
    pub(crate) fn new(codec: &MethodDescriptor, level: Option<i32>) -> Self {
        let config = codec.config(0, PAGE_SIZE, level).unwrap();
        Self(block_on(codec.methods.send_setup(&config)).unwrap())
    }

    /// The payload of a packet with `pages`, whole pages one behind the other.
    pub(crate) fn send(&mut self, pages: &[u8]) -> Vec<u8> {
        let (block, offsets) = guest(pages.len() / PAGE_BYTES);
        let guest = GuestPages::new(&block, PAGE_SIZE, &offsets).unwrap();
        let mut payload = Payload::new();
        let normal = NormalPages::new(guest, Some(pages));
        block_on(self.0.send_prepare(&normal, &mut payload)).unwrap();
        payload.bytes_mut(0..payload.len()).to_vec()
    }
}

pub(crate) struct Receiver {
    codec: MethodDescriptor,
    method: Box<dyn RecvMethod>,
}

impl Receiver {
    pub(crate) fn new(codec: &MethodDescriptor) -> Self {
        let config = codec.config(0, PAGE_SIZE, None).unwrap();
        Self { codec: *codec, method: block_on(codec.methods.recv_setup(&config)).unwrap() }
    }

    /// The pages of a packet with that payload.
    pub(crate) fn receive(&mut self, payload: &[u8], pages: usize) -> Result<Vec<u8>, Error> {
        let (block, offsets) = guest(pages);
        let guest = GuestPages::new(&block, PAGE_SIZE, &offsets).unwrap();
        let mut header = RamPacketBuilder::new(PAGE_SIZE);
        let offsets = [&offsets[..], &[]];
        let compression = self.codec.compression();
        let header = header.pages(compression, 0, block.name(), offsets, payload.len());
        let packet = RamPacket::parse(header, PAGE_SIZE).unwrap();
        block_on(self.method.recv(&packet, &mut Blocking::new(payload), guest))?;
        let mut received = vec![0; pages * PAGE_BYTES];
        block.slice(0, received.len()).copy_to(&mut received[..]);
        Ok(received)
    }
}

fn guest(pages: usize) -> (RamBlock, Vec<u64>) {
    let memory = MmapRegion::<()>::new(pages * PAGE_BYTES).unwrap();
    let offsets = (0..pages).map(|page| (page * PAGE_BYTES) as u64).collect();
    (RamBlock::new(BlockName::new("ram").unwrap(), memory), offsets)
}

/// Bytes that no codec makes shorter.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}
