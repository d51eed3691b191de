//! The codec, and what is set up for a channel.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, MultiFdMethods, RecvMethod,
    Registration, SendMethod, UsageError,
};

use crate::engine::Engine;
use crate::hardware;
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
#[derive(Clone, Debug, Default)]
pub struct Qpl {
    options: Options,
    /// There are devices by the NUMA policy, or were when it was looked.
    checked: OnceLock<()>,
}

impl Qpl {
    /// The method with `options`. Whether they can be honoured here is what
    /// [`probe`](MultiFdMethods::probe) says.
    pub const fn new(options: Options) -> Self {
        Self { options, checked: OnceLock::new() }
    }

    fn engine(&self) -> Result<Engine, String> {
        let engine = Engine::of(&self.options)?;
        match &engine {
            Engine::Hardware(library) if self.checked.get().is_none() => {
                hardware::check(library, self.options.numa)?;
                _ = self.checked.set(());
            }
            _ => {}
        }
        Ok(engine)
    }

    fn engine_of_channel(&self) -> Result<Engine, Error> {
        self.engine().map_err(|reason| UsageError::NotAvailable { name: NAME, reason }.into())
    }
}

#[async_trait]
impl MultiFdMethods for Qpl {
    fn descriptor(&self) -> MethodDescriptor {
        DESCRIPTOR
    }

    fn probe(&self) -> Availability {
        match self.engine() {
            Ok(engine) => Availability::Available(engine.to_string()),
            Err(reason) => Availability::Unavailable(reason),
        }
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Sender::new(self.engine_of_channel()?, &self.options, config)?))
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Receiver::new(&self.engine_of_channel()?, &self.options, config)?))
    }
}
