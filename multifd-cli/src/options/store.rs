//! What is stored of a VM, and where.

use std::path::PathBuf;

use crate::size;

/// What is stored of a VM, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Store {
    /// The folder to create; it appears when it is complete
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) to: PathBuf,
    /// Replace an existing image, once the new one is complete
    #[arg(long)]
    pub(crate) force: bool,
    /// The largest RAM to accept; this machine's memory and swap if not given
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) ram_limit: Option<u64>,
    /// The most device state to accept
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size::parse)]
    device_state_limit: u64,
    /// Accept pages that never arrive as zero: sources with free-page-hint or virtio-mem skip some
    #[arg(long)]
    pub(crate) allow_missing_pages: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Store {
    /// The most device state to accept, in bytes.
    pub(crate) fn device_state_limit(&self) -> usize {
        usize::try_from(self.device_state_limit).unwrap_or(usize::MAX)
    }
}
