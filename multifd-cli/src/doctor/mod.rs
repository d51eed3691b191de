//! `multifd doctor`: whether QPL's hardware path can be used here, and how to fix what is missing.
//!
//! [`System::read`] reads the machine's state, [`judge::judge`] turns it into findings, and
//! [`Report`] prints them. Only the first looks at the machine.

mod finding;
mod judge;
mod report;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::output;
use report::Report;
use system::{Roots, System};

/// Check whether QPL can use an Intel IAA here, and how to fix what is missing.
///
/// Looks at libqpl and libaccel-config, the accelerators with their work queues and engines, their
/// permissions, the IOMMU and the kernel. Nothing is changed. The exit status is 0 if the hardware
/// path can be used, else 1; codec qpl works without it, on the CPU. The codecs uadk and qatzip work
/// on the CPU alone: a Kunpeng's accelerator and Intel's QAT are not looked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  multifd doctor
  multifd doctor --json
  sudo -u libvirt-qemu multifd doctor    QEMU's user may lack your permissions")]
pub(crate) struct Args {
    /// Print the findings and all devices as JSON
    #[arg(long)]
    json: bool,
    /// Look at a copy of /sys in place of this machine's
    #[arg(long, value_name = "DIR", default_value = "/sys", hide_default_value = true)]
    sys: PathBuf,
    /// Look at a copy of /dev
    #[arg(long, value_name = "DIR", default_value = "/dev", hide_default_value = true)]
    dev: PathBuf,
    /// Look at a copy of /proc
    #[arg(long, value_name = "DIR", default_value = "/proc", hide_default_value = true)]
    proc: PathBuf,
    /// Look at a copy of /etc
    #[arg(long, value_name = "DIR", default_value = "/etc", hide_default_value = true)]
    etc: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let roots = Roots { sys: &args.sys, dev: &args.dev, proc: &args.proc, etc: &args.etc };
    let system = System::read(roots);
    let report = Report::new(&system, judge::judge(&system));
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.to_string())?;
    }
    Ok(if report.usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
