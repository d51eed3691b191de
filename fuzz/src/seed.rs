//! Writes a corpus to begin with for each target into `fuzz/corpus`: the recordings of real QEMUs, cut to
//! their first packets, and payloads that the codecs make.

use std::fs;
use std::io;
use std::path::Path;

use multifd_conformance::ends::{Sender, noise};
use multifd_conformance::recordings;
use multifd_core::MultiFdMethods;
use multifd_core::codec::PacketMethods;
use multifd_fuzz::join;

/// How much of each connection is kept: libFuzzer is slow with more.
const MOST: usize = 16 << 10;

fn main() -> io::Result<()> {
    let registry = multifd::registry().map_err(io::Error::other)?;
    for recording in recordings() {
        let cut = |bytes: &'static [u8]| &bytes[..bytes.len().min(MOST)];
        let codec = registry.iter().position(|codec| codec.compression() == recording.compression);
        let choice = codec.unwrap_or_default() as u8;
        let channels: Vec<_> = recording.channels.iter().map(|channel| cut(channel)).collect();
        let whole = [&[recording.main][..], recording.channels].concat();
        let parts = [&[recording.main][..], &channels].concat();
        let name = recording.name;
        put("destination", name, &join(choice, &parts))?;
        if whole.iter().map(|part| part.len()).sum::<usize>() < 1 << 20 {
            put("destination", &format!("{name}-whole"), &join(choice, &whole))?;
        }
        put("inspect", name, &join(0, &parts))?;
        put("main_channel", name, &[&[0], recording.main].concat())?;
        for channel in channels {
            put("channel", name, &[&[choice], channel].concat())?;
        }
    }
    let pages = [&noise(4096)[..], &[7; 4096], &b"some text, ".repeat(373)[..4096]].concat();
    let zlib = PacketMethods::new(multifd_zlib::Zlib::new());
    let zstd = PacketMethods::new(multifd_zstd::Zstd::new());
    let qpl = multifd::qpl::Qpl::new(multifd::qpl::Options::new(multifd::qpl::Path::Portable));
    let codecs: [(&str, &dyn MultiFdMethods); 2] = [("zlib", &zlib), ("zstd", &zstd)];
    for (target, codec) in codecs {
        let mut sender = Sender::new(codec, None);
        let payloads = [sender.send(&pages), sender.send(&pages)];
        put(target, "two-packets", &join(2, &[&payloads[0], &payloads[1]]))?;
    }
    put("qpl", "three-pages", &[&[2][..], &Sender::new(&qpl, None).send(&pages)].concat())?;
    put("return_path", "messages", b"\0\x02\0\x04\0\0\0\x01\0\x07\0\0\0\x01\0\x04\0\0\0\0")
}

fn put(target: &str, name: &str, input: &[u8]) -> io::Result<()> {
    let folder = Path::new("fuzz/corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), input)
}
