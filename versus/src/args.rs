//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::codec::Codec;
use crate::guest::GuestSize;
use crate::route::Route;
use crate::setting::{Rate, Setting};

/// Migrates a guest's RAM between QEMU and multifd, in all four ways in turn, and measures the time,
/// the CPU time of both processes and the bytes on the wire.
#[derive(Debug, Parser)]
#[command(name = "versus-qemu", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) measure: Measure,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take a migration in, as a process that is measured
    #[command(hide = true)]
    Destination(Destination),
}

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Measure {
    /// A real guest's RAM, a file of whole 2 MiB
    #[arg(long, value_name = "FILE", default_value = "target/guest-ram/guest.ram")]
    pub(crate) ram: PathBuf,
    /// How much RAM the guest has that is migrated: the real guest's pieces of 2 MiB, again and again in other orders.
    /// The machine needs twice as much memory, and somewhat more
    #[arg(long, value_name = "SIZE", default_value = "4G")]
    pub(crate) guest_size: GuestSize,
    /// The program multifd
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/multifd")]
    pub(crate) multifd: PathBuf,
    /// The codecs, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',',
          default_values_t = [Codec::None, Codec::Zlib, Codec::Zstd, Codec::QplPortable])]
    pub(crate) compression: Vec<Codec>,
    /// From whom to whom, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "qemu-to-qemu,qemu-to-multifd,multifd-to-qemu,multifd-to-multifd"
    )]
    pub(crate) routes: Vec<Route>,
    /// The codecs with which it is measured, too, what it takes `multifd recv` to store the VM, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) stored: Vec<Codec>,
    /// The level of those codecs that have levels
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) level: i32,
    /// How many channels
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) channels: u8,
    /// Runs of each way that has a target, and of QEMU to QEMU beside it
    #[arg(long, visible_alias = "reps", value_name = "N", default_value_t = 9,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repetitions: u32,
    /// Measure also with a destination's memory that was touched before the migration, every page of it
    #[arg(long)]
    pub(crate) touched: bool,
    /// Measure also with TLS
    #[arg(long)]
    pub(crate) tls: bool,
    /// Measure also over emulated links of these speeds in Gbit/s, separated by commas, such as 1G,10G,25G: as root, or
    /// where users may make namespaces
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) link: Vec<Rate>,
    /// The codecs for --touched, --tls and --link
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [Codec::None, Codec::Zstd])]
    pub(crate) extra_compression: Vec<Codec>,
    /// From whom to whom for --touched, --tls and --link
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "qemu-to-qemu,multifd-to-multifd"
    )]
    pub(crate) extra_routes: Vec<Route>,
    /// Runs of each other way
    #[arg(long, visible_alias = "extra-reps", value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) extra_repetitions: u32,
    /// A command that runs multifd for codec qpl-software, such as a loader with libqpl's C library
    #[arg(long, value_name = "COMMAND", default_value = "")]
    pub(crate) runner: String,
    /// Print every run as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the result into this page, and a chart beside it: where the load was 0.3 at most. Rows are left out where the
    /// middle half of the times spreads over more than 15 % of the median, and all where that is more than half
    #[arg(long, value_name = "PAGE")]
    pub(crate) docs: Option<PathBuf>,
}

impl Measure {
    /// The settings, the plain one first.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut settings = vec![Setting::Plain];
        settings.extend(self.touched.then_some(Setting::Touched));
        settings.extend(self.tls.then_some(Setting::Tls));
        settings.extend(self.link.iter().copied().map(Setting::Link));
        settings
    }

    pub(crate) fn codecs(&self, setting: Setting) -> &[Codec] {
        match setting {
            Setting::Plain => &self.compression,
            Setting::Touched | Setting::Tls | Setting::Link(_) => &self.extra_compression,
        }
    }

    pub(crate) fn routes(&self, setting: Setting, codec: Codec) -> Vec<Route> {
        if setting != Setting::Plain {
            return self.extra_routes.clone();
        }
        let stored = self.stored.contains(&codec).then_some(Route::Stored);
        self.routes.iter().copied().chain(stored).collect()
    }

    /// How often is measured.
    pub(crate) fn repetitions(&self, setting: Setting, codec: Codec, route: Route) -> u32 {
        // What is compared with the target is compared with QEMU to QEMU.
        let route = if route == Route::QemuToQemu { Route::MultifdToMultifd } else { route };
        match setting.target(codec, route) {
            Some(_) => self.repetitions,
            None => self.extra_repetitions,
        }
    }
}

/// What a destination is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Destination {
    /// The address to listen on
    #[arg(long)]
    pub(crate) listen: String,
    #[arg(long)]
    pub(crate) compression: Codec,
    #[arg(long)]
    pub(crate) channels: u8,
    /// What the RAM must be in the end
    #[arg(long)]
    pub(crate) expect: PathBuf,
    /// Touch every page of the memory before the source connects
    #[arg(long)]
    pub(crate) touched: bool,
    /// Use TLS, with the certificates in this folder
    #[arg(long)]
    pub(crate) tls_creds: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_has_a_target_is_measured_more_often_and_so_is_what_it_is_compared_with() {
        let args = ["versus-qemu", "--reps", "9", "--extra-reps", "3", "--stored", "none"];
        let args = Args::try_parse_from(args).unwrap().measure;
        let (plain, link) = (Setting::Plain, Setting::Link("1G".parse().unwrap()));
        let often = |setting, route| args.repetitions(setting, Codec::None, route);
        assert_eq!((often(plain, Route::QemuToQemu), often(link, Route::QemuToQemu)), (9, 3));
        assert_eq!(often(Setting::Touched, Route::QemuToQemu), 9);
        assert_eq!(
            (often(plain, Route::MultifdToQemu), often(plain, Route::QemuToMultifd)),
            (9, 3)
        );
        assert_eq!(args.routes(plain, Codec::None).last(), Some(&Route::Stored));
        assert!(!args.routes(plain, Codec::Zstd).contains(&Route::Stored));
        assert!(!args.routes(link, Codec::None).contains(&Route::Stored));
    }

    #[test]
    fn more_settings_come_behind_the_plain_one() {
        let settings = |args: &[&str]| {
            let args = Args::try_parse_from([&["versus-qemu"], args].concat());
            let settings = args.map(|args| args.measure.settings());
            settings.map(|settings| settings.iter().map(Setting::to_string).collect::<Vec<_>>())
        };
        assert_eq!(settings(&[]).unwrap(), ["loopback"]);
        assert_eq!(
            settings(&["--link", "1G,25G", "--tls", "--reps", "1"]).unwrap(),
            ["loopback", "loopback, TLS", "1 Gbit/s", "25 Gbit/s"]
        );
        settings(&["--link", "fast"]).unwrap_err();
        settings(&["--guest-size", "3M"]).unwrap_err();
    }
}
