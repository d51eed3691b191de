//! Whole migrations in this process, over sockets.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use common::{
    all_compressions, any_port, assert_equal, complete, fill, guest, provide, ram, receive, send,
};
use multifd::core::ram::{BlockMemory, Ram, RamBlock};
use multifd::core::vm_memory::{MmapRegion, VolatileSlice};
use multifd::core::wire::BlockName;
use multifd::core::{Compression, PageSize};
use multifd::stream::{Configuration, SyncForm};
use multifd::{Destination, Error, PageSet, Unfinished, Uri, ZeroPages};

/// Sends `guest()` in three rounds, dirtying pages in between, and compares.
fn migrate(compression: Compression, channels: u8, zero_pages: ZeroPages, sync_form: SyncForm) {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup.compression(compression).channels(channels));
    let mut source = send(&source_ram, &uri, |setup| {
        setup
            .compression(compression)
            .channels(channels)
            .zero_pages(zero_pages)
            .sync_form(sync_form)
            .configuration(Configuration::new("pc-i440fx-10.0"))
    })
    .unwrap();
    source.round(&PageSet::all(&source_ram)).unwrap();

    let mut dirty = PageSet::none(&source_ram);
    for page in 0..100 {
        fill(&source_ram, "pc.ram", page, 7);
        dirty.insert(0, page * 4096).unwrap();
    }
    source.round(&dirty).unwrap();

    let mut last = PageSet::none(&source_ram);
    for page in 40..60 {
        source_ram.block("pc.ram").unwrap().write(page * 4096, &[0; 4096]);
        last.insert(0, page * 4096).unwrap();
    }
    let sent = std::thread::spawn(move || source.finish(&last, None));
    let arrived = destination.join().unwrap().unwrap();
    assert_equal(&source_ram, &arrived.ram);
    assert_eq!(arrived.vm.configuration.machine.as_deref(), Some("pc-i440fx-10.0"));
    assert_eq!(arrived.vm.sync_form, sync_form);
    let received = arrived.confirm().unwrap();
    let sent = sent.join().unwrap().unwrap();
    assert_eq!(sent.total(), received.total(), "both sides count the same");
    assert_eq!(sent.zero_pages(), received.zero_pages());
    assert_eq!(received.syncs, 4);
    // The source knows its rounds; whoever watches it does where a sync is one.
    let told = (sync_form == SyncForm::Flush).then_some(4);
    assert_eq!((sent.round(), received.round()), (Some(4), told));
    let bytes: u64 = source_ram.blocks().iter().map(|block| block.bytes()).sum();
    assert_eq!((sent.ram_bytes, received.ram_bytes), (bytes, bytes));
    assert_eq!(sent.guest_bytes(), bytes + (100 + 20) * 4096);
    assert_eq!(sent.zero_pages() == 0, zero_pages == ZeroPages::Off);
    assert_eq!(received.main_zero_pages > 0, zero_pages == ZeroPages::Main);
}

#[test]
fn every_codec_moves_every_page_in_rounds() {
    for compression in all_compressions() {
        migrate(compression, 3, ZeroPages::Channels, SyncForm::Flush);
    }
}

#[test]
fn the_older_sync_form_and_zero_pages_on_the_main_channel_arrive() {
    migrate(Compression::None, 2, ZeroPages::Main, SyncForm::EachSection);
    migrate(Compression::None, 2, ZeroPages::Main, SyncForm::Flush);
    migrate(Compression::None, 2, ZeroPages::Off, SyncForm::EachSection);
}

#[test]
fn pages_of_every_size_arrive() {
    for page_size in PageSize::ALL {
        for compression in all_compressions() {
            let new_ram = || {
                let block = RamBlock::new(
                    BlockName::new("ram").unwrap(),
                    MmapRegion::<()>::new(2 << 20).unwrap(),
                );
                Arc::new(Ram::new(page_size, [block]).unwrap())
            };
            let source_ram = new_ram();
            (0..512).step_by(7).for_each(|page| fill(&source_ram, "ram", page, page as u8));
            let registry = common::registry();
            let destination = Destination::builder(&registry)
                .compression(compression)
                .page_size(page_size)
                .listen(&any_port())
                .unwrap();
            let uri = destination.uri().clone();
            let sent = std::thread::spawn({
                let (source_ram, all) = (Arc::clone(&source_ram), PageSet::all(&source_ram));
                move || {
                    let mut source =
                        send(&source_ram, &uri, |setup| setup.compression(compression))?;
                    source.round(&all)?;
                    source.finish(&all, None)
                }
            });
            let arrived = destination.receive(provide).unwrap();
            assert_equal(&source_ram, &arrived.ram);
            assert_eq!(arrived.missing_pages(), 0);
            arrived.confirm().unwrap();
            sent.join().unwrap().unwrap();
        }
    }
}

#[test]
fn one_channel_and_255_channels_work() {
    for channels in [1, 255] {
        migrate(Compression::None, channels, ZeroPages::Channels, SyncForm::Flush);
    }
}

#[test]
fn a_unix_socket_works_and_its_file_is_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let uri = Uri::Unix(path.clone());
    let registry = common::registry();
    let destination = Destination::builder(&registry).listen(&uri).unwrap();
    let source_ram = guest();
    let all = PageSet::all(&source_ram);
    let source = std::thread::spawn({
        let source_ram = Arc::clone(&source_ram);
        move || send(&source_ram, &uri, |setup| setup)?.finish(&all, None)
    });
    let arrived = destination.receive(provide).unwrap();
    assert_equal(&source_ram, &arrived.ram);
    arrived.confirm().unwrap();
    source.join().unwrap().unwrap();
    assert!(!path.exists());
}

#[test]
fn without_a_return_path_the_source_ends_when_all_is_sent() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup);
    let source = send(&source_ram, &uri, |setup| setup.return_path(false)).unwrap();
    source.finish(&PageSet::all(&source_ram), None).unwrap();
    let arrived = destination.join().unwrap().unwrap();
    assert!(!arrived.return_path);
    assert_equal(&source_ram, &arrived.ram);
    arrived.confirm().unwrap();
}

#[test]
fn the_device_state_arrives_byte_for_byte() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup);
    let source = send(&source_ram, &uri, |setup| setup).unwrap();
    // One FULL section, EOF, VMDESCRIPTION.
    let mut state = b"\x04\0\0\0\x09\x05timer\0\0\0\0\0\0\0\x02body\x7e\0\0\0\x09\0\x06".to_vec();
    let json = br#"{"page_size": 4096, "devices": [{"name": "timer"}]}"#;
    state.extend((json.len() as u32).to_be_bytes());
    state.extend(json);
    let sent = std::thread::spawn({
        let (all, state) = (PageSet::all(&source_ram), state.clone());
        move || source.finish(&all, Some(&state))
    });
    let arrived = destination.join().unwrap().unwrap();
    assert_eq!(arrived.vm.device_state, state);
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
}

#[test]
fn pages_already_here_are_overwritten_by_zero_pages() {
    let source_ram = ram(&[("pc.ram", 1 << 20)]);
    let stale = ram(&[("pc.ram", 1 << 20)]);
    fill(&stale, "pc.ram", 5, 1);
    let registry = common::registry();
    let destination = Destination::builder(&registry).listen(&any_port()).unwrap();
    let uri = destination.uri().clone();
    let source = std::thread::spawn({
        let source_ram = Arc::clone(&source_ram);
        move || {
            let source = send(&source_ram, &uri, |setup| setup)?;
            source.finish(&PageSet::all(&source_ram), None)
        }
    });
    let arrived = destination.receive(|_| Ok(Arc::clone(&stale))).unwrap();
    assert_equal(&source_ram, &stale);
    arrived.confirm().unwrap();
    source.join().unwrap().unwrap();
}

#[test]
fn a_guest_that_writes_all_the_time_arrives_as_it_is_when_it_stops() {
    for compression in all_compressions() {
        let source_ram = guest();
        let (uri, destination) = receive(|setup| setup.compression(compression));
        let mut source = send(&source_ram, &uri, |setup| setup.compression(compression)).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for kind in (0..=u8::MAX).cycle() {
                    (0..256).step_by(5).for_each(|page| fill(&source_ram, "pc.ram", page, kind));
                    if stop.load(Relaxed) {
                        break;
                    }
                }
            });
            for _ in 0..5 {
                source.round(&PageSet::all(&source_ram)).unwrap();
            }
            stop.store(true, Relaxed);
        });
        complete(source, PageSet::all(&source_ram), &source_ram, destination);
    }
}

#[test]
fn what_arrived_but_is_not_confirmed_fails_at_the_source() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup);
    let source = send(&source_ram, &uri, |setup| setup).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    drop(destination.join().unwrap().unwrap());
    assert!(matches!(sent.join().unwrap(), Err(Unfinished::Failed(Error::DestinationFailed(1)))));
}

/// Memory that looks, whenever a page is marked dirty, whether its bytes are there.
#[derive(Debug)]
struct Watched {
    memory: MmapRegion,
    /// By page, whether it was whole when it was last marked.
    whole: Arc<[AtomicBool]>,
}

impl BlockMemory for Watched {
    fn bytes(&self) -> u64 {
        BlockMemory::bytes(&self.memory)
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        BlockMemory::slice(&self.memory, offset, len)
    }

    fn mark_dirty(&self, offset: usize, len: usize) {
        let mut bytes = vec![0_u8; len];
        self.slice(offset, len).unwrap().copy_to(&mut bytes[..]);
        for (page, bytes) in (offset / 4096..).zip(bytes.chunks(4096)) {
            self.whole[page].store(bytes.iter().all(|&byte| byte == 0xee), Relaxed);
        }
    }
}

#[test]
fn bytes_are_marked_dirty_once_they_are_in_place_and_not_before() {
    // Whoever takes the dirty bitmap in between would take what is about to be written for clean.
    const BYTES: usize = 1 << 20;
    for compression in all_compressions() {
        let source_ram = ram(&[("pc.ram", BYTES)]);
        source_ram.blocks()[0].write(0, &[0xee; BYTES]);
        let registry = common::registry();
        let setup = Destination::builder(&registry).compression(compression);
        let destination = setup.listen(&any_port()).unwrap();
        let uri = destination.uri().clone();
        let sent = std::thread::spawn({
            let (source_ram, all) = (Arc::clone(&source_ram), PageSet::all(&source_ram));
            move || {
                send(&source_ram, &uri, |setup| setup.compression(compression))?.finish(&all, None)
            }
        });
        let whole: Arc<[_]> = (0..BYTES / 4096).map(|_| AtomicBool::new(false)).collect();
        let memory = MmapRegion::new(BYTES).unwrap();
        let memory = Watched { memory, whole: Arc::clone(&whole) };
        let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
        let destination_ram = Arc::new(Ram::new(PageSize::Kib4, [block]).unwrap());
        destination.receive(|_| Ok(destination_ram)).unwrap().confirm().unwrap();
        sent.join().unwrap().unwrap();
        let missing = whole.iter().filter(|whole| !whole.load(Relaxed)).count();
        assert_eq!(missing, 0, "{compression}");
    }
}
