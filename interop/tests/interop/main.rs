//! Real QEMUs and `multifd`, in processes of their own.
//!
//! The short run is what runs unless `--include-ignored` asks for all.

mod cancellations;
mod chains;
mod common;
mod failures;
mod files;
mod hosts;
mod libvirt;
mod matrix;
mod references;
mod relays;
mod services;
mod tls;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A test has up to two QEMUs, each with a guest that does not rest.
    arguments.test_threads.get_or_insert(1);
    let trials: [Vec<Trial>; 11] = [
        references::trials(),
        matrix::trials(),
        chains::trials(),
        relays::trials(),
        hosts::trials(),
        files::trials(),
        services::trials(),
        failures::trials(),
        cancellations::trials(),
        tls::trials(),
        libvirt::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
