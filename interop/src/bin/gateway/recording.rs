//! A migration that a real QEMU has sent, and what its bytes are.

use std::error::Error;
use std::fs;
use std::ops::Range;
use std::path::Path;

use multifd_interop::program::Multifd;
use multifd_interop::qemu::{Qemu, Settings, Version};

/// The guest's RAM, in MiB: what the firmware needs, and a zero page or two.
pub(crate) const MIB: u32 = 8;

const UUID: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

/// What a QEMU is started with, source or destination.
pub(crate) fn arguments(version: Version) -> Vec<String> {
    let memory = format!("{MIB}M");
    ["-machine", version.machine(), "-m", &memory, "-uuid", UUID].map(str::to_owned).to_vec()
}

/// What both sides are told.
pub(crate) fn settings(codec: &'static str) -> Settings {
    Settings { compression: codec, ..Settings::default() }
}

/// A part of a migration, by whether a relay can understand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The main channel's header and CONFIGURATION.
    Header,
    /// The main channel's commands, and what is between sections.
    Command,
    /// The list of RAM blocks.
    Blocks,
    /// The RAM section's words.
    Words,
    /// A channel's first packet.
    Initial,
    /// A packet's fields in front of the offsets.
    Packet,
    /// A packet's offsets.
    Offsets,
    /// Pages, compressed or not.
    Payload,
    /// Device state, which says what it is to the device alone.
    DeviceState,
    /// The VMDESCRIPTION.
    Description,
}

impl Part {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Header => "header, CONFIGURATION",
            Self::Command => "commands, section heads",
            Self::Blocks => "list of RAM blocks",
            Self::Words => "words of the RAM section",
            Self::Initial => "a channel's initial packet",
            Self::Packet => "packet headers",
            Self::Offsets => "page offsets",
            Self::Payload => "page data",
            Self::DeviceState => "device state (opaque)",
            Self::Description => "VMDESCRIPTION (opaque)",
        }
    }

    /// Whether a relay passes it on as it is, whatever it is.
    pub(crate) const fn is_opaque(self) -> bool {
        matches!(self, Self::DeviceState | Self::Description)
    }
}

/// Some bytes that belong together: a number, a name, a page.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) part: Part,
    /// 0 is the main channel, then come the others.
    pub(crate) wire: usize,
    pub(crate) bytes: Range<usize>,
}

/// What went over the main channel and each of the others.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) codec: &'static str,
    pub(crate) wires: Vec<Vec<u8>>,
    pub(crate) fields: Vec<Field>,
}

impl Recording {
    /// What was recorded before, since a seed means the same only there; else [`record`] makes it.
    pub(crate) fn of(version: Version, codec: &'static str) -> Result<Self, Box<dyn Error>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/gateway");
        let record = folder.join(format!("{version}-{codec}"));
        if !record.exists() {
            fs::create_dir_all(&folder)?;
            self::record(version, codec, &record)?;
        }
        let names = ["main.bin", "channel0.bin", "channel1.bin"];
        let wires = names.map(|name| fs::read(record.join("from").join(name)));
        let wires: Vec<_> = wires.into_iter().collect::<Result<_, _>>()?;
        let mut fields = main_fields(&wires[0]).ok_or("the main channel is of another form")?;
        for (wire, bytes) in wires.iter().enumerate().skip(1) {
            fields.extend(channel_fields(wire, bytes).ok_or("a channel is of another form")?);
        }
        Ok(Self { codec, wires, fields })
    }
}

/// Has a QEMU migrate a guest to another, and records it.
fn record(version: Version, codec: &'static str, to: &Path) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(to.parent().unwrap_or(to))?;
    let record = folder.path().join("record");
    let (mut destination, uri) = waiting(version, codec)?;
    let mut source = Qemu::start(&version.program()?, MIB, &arguments(version))?;
    source.cont()?;
    source.goes_on()?;
    source.stop()?;
    source.set_up(&settings(codec))?;
    let record_to = record.display().to_string();
    let ends = ["relay", "--listen", "tcp:127.0.0.1:0", "--to", &uri, "--record", &record_to];
    let codecs = ["--from-compression", codec, "--to-compression", codec];
    let mut relay = Multifd::start(ends.iter().chain(&codecs))?;
    source.migrate(&relay.listening()?)?;
    source.complete_migration()?;
    destination.complete_migration()?;
    relay.succeed()?;
    fs::rename(record, to)?;
    Ok(())
}

/// A QEMU that waits for a migration, and where.
pub(crate) fn waiting(
    version: Version,
    codec: &'static str,
) -> Result<(Qemu, String), Box<dyn Error>> {
    let mut arguments = arguments(version);
    arguments.extend(["-incoming", "defer"].map(str::to_owned));
    let mut destination = Qemu::start(&version.program()?, MIB, &arguments)?;
    destination.set_up(&settings(codec))?;
    let uri = destination.listen()?;
    Ok((destination, uri))
}

/// Reads bytes in order, and notes what they are.
struct Reader<'a> {
    bytes: &'a [u8],
    wire: usize,
    at: usize,
    fields: Vec<Field>,
}

impl<'a> Reader<'a> {
    fn new(wire: usize, bytes: &'a [u8]) -> Self {
        Self { bytes, wire, at: 0, fields: Vec::new() }
    }

    fn take(&mut self, part: Part, count: usize) -> Option<&'a [u8]> {
        let range = self.at..self.at.checked_add(count)?;
        let taken = self.bytes.get(range.clone())?;
        self.at = range.end;
        if count > 0 {
            self.fields.push(Field { part, wire: self.wire, bytes: range });
        }
        Some(taken)
    }

    /// A number of so many bytes.
    fn number(&mut self, part: Part, count: usize) -> Option<u64> {
        Some(self.take(part, count)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// What has its length in front, in so many bytes.
    fn sized(&mut self, part: Part, count: usize) -> Option<()> {
        let length = self.number(part, count)?;
        self.take(part, usize::try_from(length).ok()?).map(drop)
    }
}

/// The main channel of a source without early state (docs/migration-stream.md, sections 1 and 2).
fn main_fields(bytes: &[u8]) -> Option<Vec<Field>> {
    let mut reader = Reader::new(0, bytes);
    let (header, command) = (Part::Header, Part::Command);
    reader.number(header, 4)?;
    reader.number(header, 4)?;
    let mut in_ram = false;
    loop {
        match *reader.bytes.get(reader.at)? {
            // CONFIGURATION, and what belongs to it.
            0x07 => {
                reader.number(header, 1)?;
                reader.sized(header, 4)?;
            }
            0x05 => configuration_part(&mut reader)?,
            0x08 => {
                reader.number(command, 1)?;
                reader.number(command, 2)?;
                reader.sized(command, 2)?;
            }
            0x01 => {
                reader.number(command, 1)?;
                reader.number(command, 4)?;
                reader.sized(command, 1)?;
                reader.number(command, 4)?;
                reader.number(command, 4)?;
                ram_body(&mut reader)?;
                in_ram = true;
            }
            0x02 | 0x03 => {
                in_ram = reader.number(command, 1)? == 2;
                reader.number(command, 4)?;
                ram_body(&mut reader)?;
            }
            0x7e => {
                reader.number(command, 1)?;
                reader.number(command, 4)?;
            }
            0x04 if !in_ram => break,
            _ => return None,
        }
    }
    let rest = &bytes[reader.at..];
    // EOF, the VMDESCRIPTION's type and its length, which is that of all that follows.
    let length = |at: usize| {
        let length: [u8; 4] = rest.get(at + 2..at + 6)?.try_into().ok()?;
        (u32::from_be_bytes(length) as usize == rest.len() - at - 6).then_some(at)
    };
    let end = (0..rest.len().saturating_sub(6))
        .filter(|&at| rest[at..at + 2] == [0, 6])
        .find_map(length)?;
    // Pieces: one edit is to hit one device, not all of them.
    let mut left = end;
    while left > 0 {
        left -= reader.take(Part::DeviceState, left.min(64))?.len();
    }
    reader.number(Part::Description, 1)?;
    reader.number(Part::Description, 1)?;
    reader.sized(Part::Description, 4)?;
    Some(reader.fields)
}

fn configuration_part(reader: &mut Reader<'_>) -> Option<()> {
    let header = Part::Header;
    reader.number(header, 1)?;
    let at = reader.at + 1;
    reader.sized(header, 1)?;
    let name = &reader.bytes[at..reader.at];
    reader.number(header, 4)?;
    match name {
        b"configuration/target-page-bits" => reader.number(header, 4).map(drop),
        b"configuration/uuid" => reader.take(header, 16).map(drop),
        b"configuration/capabilities" => {
            let count = reader.number(header, 4)?;
            (0..count).try_for_each(|_| reader.sized(header, 1))
        }
        _ => None,
    }
}

fn ram_body(reader: &mut Reader<'_>) -> Option<()> {
    let words = Part::Words;
    loop {
        let word = reader.number(words, 8)?;
        let (flags, address) = (word & 0xfff, word & !0xfff);
        if flags & 0x004 != 0 {
            let mut left = address;
            while left > 0 {
                reader.sized(Part::Blocks, 1)?;
                left = left.checked_sub(reader.number(Part::Blocks, 8)?)?;
            }
        }
        if flags & (0x002 | 0x008) != 0 && flags & 0x020 == 0 {
            reader.sized(words, 1)?;
        }
        if flags & 0x002 != 0 {
            reader.number(words, 1)?;
        }
        if flags & 0x008 != 0 {
            reader.take(Part::Payload, 4096)?;
        }
        if flags & 0x010 != 0 {
            return Some(());
        }
    }
}

/// A channel's packets (docs/wire-format.md, sections 1 and 3).
fn channel_fields(wire: usize, bytes: &[u8]) -> Option<Vec<Field>> {
    let mut reader = Reader::new(wire, bytes);
    for count in [4, 4, 16, 1, 7, 32] {
        reader.take(Part::Initial, count)?;
    }
    while reader.at < bytes.len() {
        let packet = Part::Packet;
        reader.number(packet, 4)?;
        reader.number(packet, 4)?;
        reader.number(packet, 4)?;
        reader.number(packet, 4)?;
        let normal = reader.number(packet, 4)?;
        let size = reader.number(packet, 4)?;
        reader.number(packet, 8)?;
        reader.number(packet, 4)?;
        reader.take(packet, 28)?;
        // The name, and what is behind its end.
        reader.take(packet, 16)?;
        reader.take(packet, 240)?;
        for _ in 0..128 {
            reader.number(Part::Offsets, 8)?;
        }
        let mut left = if normal > 0 { usize::try_from(size).ok()? } else { 0 };
        while left > 0 {
            left -= reader.take(Part::Payload, left.min(4096))?.len();
        }
    }
    Some(reader.fields)
}
