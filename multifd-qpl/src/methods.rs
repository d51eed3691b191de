//! The codec, and what is set up for a channel.

use std::sync::Arc;

use async_trait::async_trait;
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, MultiFdMethods, RecvMethod,
    Registration, SendMethod, UsageError,
};

use crate::engine::Engine;
use crate::options::Options;
use crate::recv::Receiver;
use crate::send::Sender;

const NAME: &str = "qpl";

// The accelerator has only one level, so there are none.
const DESCRIPTOR: MethodDescriptor = MethodDescriptor::new(
    NAME,
    "a DEFLATE stream a page, on Intel's IAA or the CPU",
    Compression::Qpl,
);

multifd_core::inventory::submit! { Registration(|| Arc::new(Qpl::default())) }

/// Method QPL with its options. The one that registers itself has the defaults; a registry takes
/// another in its place by [`Registry::replacing`](multifd_core::Registry::replacing).
#[derive(Clone, Copy, Debug, Default)]
pub struct Qpl {
    options: Options,
}

impl Qpl {
    /// The method with `options`. Whether they can be honoured here is what
    /// [`probe`](MultiFdMethods::probe) says.
    pub const fn new(options: Options) -> Self {
        Self { options }
    }

    fn engine(&self) -> Result<Engine, Error> {
        let engine = Engine::of(&self.options);
        engine.map_err(|reason| UsageError::NotAvailable { name: NAME, reason }.into())
    }
}

#[async_trait]
impl MultiFdMethods for Qpl {
    fn descriptor(&self) -> MethodDescriptor {
        DESCRIPTOR
    }

    fn probe(&self) -> Availability {
        match Engine::of(&self.options) {
            Ok(engine) => Availability::Available(engine.to_string()),
            Err(reason) => Availability::Unavailable(reason),
        }
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Sender::new(self.engine()?, &self.options, config)?))
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Receiver::new(&self.engine()?, &self.options, config)?))
    }
}
