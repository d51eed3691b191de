//! A recorded migration: the bytes of each of its connections, as files in a folder.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use multifd::core::channel::{Frame, Framing, Wanted};
use multifd::core::wire::InitialPacket;
use multifd::core::{Compression, PageSize};
use multifd::driver::MainReader;
use multifd::stream::{Limits, MainDecoder};

use crate::failure::{Failure, chain};
use crate::file;
use crate::folder::{self, MAIN};

/// The most channels that the format allows.
const MOST: usize = 255;

#[derive(Debug)]
pub(crate) struct Recording {
    main: Connection,
    channels: Vec<Connection>,
}

/// What was sent on one connection.
#[derive(Debug)]
struct Connection {
    path: PathBuf,
    file: File,
}

impl Recording {
    /// Opens the recording in `folder`: `main.bin`, and `channel0.bin`, `channel1.bin` and so on.
    pub(crate) fn open(folder: &Path) -> Result<Self, Failure> {
        folder::expect(folder, folder::Wanted::Recording)?;
        let main = Connection::open(folder.join(MAIN))?;
        let count = count_channels(folder)?;
        let channels =
            (0..count).map(|number| Connection::open(folder.join(format!("channel{number}.bin"))));
        Ok(Self { main, channels: channels.collect::<Result<_, _>>()? })
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> Result<u64, Failure> {
        let all = self.channels.iter().chain([&self.main]);
        all.map(|one| Ok(one.file.metadata().map_err(|error| one.cannot(&error))?.len())).sum()
    }

    /// The codec that the channels' packets name: none if no packet has data.
    pub(super) fn compression(&self) -> Result<Compression, Failure> {
        let page_size = self.page_size()?;
        for channel in &self.channels {
            let found = first_codec(&channel.file, page_size);
            let found = found.map_err(|error| channel.cannot(&error))?;
            channel.rewind()?;
            if let Some(compression) = found {
                return Ok(compression);
            }
        }
        Ok(Compression::None)
    }

    fn page_size(&self) -> Result<PageSize, Failure> {
        let decoder = MainDecoder::new(Limits::default());
        let mut reader = MainReader::new(&self.main.file, decoder);
        let path = self.main.path.display();
        // Certain once the configuration has been read.
        let configured = reader.next_event();
        configured
            .map_err(|error| Failure::new(format!("cannot use {path}: {}", chain(&error))))?;
        self.main.rewind()?;
        Ok(reader.decoder().page_size())
    }

    /// The main channel's file, and those of the channels.
    pub(crate) fn into_files(self) -> (File, Vec<File>) {
        (self.main.file, self.channels.into_iter().map(|channel| channel.file).collect())
    }
}

impl Connection {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let (file, _) = file::open(&path)?;
        Ok(Self { path, file })
    }

    fn rewind(&self) -> Result<(), Failure> {
        (&self.file).rewind().map_err(|error| self.cannot(&error))
    }

    fn cannot(&self, error: &io::Error) -> Failure {
        cannot_read(&self.path, error)
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::io(format!("cannot read {}", path.display()), error)
}

/// The number of channels. A gap in their numbers means that a file was lost.
fn count_channels(folder: &Path) -> Result<usize, Failure> {
    let number = |name: &str| -> Option<usize> {
        name.strip_prefix("channel")?.strip_suffix(".bin")?.parse().ok()
    };
    let entries = std::fs::read_dir(folder).map_err(|error| cannot_read(folder, &error))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers: Vec<_> = names.filter_map(|name| number(&name)).collect();
    let shown = folder.display();
    match numbers.iter().max() {
        None => Err(Failure::new(format!(
            "cannot use {shown}: it is not a recording, as it has no channel0.bin; record each channel \
             into a file"
        ))),
        Some(&last) if last >= MOST => Err(Failure::new(format!(
            "cannot use {shown}: it has a channel{last}.bin, but the highest number is 254"
        ))),
        // A number that is missing fails when its file is opened.
        Some(&last) => Ok(last + 1),
    }
}

/// The codec of the first packet with data; `None` if no packet has any. Malformed bytes end the
/// search: the engine finds them again and says what they are.
fn first_codec(file: &File, page_size: PageSize) -> io::Result<Option<Compression>> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(InitialPacket::BYTES as u64))?;
    let mut framing = Framing::new(page_size);
    loop {
        let count = match framing.want() {
            Wanted::Packet(room) => reader.read(room)?,
            // A payload or a device's data, less than 4 GiB.
            Wanted::Payload(bytes) => {
                reader.seek_relative(bytes as i64)?;
                bytes as usize
            }
            Wanted::Nothing => return Ok(None),
        };
        match framing.filled(count) {
            Ok(Some(Frame::Ram(packet))) if packet.payload_bytes > 0 => {
                return Ok(Some(packet.compression()));
            }
            Ok(_) => {}
            Err(_) => return Ok(None),
        }
    }
}
