//! Whole migrations through relays.

use std::sync::Arc;

use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::MmapRegion;
use multifd::core::wire::{BlockName, Uuid};
use multifd::core::{Compression, PageSize, PrivateMethod};
use multifd::relay::Relay;
use multifd::stream::{Configuration, Subsection, SubsectionData, SyncForm};
use multifd::{Destination, Error, PageSet, SourceBuilder, ZeroPages};

use crate::common::{
    all_compressions, any_port, assert_equal, complete, fill, guest, provide, receive, registry,
    send,
};
use crate::support::relay;

/// What a migration goes through: codec and channels of each hop.
type Hop = (Compression, u8);

/// Sends `guest()` in rounds through a relay between each two hops, and compares.
fn migrate(hops: &[Hop], setup: impl FnOnce(SourceBuilder<'_>) -> SourceBuilder<'_>) {
    let (&(codec, channels), &(last_codec, last_channels)) =
        (hops.first().unwrap(), hops.last().unwrap());
    let (mut uri, destination) =
        receive(|setup| setup.compression(last_codec).channels(last_channels));
    let mut relays = Vec::new();
    for pair in hops.windows(2).rev() {
        let [(from, from_channels), (to, to_channels)] = *pair else { unreachable!() };
        let running = relay(&uri, |setup| {
            let setup = setup.from_compression(from).to_compression(to);
            setup.from_channels(from_channels).to_channels(to_channels)
        });
        uri = running.uri.clone();
        relays.push(running);
    }

    let source_ram = guest();
    let mut source = send(&source_ram, &uri, |builder| {
        setup(builder.compression(codec).channels(channels).uuid(Uuid([7; 16])))
    })
    .unwrap();
    source.round(&PageSet::all(&source_ram)).unwrap();
    let mut dirty = PageSet::none(&source_ram);
    for page in 0..100 {
        fill(&source_ram, "pc.ram", page, 7);
        dirty.insert(0, page * 4096).unwrap();
    }
    source.round(&dirty).unwrap();
    source.round(&PageSet::none(&source_ram)).unwrap();
    let mut last = PageSet::none(&source_ram);
    for page in 40..60 {
        source_ram.block("pc.ram").unwrap().write(page * 4096, &[0; 4096]);
        last.insert(0, page * 4096).unwrap();
    }
    let sent = std::thread::spawn(move || source.finish(&last, Some(&device_state())));
    let arrived = destination.join().unwrap().unwrap();
    assert_equal(&source_ram, &arrived.ram);
    assert_eq!(arrived.vm.uuid, Uuid([7; 16]));
    assert_eq!(arrived.vm.device_state, device_state());
    assert_eq!(arrived.vm.configuration.machine.as_deref(), Some("pc-i440fx-10.0"));
    let return_path = arrived.return_path;
    let received = arrived.confirm().unwrap();
    let sent = sent.join().unwrap().unwrap();

    for (number, running) in relays.into_iter().rev().enumerate() {
        let relayed = running.join().unwrap();
        assert_eq!(relayed.confirmed, return_path);
        let [from, to] = [&relayed.from, &relayed.to];
        // UADK gets no page as zero that it got with data.
        if hops[number + 1].0 != Compression::Uadk {
            assert_eq!(from.total().normal_pages, to.total().normal_pages);
            assert_eq!(from.zero_pages(), to.zero_pages());
        }
        assert_eq!((from.main_bytes, to.main_bytes), (received.main_bytes, received.main_bytes));
        assert_eq!((from.syncs, to.syncs), (received.syncs, received.syncs));
        assert_eq!((from.ram_bytes, from.round()), (received.ram_bytes, received.round()));
        assert_eq!((to.ram_bytes, to.guest_bytes()), (received.ram_bytes, from.guest_bytes()));
        if number == 0 {
            assert_eq!(from.total(), sent.total(), "what the source sent");
        }
        if number + 2 == hops.len() {
            assert_eq!(to.total(), received.total(), "what the destination received");
        }
    }
}

/// A device state with something in it that looks like its end.
fn device_state() -> Vec<u8> {
    let json = br#"{"page_size": 4096, "devices": [{"name": "timer"}]}"#;
    let mut bytes = [4, 0, 0, 0, 9].repeat(20_000);
    bytes.extend([0x7e, 0, 0, 0, 9, 0, 6]);
    bytes.extend((json.len() as u32).to_be_bytes());
    bytes.extend(json);
    bytes
}

fn with_machine(setup: SourceBuilder<'_>) -> SourceBuilder<'_> {
    setup.configuration(Configuration::new("pc-i440fx-10.0"))
}

#[test]
fn every_pair_of_codecs_moves_every_page_in_rounds() {
    for from in all_compressions() {
        for to in all_compressions() {
            migrate(&[(from, 2), (to, 3)], with_machine);
        }
    }
}

#[test]
fn the_numbers_of_channels_may_differ() {
    use Compression::{None, Zstd};
    for (from, to) in [(1, 4), (4, 1), (2, 8), (1, 1), (40, 3), (1, 255)] {
        migrate(&[(None, from), (None, to)], with_machine);
        migrate(&[(Zstd, from), (None, to.min(8))], with_machine);
    }
}

#[test]
fn two_relays_make_a_compressed_tunnel() {
    use Compression::{None, Zstd};
    migrate(&[(None, 2), (Zstd, 5), (None, 2)], with_machine);
}

#[test]
fn without_a_return_path_a_migration_goes_through_unconfirmed() {
    use Compression::{None, Zlib};
    migrate(&[(None, 2), (Zlib, 3)], |setup| with_machine(setup).return_path(false));
    migrate(&[(None, 2), (Zlib, 3), (None, 1)], |setup| with_machine(setup).return_path(false));
}

#[test]
fn every_form_of_syncs_and_of_zero_pages_goes_through() {
    use Compression::{None, Zstd};
    for form in [SyncForm::Flush, SyncForm::EachSection] {
        for zero_pages in [ZeroPages::Channels, ZeroPages::Main, ZeroPages::Off] {
            migrate(&[(Zstd, 2), (None, 3)], |setup| {
                with_machine(setup).sync_form(form).zero_pages(zero_pages)
            });
        }
    }
}

#[test]
fn pages_of_every_size_go_through() {
    for page_size in PageSize::ALL {
        let new_block = || {
            let memory = MmapRegion::<()>::new(2 << 20).unwrap();
            RamBlock::new(BlockName::new("ram").unwrap(), memory)
        };
        let source_ram = Arc::new(Ram::new(page_size, [new_block()]).unwrap());
        (0..512).step_by(7).for_each(|page| fill(&source_ram, "ram", page, page as u8));
        let (uri, destination) =
            receive(|setup| setup.compression(Compression::Qpl).channels(3).page_size(page_size));
        let running = relay(&uri, |setup| {
            setup.to_compression(Compression::Qpl).to_channels(3).page_size(page_size)
        });
        let mut source = send(&source_ram, &running.uri, |setup| setup).unwrap();
        source.round(&PageSet::all(&source_ram)).unwrap();
        complete(source, PageSet::none(&source_ram), &source_ram, destination);
        assert_eq!(running.join().unwrap().page_size, page_size);
    }
}

#[test]
fn the_page_size_that_the_source_announces_is_taken() {
    let page_size = PageSize::Kib16;
    let memory = MmapRegion::<()>::new(1 << 20).unwrap();
    let block = RamBlock::new(BlockName::new("ram").unwrap(), memory);
    let source_ram = Arc::new(Ram::new(page_size, [block]).unwrap());
    let (uri, destination) = receive(|setup| setup);
    let running = relay(&uri, |setup| setup);
    let mut configuration = Configuration::new("virt-9.0");
    configuration.subsections.push(Subsection::new(SubsectionData::PageSize(page_size)));
    let source =
        send(&source_ram, &running.uri, |setup| setup.configuration(configuration)).unwrap();
    let all = PageSet::all(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&all, None));
    destination.join().unwrap().unwrap().confirm().unwrap();
    sent.join().unwrap().unwrap();
    assert_eq!(running.join().unwrap().page_size, page_size);
}

#[test]
fn a_unix_socket_works_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let uri = |name: &str| format!("unix:{}", folder.path().join(name).display()).parse().unwrap();
    let registry = registry();
    let destination = Destination::builder(&registry).listen(&uri("to")).unwrap();
    let relay = Relay::builder(&registry).listen(&uri("from"), &uri("to")).unwrap();
    let relayed = std::thread::spawn(move || relay.run());
    let received = std::thread::spawn(move || destination.receive(provide)?.confirm());
    let source_ram = guest();
    let source = send(&source_ram, &uri("from"), |setup| setup).unwrap();
    source.finish(&PageSet::all(&source_ram), None).unwrap();
    received.join().unwrap().unwrap();
    assert!(relayed.join().unwrap().unwrap().confirmed);
    assert!(!folder.path().join("from").exists());
}

#[test]
fn what_cannot_be_set_up_is_said_before_anybody_connects() {
    let registry = registry();
    let to = "tcp:127.0.0.1:1".parse().unwrap();
    let relay = || Relay::builder(&registry);
    let nobodys = Compression::Private(PrivateMethod::new(0x0e).unwrap());
    for (setup, words) in [
        (relay().from_channels(0), "0 channels"),
        (relay().to_channels(0), "0 channels"),
        (relay().to_level(Some(3)), "none has no levels"),
        (relay().to_compression(Compression::Zstd).to_level(Some(99)), "no level 99"),
        (relay().from_compression(nobodys), "no codec is registered"),
        (relay().to_compression(nobodys), "no codec is registered"),
    ] {
        let error: Error = setup.listen(&any_port(), &to).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
