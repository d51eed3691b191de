//! The measurement.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::args::Measure;
use crate::codec::Codec;
use crate::error::Error;
use crate::image::Image;
use crate::network::Network;
use crate::peer::{Destination, Source};
use crate::route::Route;
use crate::setting::Setting;

/// Everything that migrations need.
pub(crate) struct Bench<'a> {
    pub(crate) image: Image,
    pub(crate) args: &'a Measure,
    settings: Vec<(Setting, Network)>,
}

/// A migration that is to be made.
#[derive(Clone, Copy)]
pub(crate) struct Migration<'a> {
    pub(crate) bench: &'a Bench<'a>,
    pub(crate) setting: Setting,
    pub(crate) network: &'a Network,
    pub(crate) codec: Codec,
    pub(crate) route: Route,
}

/// A migration that was made.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    pub(crate) source_cpu_seconds: f64,
    pub(crate) destination_cpu_seconds: f64,
    pub(crate) wire_bytes: u64,
}

impl Run {
    /// Of both processes.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.source_cpu_seconds + self.destination_cpu_seconds
    }
}

/// All migrations in one setting with one codec on one route.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) setting: Setting,
    pub(crate) codec: Codec,
    pub(crate) route: Route,
    pub(crate) runs: Vec<Run>,
}

impl<'a> Bench<'a> {
    /// Makes the networks of all settings first, so that one that cannot be made costs no time.
    pub(crate) fn new(qemu: &Path, image: Image, args: &'a Measure) -> Result<Self, Error> {
        let settings = args.settings().into_iter();
        let settings = settings.map(|setting| {
            let network = Network::of(setting, qemu, image.folder())?;
            Ok((setting, network))
        });
        let settings = settings.collect::<Result<_, Error>>()?;
        if args.tls {
            certify(args, &image)?;
        }
        Ok(Self { image, args, settings })
    }

    /// Measures each codec on each route that the QEMU can go, in each setting.
    pub(crate) fn measure_all(&self) -> Result<Vec<Measured>, Error> {
        let mut measured = Vec::new();
        for (setting, network) in &self.settings {
            for &codec in self.args.codecs(*setting) {
                measured.extend(self.measure(*setting, network, codec)?);
            }
        }
        Ok(measured)
    }

    /// The routes take turns, so that whatever else the machine does, it does to all of them. But over a
    /// link, the first turn fills caches and does not count. For docs, where a route is not
    /// steady, all take more turns, up to as many again.
    fn measure(
        &self,
        setting: Setting,
        network: &Network,
        codec: Codec,
    ) -> Result<Vec<Measured>, Error> {
        let routes = self.args.routes(setting, codec).into_iter();
        let routes = routes.filter(|&route| self.can(codec, route));
        let mut measured: Vec<_> =
            routes.map(|route| Measured { setting, codec, route, runs: Vec::new() }).collect();
        let repetitions = |route| self.args.repetitions(setting, codec, route) as usize;
        let turns = measured.iter().map(|measured| repetitions(measured.route)).max();
        let turns = turns.unwrap_or_default();
        let most = if self.args.docs.is_some() { 2 * turns } else { turns };
        let first = usize::from(matches!(setting, Setting::Link(_)));
        for turn in first..=most {
            let is_more = turn > turns;
            if is_more && measured.iter().all(Measured::is_steady) {
                break;
            }
            for Measured { route, runs, .. } in &mut measured {
                if !is_more && runs.len() == repetitions(*route) {
                    continue;
                }
                let migration = Migration { bench: self, setting, network, codec, route: *route };
                let run = migration.run(turn == first)?;
                let (seconds, cpu) = (run.seconds, run.cpu_seconds());
                _ = writeln!(
                    io::stderr(),
                    "{setting}, {codec}, {route}: {seconds:.3} s, CPU {cpu:.2} s"
                );
                if turn > 0 {
                    runs.push(run);
                }
            }
        }
        Ok(measured)
    }

    fn can(&self, codec: Codec, route: Route) -> bool {
        let needs_qemu = route.is_from_qemu() || route.is_to_qemu();
        codec.qpl_path().is_none() || !needs_qemu || self.image.qemu_has_qpl
    }
}

impl Migration<'_> {
    /// Migrates, and if `compare` then compares the RAM with what it must be.
    fn run(&self, compare: bool) -> Result<Run, Error> {
        let (destination, uri) = Destination::start(self)?;
        let sent = Source::start(self)?.migrate(&uri)?;
        let destination_cpu = destination.finish(&self.bench.image, compare)?;
        Ok(Run {
            seconds: sent.seconds,
            source_cpu_seconds: sent.cpu.as_secs_f64(),
            destination_cpu_seconds: destination_cpu.as_secs_f64(),
            wire_bytes: sent.wire_bytes,
        })
    }

    /// The folder with the certificates, with TLS.
    pub(crate) fn certificates(&self) -> Option<PathBuf> {
        (self.setting == Setting::Tls).then(|| self.bench.image.certificates())
    }
}

/// Makes certificates for the loopback device.
fn certify(args: &Measure, image: &Image) -> Result<(), Error> {
    let output = Command::new(&args.multifd)
        .arg("tls-init")
        .arg(image.certificates())
        .args(["--host", "127.0.0.1"])
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io(format!("run {}", args.multifd.display())))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Other(format!("multifd tls-init: {}", String::from_utf8_lossy(&output.stderr))))
}
