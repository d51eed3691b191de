//! The options of codec zstd.

use std::sync::Arc;

use multifd::core::codec::PacketMethods;
use multifd::core::{MultiFdMethods, Registry};
use multifd::zstd::Zstd as Codec;

use crate::failure::Failure;
use crate::size;

/// The options of codec zstd.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of zstd")]
pub(crate) struct Zstd {
    /// The largest window, from 1K to 128M: a channel that receives takes so much memory. 8M is what
    /// levels up to 19 make
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = window)]
    zstd_window: u64,
}

impl Zstd {
    /// `registry` with codec zstd as the options say.
    pub(crate) fn in_registry(&self, registry: Registry) -> Result<Registry, Failure> {
        let codec = PacketMethods::new(Codec::new().with_window_limit(self.zstd_window));
        let codec: Arc<dyn MultiFdMethods> = Arc::new(codec);
        Ok(registry.replacing(codec)?)
    }
}

fn window(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text)?;
    if bytes.is_power_of_two() && (Codec::MIN_WINDOW..=Codec::MAX_WINDOW).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("'{text}' is not a window: a power of two from 1K to 128M, such as 32M"))
    }
}
