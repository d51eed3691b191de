//! A packet as a channel lends it to a method.

use multifd_conformance::ends::PAGE_BYTES;
use multifd_core::ram::{GuestPages, NormalPages, PageMemory, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::BlockName;
use multifd_core::{
    ChannelConfig, Error, MultiFdMethods, PageSize, Payload, RecvMethod, SendMethod,
};
use multifd_qpl::Qpl;
use pollster::block_on;

use super::streams::text;

/// Pages of a whole packet.
pub const PAGES: usize = 128;

/// A whole packet of pages that get shorter, each another one.
pub fn packet() -> Vec<u8> {
    let text = text(PAGES * PAGE_BYTES + PAGES * 100);
    (0..PAGES).flat_map(|page| text[page * PAGE_BYTES + page..][..PAGE_BYTES].to_vec()).collect()
}

/// The compressing side of a channel.
pub fn sender(codec: &Qpl) -> Box<dyn SendMethod> {
    block_on(codec.send_setup(&ChannelConfig::new(0, PageSize::Kib4, 0))).unwrap()
}

/// The decompressing side of a channel.
pub fn receiver(codec: &Qpl) -> Box<dyn RecvMethod> {
    block_on(codec.recv_setup(&ChannelConfig::new(0, PageSize::Kib4, 0))).unwrap()
}

/// Pages in a guest, and their private copies.
pub struct Packet {
    block: RamBlock,
    offsets: Vec<u64>,
    pub private: PageMemory,
}

impl Packet {
    /// A packet of `pages`.
    pub fn of(pages: &[u8]) -> Self {
        let memory = MmapRegion::<()>::new(pages.len()).unwrap();
        let mut private = PageMemory::new(pages.len());
        private.get_mut().unwrap().copy_from_slice(pages);
        Self {
            block: RamBlock::new(BlockName::new("ram").unwrap(), memory),
            offsets: (0..pages.len() as u64).step_by(PAGE_BYTES).collect(),
            private,
        }
    }

    /// The pages in the guest.
    pub fn guest(&self) -> GuestPages<'_> {
        GuestPages::new(&self.block, PageSize::Kib4, &self.offsets).unwrap()
    }

    /// The pages to be sent.
    pub fn normal(&self) -> NormalPages<'_> {
        NormalPages::new(self.guest(), Some(&self.private))
    }

    /// What is in the guest.
    pub fn in_guest(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.private.as_slice().len()];
        self.block.slice(0, bytes.len()).copy_to(&mut bytes[..]);
        bytes
    }

    /// One call of `send_prepare`.
    pub async fn send(&self, method: &mut dyn SendMethod) -> Result<Vec<u8>, Error> {
        let mut payload = Payload::new();
        method.send_prepare(&self.normal(), &mut payload).await?;
        Ok(self.bytes(&payload))
    }

    /// What goes out of `payload`.
    pub fn bytes(&self, payload: &Payload) -> Vec<u8> {
        payload.to_vec(&self.normal())
    }
}
