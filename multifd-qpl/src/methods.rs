//! The codec's method table: what is set up for a channel.

use async_trait::async_trait;
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, MultiFdMethods, RecvMethod,
    SendMethod, UsageError,
};

use crate::options::Options;
use crate::path::{Engine, Path};
use crate::recv::Receiver;
use crate::send::Sender;

const NAME: &str = "qpl";

pub(crate) const fn descriptor(options: &'static Options) -> MethodDescriptor {
    MethodDescriptor {
        name: NAME,
        summary: "a DEFLATE stream a page, on Intel's IAA or the CPU",
        // The accelerator has only the one, so nothing may depend on another.
        levels: None,
        // A probe is a plain function, which has no options but those of its own.
        probe: match options.path {
            Path::Auto => || availability(Path::Auto),
            Path::Hardware => || availability(Path::Hardware),
            Path::Software => || availability(Path::Software),
            Path::Portable => || availability(Path::Portable),
        },
        methods: options,
    }
}

fn availability(path: Path) -> Availability {
    match path.engine() {
        Ok(engine) => Availability::Available(engine.to_string()),
        Err(reason) => Availability::Unavailable(reason),
    }
}

impl Options {
    fn engine(&self) -> Result<Engine, Error> {
        let engine = self.path.engine();
        engine.map_err(|reason| UsageError::NotAvailable { name: NAME, reason }.into())
    }
}

#[async_trait]
impl MultiFdMethods for Options {
    fn compression(&self) -> Compression {
        Compression::Qpl
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Sender::new(self.engine()?, self, config)?))
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Receiver::new(&self.engine()?, self, config)?))
    }
}
