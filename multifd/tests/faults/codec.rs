//! Codecs, and a codec that fails at a call.

use std::sync::Arc;

use multifd::core::codec::Payload;
use multifd::core::ram::{GuestPages, NormalPages};
use multifd::core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, MultiFdMethods, PageAccess,
    RecvMethod, SendMethod, async_trait,
};
use multifd::qpl::{Options, Path, Qpl};

use crate::case::{Call, Failing};
use crate::memory::Fuse;
use crate::way::registry;

/// The codec that `compression` is made with: QPL by its own encoder.
pub(crate) fn codec(compression: Compression) -> Arc<dyn MultiFdMethods> {
    match compression {
        Compression::Qpl => Arc::new(Qpl::new(Options::new(Path::Portable))),
        compression => Arc::clone(registry().get(compression).unwrap()),
    }
}

/// `inner`, whose call fails.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) inner: Arc<dyn MultiFdMethods>,
    pub(crate) call: Call,
    pub(crate) how: Failing,
    pub(crate) fuse: Fuse,
}

impl Broken {
    async fn called(&self, call: Call) -> Result<(), Error> {
        if call != self.call || self.fuse.holds() {
            return Ok(());
        }
        match self.how {
            Failing::Error => Err(Error::backend("the accelerator is lost")),
            Failing::Panic => panic!("a test's: the codec panics"),
            Failing::Hang => std::future::pending().await,
        }
    }
}

#[async_trait]
impl MultiFdMethods for Broken {
    fn descriptor(&self) -> MethodDescriptor {
        self.inner.descriptor()
    }

    fn probe(&self) -> Availability {
        self.inner.probe()
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        self.called(Call::Setup).await?;
        let inner = self.inner.send_setup(config).await?;
        Ok(Box::new(Sends { inner, broken: self.clone() }))
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        self.called(Call::Setup).await?;
        let inner = self.inner.recv_setup(config).await?;
        Ok(Box::new(Receives { inner, broken: self.clone() }))
    }
}

struct Sends {
    inner: Box<dyn SendMethod>,
    broken: Broken,
}

#[async_trait]
impl SendMethod for Sends {
    fn access(&self) -> PageAccess {
        self.inner.access()
    }

    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error> {
        self.broken.called(Call::Work).await?;
        self.inner.send_prepare(pages, payload).await
    }

    async fn send_cleanup(self: Box<Self>) -> Result<(), Error> {
        self.broken.called(Call::Cleanup).await?;
        self.inner.send_cleanup().await
    }
}

struct Receives {
    inner: Box<dyn RecvMethod>,
    broken: Broken,
}

#[async_trait]
impl RecvMethod for Receives {
    fn access(&self) -> PageAccess {
        self.inner.access()
    }

    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error> {
        self.broken.called(Call::Work).await?;
        self.inner.recv(payload, pages).await
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<(), Error> {
        self.broken.called(Call::Cleanup).await?;
        self.inner.recv_cleanup().await
    }
}
