//! Method none: pages as they are, straight from and into guest memory.

use std::sync::Arc;

use async_trait::async_trait;

use crate::codec::Payload;
use crate::error::Error;
use crate::method::{ChannelConfig, MultiFdMethods, PageAccess, RecvMethod, SendMethod};
use crate::ram::{GuestPages, NormalPages};
use crate::registry::{Availability, MethodDescriptor, Registration};
use crate::wire::Compression;

inventory::submit! { Registration(|| Arc::new(Plain)) }

/// Method none, which every registry of a whole program holds.
#[allow(clippy::exhaustive_structs, reason = "it has no options")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

#[async_trait]
impl MultiFdMethods for Plain {
    fn descriptor(&self) -> MethodDescriptor {
        const { MethodDescriptor::new("none", "pages as they are, without a copy", Compression::None) }
    }

    fn probe(&self) -> Availability {
        Availability::Available("built in".to_owned())
    }

    async fn send_setup(&self, _: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Self))
    }

    async fn recv_setup(&self, _: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Self))
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

    async fn send_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl RecvMethod for Plain {
    fn access(&self) -> PageAccess {
        PageAccess::InPlace
    }

    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error> {
        if payload.len() != pages.bytes() {
            return Err(Error::payload("it does not have the size of the packet's pages"));
        }
        for (index, page) in payload.chunks_exact(pages.page_size().bytes()).enumerate() {
            pages.write(index, page);
        }
        Ok(())
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}
