//! `multifd codecs`, and how a codec is picked.

use multifd::core::{Availability, Levels, MethodDescriptor, Registry};
use serde::Serialize;

use crate::args;
use crate::failure::Failure;
use crate::output;
use crate::table::Table;

/// The codec called `name`, which must be available here and have the level.
pub(crate) fn find<'a>(
    registry: &'a Registry,
    name: &str,
    level: Option<i32>,
) -> Result<&'a MethodDescriptor, Failure> {
    let codec = registry.by_name(name).map_err(|_| {
        let names: Vec<_> = registry.iter().map(|codec| codec.name).collect();
        let names = names.join(", ");
        Failure::new(format!("this program has no codec '{name}', only {names}; use one that has"))
    })?;
    codec.level(level).map_err(|error| Failure::usage(error.to_string()))?;
    codec.require().map_err(|error| Failure::new(format!("{error}; see multifd codecs")))?;
    Ok(codec)
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    summary: &'static str,
    /// The value of the compression field in a packet's flags.
    flags: u32,
    levels: Option<ListedLevels>,
    available: bool,
    /// By which library or device it works, or why it does not.
    by: String,
}

#[derive(Serialize)]
struct ListedLevels {
    least: i32,
    most: i32,
    default: i32,
}

impl Listed {
    fn new(codec: &MethodDescriptor) -> Self {
        let (available, by) = match (codec.probe)() {
            Availability::Available(by) => (true, by),
            Availability::Unavailable(reason) => (false, reason),
        };
        let levels = codec.levels.map(|Levels { least, most, default }| ListedLevels {
            least,
            most,
            default,
        });
        let flags = codec.compression().flags().bits();
        Self { name: codec.name, summary: codec.summary, flags, levels, available, by }
    }

    fn row(&self) -> [String; 5] {
        let levels = self.levels.as_ref().map_or_else(
            || "-".to_owned(),
            |levels| format!("{} to {}, default {}", levels.least, levels.most, levels.default),
        );
        let by = if self.available { &self.by } else { &format!("not available: {}", self.by) };
        let flags = format!("{:#04x}", self.flags);
        [self.name.to_owned(), flags, levels, self.summary.to_owned(), by.clone()]
    }
}

pub(crate) fn run(args: &args::Codecs) -> Result<(), Failure> {
    let registry = args.qpl.registry()?;
    let codecs: Vec<_> = registry.iter().map(Listed::new).collect();
    if args.json {
        return output::print_json(&codecs);
    }
    let mut table = Table::new(&["codec", "flags", "<levels", "<what", "<by"]);
    codecs.iter().for_each(|codec| table.row(codec.row()));
    output::print(&table.to_string())
}
