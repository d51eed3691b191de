#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod args;
mod cancel;
mod codecs;
mod conformance;
mod decode;
mod demo;
mod doctor;
mod failure;
mod image;
mod inspect;
mod mapping;
mod output;
mod progress;
mod qpl;
mod recv;
mod send;
mod show;
mod size;
mod summary;
mod table;

#[cfg(feature = "lz4")]
use multifd_lz4 as _;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use args::{Args, Command, Verbosity};
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    log(args.verbosity);
    match run(args) {
        Ok(status) => status,
        Err(failure) => {
            output::note(&format!("multifd: {failure}"));
            failure.status()
        }
    }
}

fn run(args: Args) -> Result<ExitCode, Failure> {
    let output = Output::new(args.verbosity);
    match args.command {
        Command::Demo(args) => demo::run(&args, &output),
        Command::Send(args) => send::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Recv(args) => recv::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Decode(args) => decode::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::run(&args, &output),
        Command::Show(args) => show::run(&args, &output).map(|()| ExitCode::SUCCESS),
        Command::Codecs(args) => codecs::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Conformance(args) => conformance::run(&args, &output),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions { shell } => complete(shell).map(|()| ExitCode::SUCCESS),
    }
}

fn complete(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "multifd", &mut script);
    output::print_bytes(&script)
}

fn log(verbosity: Verbosity) {
    let level = match (verbosity.quiet, verbosity.verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, 0) => LevelFilter::WARN,
        (_, 1) => LevelFilter::DEBUG,
        (_, _) => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // A stderr that is closed is no reason to panic.
        .log_internal_errors(false)
        .init();
}
