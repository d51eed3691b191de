//! Where a VM is stored, and what of it.

use super::device_state::DeviceStateLimit;
use crate::place::Place;
use crate::size;

/// Where a VM is stored, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct NewVm {
    /// Where the VM goes: a folder to create, qemu-file:PATH or libvirt:PATH, which appear when they are complete, or
    /// cloud-hypervisor:SOCKET
    #[arg(short, long, value_name = "PLACE", value_parser = Place::parser())]
    pub(crate) to: Place,
    /// Replace an existing image or file, once the new one is complete
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) writing: Writing,
}

/// How files are written.
#[derive(Debug, clap::Args)]
pub(crate) struct Writing {
    /// Threads that write a qemu-file's or libvirt save's pages; one for each processor, up to 8, if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=255))]
    threads: Option<u16>,
    /// Write a qemu-file's or libvirt save's pages past the page cache, as QEMU with direct-io
    #[arg(long)]
    pub(crate) direct_io: bool,
}

impl Writing {
    pub(crate) fn threads(&self) -> usize {
        let own = || std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
        self.threads.map_or_else(own, usize::from)
    }
}

/// What is stored of a VM that arrives, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Store {
    #[command(flatten)]
    pub(crate) new: NewVm,
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
