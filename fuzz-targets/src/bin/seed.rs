//! Writes a corpus to begin with for each target into `fuzz/corpus`: the recordings of real QEMUs, cut to
//! their first packets, payloads that the codecs make, and the inputs that are kept.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::spawn;

use multifd::mapped_ram::{MappedRam, Writer};
use multifd::stream::{BlockInfo, Configuration, Limits};
use multifd::{Connection, PageSet, Source, Vm};
use multifd_conformance::ends::{Sender, noise};
use multifd_conformance::recordings;
use multifd_core::codec::{PacketMethods, PageMethods};
use multifd_core::ram::{Ram, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::BlockName;
use multifd_core::{MultiFdMethods, PageSize, Registry};
use multifd_fuzz_targets::{TARGETS, join};
use rcgen::{CertificateParams, KeyPair};

/// How much of each connection is kept: libFuzzer is slow with more.
const MOST: usize = 16 << 10;

/// An image's, of version 2.
const MANIFEST: &str = r#"{
"version": 2, "machine": "pc", "uuid": "00000000-0000-0000-0000-000000000000", "page_size": 4096,
"blocks": [{"name": "pc.ram", "bytes": 4096, "file": "pc.ram", "sha256": "00", "page_bytes": 2097152,
    "digest": "xxh3-128:00"}],
"device_state": "device-state.bin", "device_state_sha256": "00",
"early_state": {"file": "early-state.bin", "sha256": "00"},
"stream": {
    "configuration": [
        {"version": 1, "data": {"target-page-bits": 12}},
        {"version": 1, "data": {"capabilities": ["multifd"]}},
        {"version": 1, "data": {"uuid": "01020304-0506-0708-090a-0b0c0d0e0f10"}}
    ],
    "ram_section": 2, "sync": "flush", "footers": true,
    "postcopy_advise": {"postcopy-ram": {"page_sizes": 4096, "target_page_bytes": 4096}}
}}"#;

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
        put("relay", name, &join(choice | 0x10, &parts))?;
        if whole.iter().map(|part| part.len()).sum::<usize>() < 1 << 20 {
            put("destination", &format!("{name}-whole"), &join(choice, &whole))?;
            put("relay", &format!("{name}-whole"), &join(choice | 0x20, &whole))?;
        }
        put("inspect", name, &join(0, &parts))?;
        put("main_channel", name, &[&[0], recording.main].concat())?;
        for channel in channels {
            put("channel", name, &[&[choice], channel].concat())?;
        }
    }
    for (number, codec) in registry.iter().enumerate() {
        let small = small(&registry, codec)?;
        let small: Vec<_> = small.iter().map(Vec::as_slice).collect();
        let name = format!("small-{}", codec.compression());
        put("destination", &name, &join(number as u8, &small))?;
        put("relay", &name, &join(number as u8 | 0x20, &small))?;
        put("inspect", &name, &join(0, &small))?;
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
    let uadk = PageMethods::new(multifd_uadk::Uadk::new());
    let qatzip = PacketMethods::new(multifd_qatzip::Qatzip::new());
    put("uadk", "three-pages", &[&[2][..], &Sender::new(&uadk, None).send(&pages)].concat())?;
    put("qatzip", "three-pages", &[&[2][..], &Sender::new(&qatzip, None).send(&pages)].concat())?;
    put("qpl", "three-pages", &[&[2][..], &Sender::new(&qpl, None).send(&pages)].concat())?;
    put("return_path", "messages", b"\0\x02\0\x04\0\0\0\x01\0\x07\0\0\0\x01\0\x04\0\0\0\0")?;
    put("manifest", "pc", MANIFEST.as_bytes())?;
    put("mapped_ram", "one-block", &mapped()?)?;
    let [certificate, key] = identity().map_err(io::Error::other)?;
    let files = [&certificate, &certificate, &key].map(String::as_bytes);
    put("tls_folder", "self-signed", &join(0, &files))?;
    TARGETS.iter().try_for_each(|(target, _)| put_kept(target))
}

/// A whole migration of a few pages: the main channel's bytes and those of two channels.
fn small(registry: &Registry, codec: &Arc<dyn MultiFdMethods>) -> io::Result<Vec<Vec<u8>>> {
    let memory = MmapRegion::<()>::new(16 << 12).map_err(io::Error::other)?;
    let name = BlockName::new("pc.ram").expect("a short name");
    let block = RamBlock::new(name, memory);
    block.write(4096, &b"some text, ".repeat(800)[..2 * 4096]);
    block.write(9 << 12, &noise(4096));
    let ram = Arc::new(Ram::new(PageSize::Kib4, [block]).map_err(io::Error::other)?);
    let (mut ours, mut takers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (left, mut right) = UnixStream::pair()?;
        ours.push(Connection::from_socket(left)?);
        takers.push(spawn(move || {
            let mut bytes = Vec::new();
            right.read_to_end(&mut bytes).map(|_| bytes)
        }));
    }
    let main = ours.remove(0);
    let source = Source::builder(registry, Arc::clone(&ram));
    let source = source.compression(Arc::clone(codec)).return_path(false);
    let mut source = source.connect_over(main, ours).map_err(io::Error::other)?;
    source.round(&PageSet::all(&ram)).map_err(io::Error::other)?;
    source.finish(&PageSet::all(&ram), None).map_err(io::Error::other)?;
    takers.into_iter().map(|taker| taker.join().expect("a thread that reads")).collect()
}

/// A mapped-ram file of a block with two pages, as the target takes it.
fn mapped() -> io::Result<Vec<u8>> {
    let (name, bytes) = (BlockName::new("pc.ram").expect("a short name"), 16 << 12);
    let memory = MmapRegion::<()>::new(bytes).map_err(io::Error::other)?;
    let block = RamBlock::new(name.clone(), memory);
    block.write(4096, &b"some text, ".repeat(800)[..2 * 4096]);
    let ram = Ram::new(PageSize::Kib4, [block]).map_err(io::Error::other)?;
    let mut vm = Vm::default();
    vm.configuration = Configuration::new("pc");
    vm.blocks = vec![BlockInfo::new(name, bytes as u64)];
    vm.footers = true;
    let file = tempfile::tempfile()?;
    Writer::new(&file).write(&vm, &ram).map_err(io::Error::other)?;
    let limits = Limits::default();
    let saved = MappedRam::open(file.try_clone()?, 0, limits).map_err(io::Error::other)?;
    let block = &saved.blocks()[0];
    let end = file.metadata()?.len();
    let part = |from: u64, to: u64| {
        let mut bytes = vec![0; (to - from) as usize];
        file.read_exact_at(&mut bytes, from)?;
        Ok::<_, io::Error>([&(from as u32).to_le_bytes()[..], &bytes].concat())
    };
    let parts = [
        part(0, block.bitmap_offset + block.bitmap_bytes)?,
        part(block.pages_offset + 4096, block.pages_offset + 3 * 4096)?,
        part(block.end(), end)?,
    ];
    Ok(join(0, &parts.each_ref().map(Vec::as_slice)))
}

/// A certificate that is its own CA's, and its key.
fn identity() -> Result<[String; 2], rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["host".to_owned()])?.self_signed(&key)?;
    Ok([certificate.pem(), key.serialize_pem()])
}

fn put_kept(target: &str) -> io::Result<()> {
    let folder = Path::new("fuzz-targets/kept").join(target);
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        put(target, &name, &fs::read(&path)?)?;
    }
    Ok(())
}

fn put(target: &str, name: &str, input: &[u8]) -> io::Result<()> {
    let folder = Path::new("fuzz/corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), input)
}
