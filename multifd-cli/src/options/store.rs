//! What is stored of a VM, and where.

use std::path::PathBuf;

use super::device_state::DeviceStateLimit;
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
    #[command(flatten)]
    pub(crate) device_state_limit: DeviceStateLimit,
    /// Accept pages that never arrive as zero: sources with free-page-hint or virtio-mem skip some
    #[arg(long)]
    pub(crate) allow_missing_pages: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
