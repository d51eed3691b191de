//! `multifd codecs`.

use std::sync::Arc;

use multifd::core::{Levels, MultiFdMethods};
use serde::Serialize;

use crate::failure::Failure;
use crate::options::codec;
use crate::output;
use crate::qpl::Qpl;
use crate::table::Table;

/// List the codecs of this program.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  multifd codecs\n  multifd codecs --json")]
pub(crate) struct Args {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    qpl: Qpl,
}

#[derive(Serialize)]
struct Listed {
    codec: &'static str,
    summary: &'static str,
    /// The value of the compression field in a packet's flags.
    flags: u32,
    levels: Option<ListedLevels>,
    available: bool,
    /// The library or device that it uses, or why it is not available.
    by: String,
}

#[derive(Serialize)]
struct ListedLevels {
    least: i32,
    most: i32,
    default: i32,
}

impl Listed {
    fn new(codec: &Arc<dyn MultiFdMethods>) -> Self {
        let (available, by) = match codec::probe(&**codec) {
            Ok(by) => (true, by),
            Err(reason) => (false, reason),
        };
        let descriptor = codec.descriptor();
        let levels = descriptor.levels.map(|Levels { least, most, default, .. }| ListedLevels {
            least,
            most,
            default,
        });
        let flags = codec.compression().flags().bits();
        Self { codec: descriptor.name, summary: descriptor.summary, flags, levels, available, by }
    }

    fn row(&self) -> [String; 5] {
        let levels = self.levels.as_ref().map_or_else(
            || "-".to_owned(),
            |levels| format!("{} to {}, default {}", levels.least, levels.most, levels.default),
        );
        let by = if self.available { &self.by } else { &format!("not available: {}", self.by) };
        let flags = format!("{:#04x}", self.flags);
        [self.codec.to_owned(), flags, levels, self.summary.to_owned(), by.clone()]
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let registry = args.qpl.registry()?;
    let codecs: Vec<_> = registry.iter().map(Listed::new).collect();
    if args.json {
        return output::print_json(&codecs);
    }
    let mut table = Table::new(&["codec", "flags", "<levels", "<what", "<by"]);
    codecs.iter().for_each(|codec| table.row(codec.row()));
    output::print(&table.to_string())
}
