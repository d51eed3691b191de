//! The command line with what its help, the man pages and the completions say besides the options.

use std::path::Path;

use clap::{Command, CommandFactory};

use crate::Cli;
use crate::failure::Failure;

/// The command line.
pub(crate) fn command() -> Command {
    let command = Cli::command().mut_subcommands(|command| {
        let statuses = statuses(command.get_name());
        with_statuses(command, statuses)
    });
    with_statuses(command, &ALL)
}

/// Writes a man page for the program and each of its commands into `folder`.
pub(crate) fn write_man_pages(folder: &Path) -> Result<(), Failure> {
    let written = clap_mangen::generate_to(command(), folder);
    written.map_err(|error| {
        Failure::io(format!("cannot write man pages to {}", folder.display()), &error)
    })
}

/// An exit status and what it means.
type Status = (&'static str, &'static str);

const DONE: Status = ("0", "done");
const FAILED: Status = ("1", "failed: the VM is still at its source, nothing is left behind");
const USAGE: Status = ("2", "wrong usage");
const UNCLEAR: Status =
    ("3", "unclear: the destination may have the VM; look there before the guest goes on here");
const INCOMPLETE: Status = ("4", "done, but the recording or the inspection is incomplete");
const SIGNAL: Status = ("128+N", "cancelled by signal N");

/// What all commands have in common.
const ALL: [Status; 6] = [
    DONE,
    ("1", "failed, or what was checked is not as it should be"),
    USAGE,
    UNCLEAR,
    INCOMPLETE,
    SIGNAL,
];

/// The exit statuses of a command.
fn statuses(name: &str) -> &'static [Status] {
    match name {
        "send" => &[
            ("0", "done: the destination has the VM; with --no-return-path, it was all sent"),
            FAILED,
            USAGE,
            UNCLEAR,
            SIGNAL,
        ],
        "recv" => &[
            DONE,
            ("1", "failed: nothing is left behind; a source with a return path keeps the VM"),
            USAGE,
            ("3", "unclear: the source may have let the VM go, look there; the image is kept"),
            SIGNAL,
        ],
        "relay" => &[
            DONE,
            ("1", "failed: both sides see a closed connection, the VM is still at its source"),
            USAGE,
            UNCLEAR,
            INCOMPLETE,
            SIGNAL,
        ],
        "decode" => &[DONE, ("1", "failed: nothing is left behind"), USAGE, SIGNAL],
        "tls-init" => &[DONE, ("1", "failed: nothing is left behind"), USAGE],
        "demo" => &[DONE, ("1", "failed, or a page differs"), USAGE, SIGNAL],
        "inspect" => {
            &[("0", "nothing is wrong"), ("1", "something is wrong, or failed"), USAGE, SIGNAL]
        }
        "conformance" => &[
            ("0", "all codecs that were run conform"),
            ("1", "one does not, or none was run"),
            USAGE,
        ],
        "doctor" => &[("0", "the hardware path can be used"), ("1", "it cannot"), USAGE],
        _ => &[DONE, ("1", "failed"), USAGE],
    }
}

fn with_statuses(command: Command, statuses: &[Status]) -> Command {
    let lines = statuses.iter().map(|(status, what)| format!("\n  {status:<5}  {what}"));
    let before = command.get_after_help().map(|help| format!("{help}\n\n")).unwrap_or_default();
    let help = format!("{before}Exit status:{}", lines.collect::<String>());
    command.after_help(help)
}
