//! Memory that nobody has touched arrives as zeros, and neither side touches it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::File;
use std::sync::Arc;

use common::{content, receive, send};
use multifd::core::PageSize;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::{FileOffset, MmapRegion};
use multifd::core::wire::BlockName;
use multifd::{PageSet, ZeroPages};
use rustix::fs::{MemfdFlags, memfd_create};

const BYTES: u64 = 256 << 20;

/// A block in a memfd, of which four pages are written.
fn memfd() -> Arc<Ram> {
    let file = File::from(memfd_create("ram", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(BYTES).unwrap();
    let memory = MmapRegion::<()>::from_file(FileOffset::new(file, 0), BYTES as usize).unwrap();
    let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
    for offset in [0, 5 << 20, (100 << 20) + 4000, BYTES - 4096] {
        block.write(offset, b"somebody was here, and at the next page, too".repeat(8).as_slice());
    }
    Arc::new(Ram::new(PageSize::Kib4, [block]).unwrap())
}

/// Bytes of a RAM's memory that may have data, as the kernel says.
fn touched(ram: &Ram) -> Option<u64> {
    let parts = ram.blocks()[0].memory().data()?;
    Some(parts.iter().map(|part| part.end - part.start).sum())
}

#[test]
fn holes_arrive_as_zeros_and_stay_holes_on_both_sides() {
    for zero_pages in [ZeroPages::Channels, ZeroPages::Main] {
        let source_ram = memfd();
        let before = touched(&source_ram).expect("a memfd has holes");
        assert!(before < 16 << 20, "{before}");
        let (uri, destination) = receive(|setup| setup);
        let mut source = send(&source_ram, &uri, |setup| setup.zero_pages(zero_pages)).unwrap();
        source.round(&PageSet::all(&source_ram)).unwrap();
        let none = PageSet::none(&source_ram);
        let sent = std::thread::spawn(move || source.finish(&none, None));
        let arrived = destination.join().unwrap().unwrap();
        assert_eq!(arrived.missing_pages(), 0);
        let arrived_ram = Arc::clone(&arrived.ram);
        arrived.confirm().unwrap();
        let stats = sent.join().unwrap().unwrap();
        assert_eq!(stats.total().normal_pages, 5, "{zero_pages:?}");
        assert_eq!(stats.zero_pages(), BYTES / 4096 - 5, "{zero_pages:?}");
        // Reading a hole of a memfd fills it.
        assert_eq!(touched(&source_ram), Some(before), "{zero_pages:?}");
        // Where the kernel does not say, nobody knows.
        let touched = touched(&arrived_ram);
        assert!(touched.is_none_or(|bytes| bytes < 16 << 20), "{zero_pages:?}: {touched:?}");
        assert!(content(&source_ram, "pc.ram") == content(&arrived_ram, "pc.ram"));
    }
}

#[test]
fn without_a_look_for_zero_pages_holes_are_pages_like_others() {
    let source_ram = memfd();
    let (uri, destination) = receive(|setup| setup);
    let source = send(&source_ram, &uri, |setup| setup.zero_pages(ZeroPages::Off)).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    destination.join().unwrap().unwrap().confirm().unwrap();
    let stats = sent.join().unwrap().unwrap();
    assert_eq!((stats.total().normal_pages, stats.zero_pages()), (BYTES / 4096, 0));
}

#[test]
fn what_is_written_between_two_rounds_arrives() {
    let source_ram = memfd();
    let (uri, destination) = receive(|setup| setup);
    let mut source = send(&source_ram, &uri, |setup| setup).unwrap();
    source.round(&PageSet::all(&source_ram)).unwrap();
    source_ram.blocks()[0].write(200 << 20, b"late");
    let mut dirty = PageSet::none(&source_ram);
    dirty.insert(0, 200 << 20).unwrap();
    source.round(&dirty).unwrap();
    // And in a last round of everything, which looks for holes once more.
    source_ram.blocks()[0].write(201 << 20, b"later");
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    let arrived = destination.join().unwrap().unwrap();
    let arrived_ram = Arc::clone(&arrived.ram);
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
    assert!(content(&source_ram, "pc.ram") == content(&arrived_ram, "pc.ram"));
}
