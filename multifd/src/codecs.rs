//! The bundled codecs, and the choice of one.

use std::sync::Arc;

use multifd_core::{Compression, MultiFdMethods, Registry, UsageError};

#[cfg(feature = "qatzip")]
use multifd_qatzip as _;
/// Codec QPL, whose options say where it works.
#[cfg(feature = "qpl")]
pub use multifd_qpl as qpl;
#[cfg(feature = "uadk")]
use multifd_uadk as _;
#[cfg(feature = "zlib")]
use multifd_zlib as _;
/// Codec zstd, whose option is the largest window.
#[cfg(feature = "zstd")]
pub use multifd_zstd as zstd;

/// Every codec that is linked into the program: the bundled ones, as features choose them, and
/// any other that has registered itself.
///
/// # Errors
/// Two codecs with one name or one value of the compression field.
pub fn registry() -> Result<Registry, UsageError> {
    Registry::collected()
}

/// Which codec a side uses: that of a [`Compression`], which the registry must hold, or a codec
/// value, with its options.
#[derive(Clone, Debug)]
pub struct Codec(Choice);

#[derive(Clone, Debug)]
enum Choice {
    Registered(Compression),
    Given(Arc<dyn MultiFdMethods>),
}

impl Codec {
    /// The codec, if it can work here.
    pub(crate) fn find(&self, registry: &Registry) -> Result<Arc<dyn MultiFdMethods>, UsageError> {
        let methods = match &self.0 {
            Choice::Registered(compression) => registry.get(*compression)?,
            Choice::Given(methods) => methods,
        };
        methods.require()?;
        Ok(Arc::clone(methods))
    }
}

impl Default for Codec {
    fn default() -> Self {
        Compression::None.into()
    }
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        Self(Choice::Registered(compression))
    }
}

impl From<Arc<dyn MultiFdMethods>> for Codec {
    fn from(methods: Arc<dyn MultiFdMethods>) -> Self {
        Self(Choice::Given(methods))
    }
}

impl<M: MultiFdMethods + 'static> From<Arc<M>> for Codec {
    fn from(methods: Arc<M>) -> Self {
        Self(Choice::Given(methods))
    }
}
