//! The measurement.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::args::Measure;
use crate::codec::Codec;
use crate::error::Error;
use crate::image::Image;
use crate::peer::{Destination, Source};
use crate::route::Route;

/// Everything that a migration needs.
pub(crate) struct Bench<'a> {
    pub(crate) qemu: PathBuf,
    pub(crate) image: Image,
    pub(crate) args: &'a Measure,
}

/// One migration.
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

/// All migrations of one codec on one route.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) codec: Codec,
    pub(crate) route: Route,
    pub(crate) runs: Vec<Run>,
}

impl Bench<'_> {
    /// Measures each codec on each route that the QEMU can go.
    pub(crate) fn measure_all(&self) -> Result<Vec<Measured>, Error> {
        let codecs = self.args.compression.iter().copied();
        let measured: Vec<_> = codecs.map(|codec| self.measure(codec)).collect::<Result<_, _>>()?;
        Ok(measured.concat())
    }

    /// The routes take turns, so that whatever else the machine does, it does to all of them. The
    /// first turn fills caches and does not count.
    fn measure(&self, codec: Codec) -> Result<Vec<Measured>, Error> {
        let routes = self.args.routes.iter().copied().filter(|&route| self.can(codec, route));
        let mut measured: Vec<_> =
            routes.map(|route| Measured { codec, route, runs: Vec::new() }).collect();
        for turn in 0..=self.args.repetitions {
            for Measured { route, runs, .. } in &mut measured {
                let run = self.run(*route, codec)?;
                let (seconds, cpu) = (run.seconds, run.cpu_seconds());
                _ = writeln!(io::stderr(), "{codec}, {route}: {seconds:.3} s, CPU {cpu:.2} s");
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

    fn run(&self, route: Route, codec: Codec) -> Result<Run, Error> {
        let (destination, uri) = Destination::start(self, route, codec)?;
        let sent = Source::start(self, route, codec)?.migrate(&uri)?;
        let destination_cpu = destination.finish(&self.image)?;
        Ok(Run {
            seconds: sent.seconds,
            source_cpu_seconds: sent.cpu.as_secs_f64(),
            destination_cpu_seconds: destination_cpu.as_secs_f64(),
            wire_bytes: sent.wire_bytes,
        })
    }
}
