//! The two ends of a channel, a packet at a time.

use multifd_core::io::{Blocking, ChannelWriter};
use multifd_core::ram::{GuestPages, NormalPages, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::{BlockName, RamPacket, RamPacketBuilder};
use multifd_core::{
    Error, MethodDescriptor, MethodStats, PageSize, Payload, RecvMethod, SendMethod,
};
use pollster::block_on;

pub struct Sender {
    method: Box<dyn SendMethod>,
    page_size: PageSize,
}

impl Sender {
    pub fn new(codec: &MethodDescriptor, page_size: PageSize) -> Self {
        let config = codec.config(0, page_size, None).unwrap();
        Self { method: block_on(codec.methods.send_setup(&config)).unwrap(), page_size }
    }

    /// The payload of a packet with `pages`, whole pages one behind the other.
    pub fn send(&mut self, pages: &[u8]) -> Vec<u8> {
        let (block, offsets) = guest(pages.len() / self.page_size.bytes(), self.page_size);
        let guest = GuestPages::new(&block, self.page_size, &offsets).unwrap();
        let mut payload = Payload::new();
        let normal = NormalPages::new(guest, Some(pages));
        block_on(self.method.send_prepare(&normal, &mut payload)).unwrap();
        let mut bytes = Blocking::new(Vec::new());
        let parts: Vec<_> = payload.parts(&normal).collect();
        block_on(bytes.write_parts(&parts)).unwrap();
        bytes.get_ref().clone()
    }

    /// The chunk of each page.
    pub fn chunks(&mut self, pages: &[u8]) -> Vec<Vec<u8>> {
        let payload = self.send(pages);
        let (lengths, mut data) = payload.split_at(pages.len() / self.page_size.bytes() * 4);
        let chunks = lengths.chunks_exact(4).map(|length| {
            let length = u32::from_be_bytes(length.try_into().unwrap());
            let (chunk, rest) = data.split_at(length as usize);
            data = rest;
            chunk.to_vec()
        });
        chunks.collect()
    }

    pub fn finish(self) -> MethodStats {
        block_on(self.method.send_cleanup()).unwrap()
    }
}

pub struct Receiver {
    codec: MethodDescriptor,
    method: Box<dyn RecvMethod>,
    page_size: PageSize,
}

impl Receiver {
    pub fn new(codec: &MethodDescriptor, page_size: PageSize) -> Self {
        let config = codec.config(0, page_size, None).unwrap();
        let method = block_on(codec.methods.recv_setup(&config)).unwrap();
        Self { codec: *codec, method, page_size }
    }

    /// The pages of a packet with that payload.
    pub fn receive(&mut self, payload: &[u8], pages: usize) -> Result<Vec<u8>, Error> {
        let (block, offsets) = guest(pages, self.page_size);
        let guest = GuestPages::new(&block, self.page_size, &offsets).unwrap();
        let mut header = RamPacketBuilder::new(self.page_size);
        let offsets = [&offsets[..], &[]];
        let compression = self.codec.compression();
        let header = header.pages(compression, 0, block.name(), offsets, payload.len());
        let packet = RamPacket::parse(header, self.page_size).unwrap();
        block_on(self.method.recv(&packet, &mut Blocking::new(payload), guest))?;
        let mut received = vec![0; pages * self.page_size.bytes()];
        block.slice(0, received.len()).copy_to(&mut received[..]);
        Ok(received)
    }

    /// The page that a packet with `chunk` alone has.
    pub fn receive_chunk(&mut self, chunk: &[u8]) -> Result<Vec<u8>, Error> {
        let length = (chunk.len() as u32).to_be_bytes();
        self.receive(&[&length, chunk].concat(), 1)
    }

    pub fn finish(self) -> MethodStats {
        block_on(self.method.recv_cleanup()).unwrap()
    }
}

fn guest(pages: usize, page_size: PageSize) -> (RamBlock, Vec<u64>) {
    let memory = MmapRegion::<()>::new(pages * page_size.bytes()).unwrap();
    let offsets = (0..pages).map(|page| (page * page_size.bytes()) as u64).collect();
    (RamBlock::new(BlockName::new("ram").unwrap(), memory), offsets)
}
