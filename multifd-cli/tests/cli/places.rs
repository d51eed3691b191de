//! VMs in QEMU's files and libvirt's saves.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use multifd::core::wire::BlockName;
use multifd::stream::{BlockInfo, Configuration, MainEncoder, SyncForm};
use sha2::{Digest, Sha256};

use crate::common::{Ended, PROGRAM, Running, assert_same_files, multifd, names, recordings, text};

const XML: &str = "<domain type='kvm'>\n  <name>vm</name>\n  \
                   <uuid>01020304-0506-0708-090a-0b0c0d0e0f10</uuid>\n</domain>\n";

/// An image of a recorded VM.
fn image(folder: &Path) -> PathBuf {
    let image = folder.join("vm");
    multifd(&["decode", text(&recordings()[0]), "--to", text(&image)]).succeeded();
    image
}

fn convert(from: &str, to: &str, more: &[&str]) -> Ended {
    multifd(&[&["convert", "--from", from, "--to", to][..], more].concat())
}

fn qemu_file(path: &Path) -> String {
    format!("qemu-file:{}", path.display())
}

fn libvirt(path: &Path) -> String {
    format!("libvirt:{}", path.display())
}

#[test]
fn a_file_that_qemu_11_1_has_written_while_its_guest_ran_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/qemu-11.1-mapped-ram.zst");
    let (file, image) = (folder.path().join("vm.mapped"), folder.path().join("vm"));
    zstd::stream::copy_decode(File::open(packed).unwrap(), File::create(&file).unwrap()).unwrap();
    let file = qemu_file(&file);
    let shown = multifd(&["show", &file, "--json"]).succeeded().json();
    assert_eq!(shown["machine"], "pc-i440fx-10.0");
    assert_eq!(shown["blocks"].as_array().unwrap().len(), 6);
    let inspected = multifd(&["inspect", &file]).succeeded().stdout;
    assert!(inspected.contains("nothing is wrong"), "{inspected}");
    convert(&file, text(&image), &[]).succeeded();
    let ram = Sha256::digest(fs::read(image.join("pc.ram")).unwrap());
    let ram: String = ram.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ram, "ae2ac429e47d274f0cd2c7b7efc36addce722f7d65a7d113ee75a29dd53d43d2");
    // The capability was of the file, not of the VM.
    assert!(!fs::read_to_string(image.join("vm.json")).unwrap().contains("mapped-ram"));
}

#[test]
fn a_vm_that_goes_through_files_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (image, back) = (image(folder.path()), folder.path().join("back"));
    let file = folder.path().join("file");
    for (offset, more) in
        [("", &["--threads", "1"][..]), (",offset=0x5c", &[]), (",offset=3M", &[])]
    {
        let place = qemu_file(&file) + offset;
        let ended = convert(text(&image), &place, &[&["--force"], more].concat()).succeeded();
        assert!(ended.stdout.starts_with("copied pc"), "{ended:?}");
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(metadata.blocks() * 512 < metadata.len(), "it is sparse");
        // A file does not have the UUID.
        let uuid = fs::read_to_string(image.join("vm.json")).unwrap();
        let uuid: serde_json::Value = serde_json::from_str(&uuid).unwrap();
        convert(&place, text(&back), &["--force", "--uuid", uuid["uuid"].as_str().unwrap()])
            .succeeded();
        assert_same_files(&image, &back);
    }
    assert_eq!(names(folder.path()), ["back", "file", "vm"]);
}

#[test]
fn a_vm_is_received_into_a_file_and_sent_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let (image, file) = (image(folder.path()), qemu_file(&folder.path().join("file")));
    let zstd = ["--compression", "zstd", "--channels", "3"];
    let (recv, uri) =
        Running::recv(&[&["--listen", "tcp:127.0.0.1:0", "--to", &file][..], &zstd].concat());
    multifd(&[&["send", "--from", text(&image), "--to", &uri][..], &zstd].concat()).succeeded();
    let received = recv.wait().succeeded();
    assert!(received.stdout.contains("in qemu-file:"), "{received:?}");
    let back = folder.path().join("back");
    let (recv, uri) = Running::recv(&["--listen", "tcp:127.0.0.1:0", "--to", text(&back)]);
    let uuid = ["--uuid", "00000000-0000-0000-0000-000000000000"];
    multifd(&[&["send", "--from", &file, "--to", &uri][..], &uuid].concat()).succeeded();
    recv.wait().succeeded();
    let [one, other] = [&image, &back].map(|image| fs::read(image.join("pc.ram")).unwrap());
    assert!(one == other);
}

/// A stream with its pages in it, of 64 KiB of RAM, as virsh save has it.
fn plain_stream(pages: u64) -> (Vec<u8>, Vec<u8>) {
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new("pc-i440fx-10.0")).unwrap();
    let name = BlockName::new("pc.ram").unwrap();
    encoder.ram_start(2, 0, &[BlockInfo::new(name, 16 * 4096)], SyncForm::EachSection).unwrap();
    encoder.part_begin().unwrap();
    let mut ram = vec![0; 16 * 4096];
    for page in 0..pages {
        let bytes = &mut ram[page as usize * 4096..][..4096];
        if page % 3 == 0 {
            encoder.zero_page(0, page * 4096).unwrap();
        } else {
            bytes.fill(page as u8);
            encoder.page(0, page * 4096, bytes).unwrap();
        }
    }
    encoder.sync().unwrap();
    encoder.body_end().unwrap();
    encoder.ram_end().unwrap();
    encoder.no_device_state().unwrap();
    (encoder.bytes().to_vec(), ram)
}

/// A save of libvirt's in this format, with this stream.
fn save(format: u32, stream: &[u8]) -> Vec<u8> {
    let data = [XML.as_bytes(), b"\0<cookie/>\0"].concat();
    let numbers = [2, data.len() as u32, 1, format, XML.len() as u32 + 1];
    let mut bytes = b"LibvirtQemudSave".to_vec();
    bytes.extend(numbers.into_iter().flat_map(u32::to_ne_bytes));
    bytes.resize(92, 0);
    [&bytes[..], &data, stream].concat()
}

#[test]
fn a_save_of_libvirts_is_read_whatever_it_is_packed_by() {
    let folder = tempfile::tempdir().unwrap();
    let (file, image) = (folder.path().join("vm.save"), folder.path().join("vm"));
    let (stream, ram) = plain_stream(16);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&stream).unwrap();
    let zstd = zstd::encode_all(&stream[..], 1).unwrap();
    for (format, stream) in [(0, stream), (1, gzip.finish().unwrap()), (5, zstd)] {
        fs::write(&file, save(format, &stream)).unwrap();
        convert(&libvirt(&file), text(&image), &["--force"]).succeeded();
        assert!(fs::read(image.join("pc.ram")).unwrap() == ram, "{format}");
        let manifest = fs::read_to_string(image.join("vm.json")).unwrap();
        assert!(manifest.contains("01020304-0506-0708-090a-0b0c0d0e0f10"), "{manifest}");
    }
}

#[test]
fn a_save_is_made_sparse_with_the_xml_that_it_came_with_or_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (stream, _) = plain_stream(16);
    fs::write(at("raw"), save(0, &stream)).unwrap();
    convert(&libvirt(&at("raw")), &libvirt(&at("sparse")), &[]).succeeded();
    let [raw, sparse] = ["raw", "sparse"].map(|name| fs::read(at(name)).unwrap());
    let header = 92 + XML.len() + 11;
    assert_eq!(sparse[28], 6);
    assert!(raw[..28] == sparse[..28] && raw[29..header] == sparse[29..header]);
    assert_eq!(sparse[header..header + 4], *b"QEVM");
    for (from, to) in [("raw", "one"), ("sparse", "two")] {
        convert(&libvirt(&at(from)), text(&at(to)), &[]).succeeded();
    }
    assert_same_files(&at("one"), &at("two"));

    let place = libvirt(&at("new"));
    let without = convert(text(&at("one")), &place, &[]);
    assert_eq!(without.status, Some(2));
    assert!(without.stderr.contains("virsh dumpxml"), "{without:?}");
    fs::write(at("vm.xml"), XML).unwrap();
    let with = format!("{place},xml={}", at("vm.xml").display());
    convert(text(&at("one")), &with, &[]).succeeded();
    let new = fs::read(at("new")).unwrap();
    assert!(new[92..].starts_with(XML.as_bytes()));
    convert(&place, text(&at("three")), &[]).succeeded();
    assert_same_files(&at("one"), &at("three"));
}

#[test]
fn files_that_are_damaged_are_refused_in_one_line_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let vm = image(folder.path());
    convert(text(&vm), &qemu_file(&file), &[]).succeeded();
    let whole = fs::read(&file).unwrap();
    let (stream, _) = plain_stream(15);
    let qemu = qemu_file(&file);
    let save_place = libvirt(&file);
    let mut far = whole.clone();
    // The first block's pages, behind "pc.ram", its size, a version, a page size and a bitmap's offset.
    let at = whole.windows(6).position(|name| name == b"pc.ram").unwrap() + 6 + 8 + 4 + 8 + 8;
    far[at..at + 8].copy_from_slice(&(1_u64 << 40).to_be_bytes());
    let (whole_stream, _) = plain_stream(16);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole_stream).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut damaged = gzip.clone();
    // Of its CRC-32.
    damaged[gzip.len() - 8] ^= 1;
    let mut unfinished = save(0, &stream);
    unfinished[12..16].copy_from_slice(b"Part");
    let mut long = save(0, &stream);
    long[20..24].copy_from_slice(&(1_u32 << 30).to_ne_bytes());
    for (bytes, place, words) in [
        (&whole[..whole.len() - 1], &qemu, &["ends within"][..]),
        (&whole[..4 << 20], &qemu, &["cut off"]),
        (&far, &qemu, &["cut off", "pc.ram"]),
        (&stream, &qemu, &["1 of its pages are missing"]),
        (&save(0, &stream), &save_place, &["1 of its pages are missing"]),
        (&unfinished, &save_place, &["not finished"]),
        (&long, &save_place, &["XML has 1 GiB"]),
        (&save(3, &stream), &save_place, &["xz", "save_image_format"]),
        (&save(5, b"no zstd"), &save_place, &["cannot"]),
        (&save(1, &gzip[..gzip.len() - 3]), &save_place, &["cut off"]),
        (&save(1, &damaged), &save_place, &["checksum"]),
        (&save(0, &[&whole_stream[..], b"x"].concat()), &save_place, &["follow the VMDESCRIPTION"]),
        (&save(6, &stream), &save_place, &["1 of its pages are missing"]),
        (b"nothing", &save_place, &["ends within"]),
        (&[7; 200], &save_place, &["no file of virsh save"]),
        (&[7; 200], &qemu, &["not with \"QEVM\""]),
    ] {
        fs::write(&file, bytes).unwrap();
        convert(place, text(&folder.path().join("made")), &[]).failed_saying(words);
    }
    assert_eq!(names(folder.path()), ["file", "vm"]);
}

#[test]
fn a_disk_that_is_full_leaves_nothing_behind_and_what_was_there_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let vm = image(folder.path());
    let file = folder.path().join("file");
    fs::write(&file, "old").unwrap();
    let limited = r#"trap "" XFSZ; ulimit -f 512; exec "$0" "$@""#;
    let mut convert = std::process::Command::new("sh");
    convert.args(["-c", limited, PROGRAM, "convert", "--force", "--from", text(&vm), "--to"]);
    let ended = crate::common::run(convert.arg(qemu_file(&file)));
    ended.failed_saying(&["cannot write", "ulimit -f"]);
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["file", "vm"]);
}

#[test]
fn what_is_there_is_replaced_only_by_force_and_only_by_its_like() {
    let folder = tempfile::tempdir().unwrap();
    let vm = image(folder.path());
    let file = folder.path().join("file");
    fs::write(&file, "old").unwrap();
    convert(text(&vm), &qemu_file(&file), &[]).failed_saying(&["it exists", "--force"]);
    convert(text(&vm), &qemu_file(&vm), &["--force"]).failed_saying(&["it is not a file"]);
    convert(text(&vm), text(&file), &["--force"]).failed_saying(&["it is not a VM image"]);
    assert_eq!(fs::read(&file).unwrap(), b"old");
    convert(text(&vm), &qemu_file(&file), &["--force"]).succeeded();
    assert!(fs::read(&file).unwrap().starts_with(b"QEVM"));
    assert_eq!(names(folder.path()), ["file", "vm"]);
}

#[test]
fn pages_that_have_become_zero_are_zero_whatever_a_file_has_in_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let (vm, file) = (image(folder.path()), folder.path().join("file"));
    convert(text(&vm), &qemu_file(&file), &[]).succeeded();
    let ram = fs::read(vm.join("pc.ram")).unwrap();
    let zero = ram.chunks(4096).position(|page| page.iter().all(|&byte| byte == 0)).unwrap();
    let whole = File::options().write(true).open(&file).unwrap();
    whole.write_all_at(&[9; 4096], (1 << 20) + zero as u64 * 4096).unwrap();
    convert(&qemu_file(&file), text(&folder.path().join("back")), &[]).succeeded();
    assert!(fs::read(folder.path().join("back/pc.ram")).unwrap() == ram);
}
