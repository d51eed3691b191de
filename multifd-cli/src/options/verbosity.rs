//! How much the program prints.

/// How much the program prints.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Verbosity {
    /// Log what happens, to stderr; twice for more
    #[arg(short, long, action = clap::ArgAction::Count, global = true, display_order = 100)]
    pub(crate) verbose: u8,
    /// Print nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 100)]
    pub(crate) quiet: bool,
}
