//! The bundled codecs.

use multifd_core::{Registry, UsageError};

/// Codec QPL, whose options say where it works.
#[cfg(feature = "qpl")]
pub use multifd_qpl as qpl;
#[cfg(feature = "zlib")]
use multifd_zlib as _;
#[cfg(feature = "zstd")]
use multifd_zstd as _;

/// Every codec that is linked into the program: the bundled ones, as features choose them, and
/// any other that has registered itself.
///
/// # Errors
/// Two codecs with one name or one value of the compression field.
pub fn registry() -> Result<Registry, UsageError> {
    Registry::collected()
}
