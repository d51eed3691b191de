//! What comes before the pages: devices' early state, a VMM's configuration, a postcopy advise; and what
//! a source is told at once.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::core::wire::BlockName;
use multifd::stream::{
    BlockInfo, Configuration, FullSection, MainEncoder, PostcopyAdvise, ReturnMessage,
};
use multifd::{Destination, EarlyState, PageSet, Uri};

use common::{any_port, assert_equal, guest, provide, ram, receive, registry, send};

const CONFIG: FullSection<'_> =
    FullSection { name: "vmm/config", version: 3, body: b"{\"cpus\": 4}" };

#[test]
fn a_vmms_configuration_is_there_before_its_memory_is_provided() {
    let destination = Destination::builder(&registry()).listen(&any_port()).unwrap();
    let uri = destination.uri().clone();
    let destination = thread::spawn(move || {
        let mut seen = Vec::new();
        let arrived = destination.receive(|incoming| {
            seen = incoming.early_state.to_vec();
            provide(incoming)
        });
        (seen, arrived.unwrap())
    });
    let ram = guest();
    let early_state = CONFIG.to_early_state().unwrap();
    let mut source = send(&ram, &uri, |setup| setup.early_state(early_state.clone())).unwrap();
    source.round(&PageSet::all(&ram)).unwrap();
    let finish = thread::spawn(move || source.finish(&PageSet::none(&ram), None).map(|_| ram));
    let (seen, arrived) = destination.join().unwrap();
    assert_eq!(FullSection::of_early_state(&seen), Some(CONFIG));
    assert_eq!(arrived.vm.early_state, EarlyState::from(early_state));
    let arrived_ram = Arc::clone(&arrived.ram);
    arrived.confirm().unwrap();
    assert_equal(&finish.join().unwrap().unwrap(), &arrived_ram);
}

#[test]
fn what_comes_before_the_pages_arrives_as_it_was_sent_in_both_places() {
    let (uri, destination) = receive(|setup| setup);
    let ram = guest();
    let mut early_state = EarlyState::new();
    early_state.before_start = CONFIG.to_early_state().unwrap();
    early_state.behind_start = [early_state.before_start.clone(), no_bitmaps()].concat();
    let advise = PostcopyAdvise::ram(0x20_1000, 4096);
    let huge = Some(2 << 20);
    let source = send(&ram, &uri, |setup| {
        let setup = setup.early_state(early_state.clone()).postcopy_advise(Some(advise));
        setup.block_page_bytes([None, huge])
    });
    let mut source = source.unwrap();
    source.round(&PageSet::all(&ram)).unwrap();
    let none = PageSet::none(&ram);
    let finish = thread::spawn(move || source.finish(&none, None));
    let arrived = destination.join().unwrap().unwrap();
    assert_eq!(arrived.vm.early_state, early_state);
    assert_eq!(arrived.vm.postcopy_advise, Some(advise));
    let page_bytes: Vec<_> = arrived.vm.blocks.iter().map(|block| block.page_bytes).collect();
    assert_eq!(page_bytes, [None, huge, None]);
    assert_equal(&ram, &arrived.ram);
    arrived.confirm().unwrap();
    finish.join().unwrap().unwrap();
}

/// A dirty-bitmap section as QEMU sends it where there are no bitmaps.
fn no_bitmaps() -> Vec<u8> {
    b"\x01\0\0\0\x07\x0cdirty-bitmap\0\0\0\0\0\0\0\x01\x01\x7e\0\0\0\x07".to_vec()
}

#[test]
fn zero_pages_are_written_on_first_arrival_where_postcopy_ram_is_advised() {
    for (advise, written) in [
        (None, false),
        (Some(PostcopyAdvise::DirtyBitmaps), false),
        (Some(PostcopyAdvise::ram(4096, 4096)), true),
    ] {
        let destination = Destination::builder(&registry()).listen(&any_port()).unwrap();
        let uri = destination.uri().clone();
        let destination = thread::spawn(move || {
            // Said to be fresh, but not so: what is written shows.
            destination.receive(|incoming| {
                let memory = MmapRegion::<()>::new(4096).unwrap();
                let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory).fresh();
                block.write(0, &[7; 4096]);
                Ok(Arc::new(Ram::new(incoming.page_size, [block]).unwrap()))
            })
        });
        let ram = ram(&[("pc.ram", 4096)]);
        let mut source = send(&ram, &uri, |setup| setup.postcopy_advise(advise)).unwrap();
        source.round(&PageSet::all(&ram)).unwrap();
        let finish = thread::spawn(move || source.finish(&PageSet::none(&ram), None));
        let arrived = destination.join().unwrap().unwrap();
        let content = common::content(&arrived.ram, "pc.ram");
        assert_eq!(content[0] == 0, written, "{advise:?}");
        arrived.confirm().unwrap();
        finish.join().unwrap().unwrap();
    }
}

/// What a destination answers a main channel without any page, of this machine type.
fn answers(machine: &str) -> Vec<u8> {
    let limit = Duration::from_secs(2);
    let (uri, destination) = receive(|setup| setup.channel_timeout(limit));
    let Uri::Tcp { host, port } = &uri else { panic!("{uri}") };
    let mut encoder = MainEncoder::new();
    encoder.header(&Configuration::new(machine)).unwrap();
    encoder.open_return_path().unwrap();
    encoder.ping(1).unwrap();
    let block = BlockInfo::new(BlockName::new("pc.ram").unwrap(), 4096);
    encoder.ram_start(2, 0, &[block], multifd::stream::SyncForm::Flush).unwrap();
    let mut main = TcpStream::connect((&host[..], *port)).unwrap();
    main.write_all(encoder.bytes()).unwrap();
    let mut answers = Vec::new();
    main.read_to_end(&mut answers).unwrap();
    let error = destination.join().unwrap().unwrap_err();
    assert!(matches!(error, multifd::Error::NoChannels { .. }), "{error}");
    assert!(error.to_string().contains("turn the capability on"), "{error}");
    answers
}

#[test]
fn a_source_is_acked_at_once_where_its_machine_type_takes_that() {
    let (ack, pong) = (ReturnMessage::SwitchoverAck.to_bytes(), ReturnMessage::Pong(1).to_bytes());
    let shut = ReturnMessage::Shut(1).to_bytes();
    assert_eq!(answers("pc-i440fx-10.0"), [&ack[..], &pong, &shut].concat());
    for machine in ["pc-i440fx-7.2", "pc-i440fx-11.1", "pc-q35-rhel9.4.0"] {
        assert_eq!(answers(machine), [&pong[..], &shut].concat(), "{machine}");
    }
}

#[test]
fn a_device_state_goes_over_in_pieces_and_ends_as_a_whole_one_does() {
    let body = vec![7; 300_000];
    let devices = FullSection { name: "vcpu", version: 1, body: &body };
    let devices = devices.to_device_state(multifd::core::PageSize::Kib4).unwrap();
    let destination = Destination::builder(&registry()).listen(&any_port()).unwrap();
    let uri = destination.uri().clone();
    let destination = thread::spawn(move || {
        let mut pieces = Vec::new();
        let arrived = destination.receive_in_pieces(provide, |piece| {
            pieces.push(piece.to_vec());
            Ok(())
        });
        (pieces, arrived.unwrap())
    });
    let ram = guest();
    let mut source = send(&ram, &uri, |setup| setup).unwrap();
    source.round(&PageSet::all(&ram)).unwrap();
    let sent = devices.clone();
    let none = PageSet::none(&ram);
    let finish = thread::spawn(move || source.finish_from(&none, &sent[..]));
    let (pieces, arrived) = destination.join().unwrap();
    assert!(pieces.len() > 1 && pieces.concat() == devices);
    assert!(arrived.vm.device_state.is_empty());
    arrived.confirm().unwrap();
    finish.join().unwrap().unwrap();
}

#[test]
fn a_device_state_that_is_cut_off_or_refused_fails_both_sides_and_the_guest_stays() {
    let devices = FullSection { name: "vcpu", version: 1, body: &[7; 1000] };
    let devices = devices.to_device_state(multifd::core::PageSize::Kib4).unwrap();
    for (end, refused) in [(devices.len() - 1, false), (devices.len(), true)] {
        let destination = Destination::builder(&registry()).listen(&any_port()).unwrap();
        let uri = destination.uri().clone();
        let destination = thread::spawn(move || {
            destination.receive_in_pieces(provide, |_| match refused {
                true => Err(multifd::Error::caller("no room")),
                false => Ok(()),
            })
        });
        let ram = guest();
        let mut source = send(&ram, &uri, |setup| setup).unwrap();
        source.round(&PageSet::all(&ram)).unwrap();
        let error = source.finish_from(&PageSet::none(&ram), &devices[..end]).unwrap_err();
        assert!(matches!(error, multifd::Unfinished::Failed(_)), "{end}: {error}");
        destination.join().unwrap().unwrap_err();
    }
}
