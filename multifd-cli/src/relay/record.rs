//! Recording a relayed migration.

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use multifd::core::MultiFdMethods;
use multifd::relay::{Tap, Wire};
use multifd::{Side, Stats};
use serde::Serialize;

use crate::failure::Failure;
use crate::file;
use crate::output;

/// Bytes of a wire that are collected before they are written to its file.
const BUFFER: usize = 64 << 10;

/// Writes what passes a relay into a folder of files for each side, as `multifd decode` reads them:
/// `main.bin`, `channel0.bin` and so on, and beside them the return path, `answers.bin`.
///
/// The threads that move the bytes write them: a slow disk slows the migration down, and nothing
/// piles up. If a write fails, as on a full disk, the recording ends and the migration goes on.
#[derive(Debug)]
pub(super) struct Recorder {
    folder: PathBuf,
    wires: Mutex<HashMap<(Side, Wire), Shared>>,
    failure: OnceLock<String>,
}

/// A wire's file. Each has its own lock: the threads of different wires do not wait for each other.
type Shared = Arc<Mutex<BufWriter<File>>>;

/// The content of `capture.json` for a side.
#[derive(Serialize)]
struct Capture<'a> {
    recorded_by: &'static str,
    compression: &'a str,
    channels: usize,
    normal_pages: u64,
    zero_pages: u64,
    syncs: u64,
    /// Whether the recording has everything, from the first byte to the end of the migration.
    complete: bool,
}

impl Recorder {
    /// Creates `folder`, which must not exist, to record into.
    pub(super) fn new(folder: &Path) -> Result<Self, Failure> {
        let cannot = |error: &io::Error| {
            let doing = format!("cannot create {}", folder.display());
            match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    Failure::new(format!("{doing}: it exists; choose another name"))
                }
                _ => Failure::io(doing, error),
            }
        };
        // Only the owner may read a guest's memory.
        let create = |folder: &Path| DirBuilder::new().mode(0o700).create(folder);
        create(folder).map_err(|error| cannot(&error))?;
        for side in [Side::From, Side::To] {
            create(&folder.join(name_of(side))).map_err(|error| cannot(&error))?;
        }
        let (wires, failure) = (Mutex::default(), OnceLock::new());
        Ok(Self { folder: folder.to_owned(), wires, failure })
    }

    /// Writes the rest, and a `capture.json` for each of the migration's `sides`.
    ///
    /// # Errors
    /// The first failure of the recording.
    pub(super) fn finish(
        &self,
        sides: [(&dyn MultiFdMethods, Stats); 2],
        went_through: bool,
    ) -> Result<(), Failure> {
        for (&(side, wire), file) in lock(&self.wires).iter() {
            if let Err(error) = lock(file).flush() {
                self.fail(side, wire, &error);
            }
        }
        let complete = went_through && self.failure.get().is_none();
        for (side, (codec, stats)) in [Side::From, Side::To].into_iter().zip(sides) {
            let total = stats.total();
            let capture = Capture {
                recorded_by: concat!("multifd relay ", env!("CARGO_PKG_VERSION")),
                compression: codec.name(),
                channels: stats.channels.len(),
                normal_pages: total.normal_pages,
                zero_pages: stats.zero_pages(),
                syncs: stats.syncs,
                complete,
            };
            let path = self.folder.join(name_of(side)).join("capture.json");
            let text = serde_json::to_string_pretty(&capture).map_err(io::Error::other);
            let written = text
                .and_then(|text| file::create_private(&path)?.write_all((text + "\n").as_bytes()));
            if let Err(error) = written {
                _ = self.failure.set(cannot_write(&path, &error));
            }
        }
        match self.failure.get() {
            Some(failure) => Err(Failure::new(failure.as_str())),
            None => Ok(()),
        }
    }

    fn write(&self, side: Side, wire: Wire, bytes: &[u8]) -> io::Result<()> {
        let mut wires = lock(&self.wires);
        let file = match wires.get(&(side, wire)) {
            Some(file) => Arc::clone(file),
            None => {
                let file =
                    BufWriter::with_capacity(BUFFER, file::create_private(&self.path(side, wire))?);
                let file = Arc::new(Mutex::new(file));
                wires.insert((side, wire), Arc::clone(&file));
                file
            }
        };
        drop(wires);
        lock(&file).write_all(bytes)
    }

    fn path(&self, side: Side, wire: Wire) -> PathBuf {
        let file = match wire {
            Wire::Main => "main.bin".to_owned(),
            Wire::ReturnPath => "answers.bin".to_owned(),
            Wire::Channel(number) => format!("channel{number}.bin"),
        };
        self.folder.join(name_of(side)).join(file)
    }

    /// Ends the recording.
    fn fail(&self, side: Side, wire: Wire, error: &io::Error) {
        let failure = cannot_write(&self.path(side, wire), error);
        if self.failure.set(failure.clone()).is_ok() {
            output::note(&format!("multifd: the recording ends, the migration goes on: {failure}"));
        }
    }
}

impl Tap for Recorder {
    fn pass(&self, side: Side, wire: Wire, bytes: &[u8]) {
        if self.failure.get().is_some() {
            return;
        }
        if let Err(error) = self.write(side, wire, bytes) {
            self.fail(side, wire, &error);
        }
    }
}

fn name_of(side: Side) -> &'static str {
    match side {
        Side::From => "from",
        Side::To => "to",
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    Failure::io(format!("cannot write {}", path.display()), error).to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
