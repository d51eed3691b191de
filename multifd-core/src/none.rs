//! Method none: pages as they are, straight from and into guest memory.

use async_trait::async_trait;

use crate::compression::Compression;
use crate::error::Error;
use crate::io::ChannelReader;
use crate::method::{
    ChannelConfig, MethodStats, MultiFdMethods, PageAccess, RecvMethod, SendMethod,
};
use crate::payload::Payload;
use crate::ram::{GuestPages, NormalPages};
use crate::registry::{Availability, MethodDescriptor};
use crate::wire::RamPacket;

/// Method none, which every registry of a whole program holds.
pub const DESCRIPTOR: MethodDescriptor = MethodDescriptor {
    name: "none",
    summary: "pages as they are, without a copy",
    levels: None,
    probe: || Availability::Available("built in".to_owned()),
    methods: &Plain,
};

inventory::submit! { DESCRIPTOR }

#[derive(Debug)]
struct Plain;

#[async_trait]
impl MultiFdMethods for Plain {
    fn compression(&self) -> Compression {
        Compression::None
    }

    async fn send_setup(&self, _: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Plain))
    }

    async fn recv_setup(&self, _: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Plain))
    }
}

#[async_trait]
impl SendMethod for Plain {
    fn access(&self) -> PageAccess {
        PageAccess::InPlace
    }

    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        payload.push_pages(0..pages.len(), pages);
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        Ok(MethodStats::new())
    }
}

#[async_trait]
impl RecvMethod for Plain {
    async fn recv(
        &mut self,
        _: &RamPacket<'_>,
        reader: &mut dyn ChannelReader,
        pages: GuestPages<'_>,
    ) -> Result<(), Error> {
        // The packet's payload size is that of its pages: its type says so.
        reader.read_pages(pages).await.map_err(Error::reading)
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<MethodStats, Error> {
        Ok(MethodStats::new())
    }
}
