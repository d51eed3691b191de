#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod arrival;
mod cancel;
mod codecs;
mod command;
mod conformance;
mod convert;
mod cpu;
mod decode;
mod demo;
mod doctor;
mod escape;
mod failure;
mod file;
mod folder;
mod image;
mod inspect;
mod log;
mod mapping;
mod options;
mod output;
mod page;
mod palette;
mod place;
mod plan;
mod progress;
mod qpl;
mod recv;
mod relay;
mod send;
mod serve;
mod show;
mod size;
mod summary;
mod table;
mod tls_init;
mod units;

#[cfg(feature = "lz4")]
use multifd_lz4 as _;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};

use failure::Failure;
use options::verbosity::Verbosity;
use output::Output;

/// Moves a VM's memory over many channels, in the wire format of QEMU's multifd migration.
#[derive(Debug, Parser)]
#[command(name = "multifd", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  multifd demo                                      try every codec on made-up memory
  multifd demo --ram guest.ram --compression zstd   one codec on a real guest's memory
  multifd recv --listen tcp::4444 --to vm           wait for a VM, store it in the folder vm
  multifd send --from vm --to tcp:host:4444         send it on to another host";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Send(send::Args),
    Recv(recv::Args),
    Relay(relay::Args),
    Decode(decode::Args),
    Convert(convert::Args),
    Show(show::Args),
    Inspect(inspect::Args),
    Plan(Box<plan::Args>),
    Codecs(codecs::Args),
    Conformance(conformance::Args),
    Doctor(doctor::Args),
    TlsInit(tls_init::Args),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  multifd completions bash > \
                            ~/.local/share/bash-completion/completions/multifd")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages of the program and its commands into a folder
    #[command(after_help = "Example:\n  multifd man ~/.local/share/man/man1")]
    Man {
        /// The folder, which must exist
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let matches = command::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    log::start(cli.verbosity);
    match run(cli) {
        Ok(status) => status,
        Err(failure) => {
            output::note(&format!("multifd: {failure}"));
            failure.status()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let output = Output::new(cli.verbosity);
    match cli.command {
        Command::Demo(args) => demo::run(&args, &output),
        Command::Send(args) => send::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Recv(args) => recv::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Relay(args) => relay::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Decode(args) => decode::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Convert(args) => convert::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::run(&args, &output),
        Command::Plan(args) => plan::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Show(args) => show::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Codecs(args) => codecs::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Conformance(args) => conformance::run(&args, &output),
        Command::Doctor(args) => doctor::run(&args),
        Command::TlsInit(args) => tls_init::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => complete(shell).map(|()| ExitCode::SUCCESS),
        Command::Man { folder } => command::write_man_pages(&folder).map(|()| ExitCode::SUCCESS),
    }
}

fn complete(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command::command(), "multifd", &mut script);
    output::print_bytes(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command::command().debug_assert();
    }
}
