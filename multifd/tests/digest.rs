//! Digests: what arrives is what was sent, or nobody takes it for that.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{
    all_compressions, announcement, any_port, assert_equal, cause, chain, complete, content, fill,
    guest, provide, ram, receive, registry, send,
};
use multifd::core::ram::{BlockDigest, BlockMemory, Ram, RamBlock, RamDigests};
use multifd::core::vm_memory::{MmapRegion, VolatileSlice};
use multifd::core::wire::{BlockName, InitialPacket, RamPacketBuilder};
use multifd::core::{Compression, PageSize};
use multifd::relay::Relay;
use multifd::stream::FullSection;
use multifd::{Connection, Destination, Error, PageSet, Source, Unfinished, Uri, ZeroPages};

/// The digests of what `ram` holds.
fn digests(ram: &Ram) -> Vec<BlockDigest> {
    let digests = RamDigests::new(ram);
    for block in ram.blocks() {
        let bytes = content(ram, block.name().as_str());
        let hashes = digests.of(block).unwrap();
        (0..).step_by(4096).zip(bytes.chunks(4096)).for_each(|(at, page)| hashes.note(at, page));
    }
    digests.blocks().map(|(_, digest)| digest).collect()
}

#[test]
fn a_destination_knows_what_the_source_s_ram_holds_with_every_codec_and_way_of_zero_pages() {
    for compression in all_compressions() {
        for zero_pages in [ZeroPages::Channels, ZeroPages::Main, ZeroPages::Off] {
            let ram = guest();
            let (uri, destination) = receive(|setup| setup.compression(compression));
            let mut source =
                send(&ram, &uri, |setup| setup.compression(compression).zero_pages(zero_pages))
                    .unwrap();
            source.round(&PageSet::all(&ram)).unwrap();
            // Pages that change, one of them to zero, and one that was zero.
            fill(&ram, "pc.ram", 1, 8);
            fill(&ram, "pc.ram", 3, 9);
            ram.block("vga").unwrap().write(4096, &[0; 4096]);
            let mut dirty = PageSet::none(&ram);
            for (block, page) in [(0, 1), (0, 3), (2, 1)] {
                dirty.insert(block, page * 4096).unwrap();
            }
            let sent = std::thread::spawn(move || source.finish(&dirty, None));
            let arrived = destination.join().unwrap().unwrap();
            assert_equal(&ram, &arrived.ram);
            assert_eq!(arrived.vm.digests, Some(digests(&ram)), "{compression}, {zero_pages:?}");
            arrived.confirm().unwrap();
            sent.join().unwrap().unwrap();
        }
    }
}

/// Flips the lowest bit of the byte at `at`.
struct Flipping {
    to: TcpStream,
    at: Option<usize>,
}

impl Write for Flipping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut bytes = bytes.to_vec();
        if let Some(byte) = self.at.and_then(|at| bytes.get_mut(at)) {
            *byte ^= 1;
        }
        let count = self.to.write(&bytes)?;
        self.at = self.at.and_then(|at| at.checked_sub(count));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A source of `ram` without compression, over a channel for each of `flips`, of which the byte there
/// arrives wrong.
fn send_flipping(ram: &Arc<Ram>, uri: &Uri, flips: &[Option<usize>], digests: bool) -> Source {
    let Uri::Tcp { host, port } = uri else { panic!("{uri}") };
    let connection = |at| {
        let stream = TcpStream::connect((&host[..], *port)).unwrap();
        let shut = stream.try_clone().unwrap();
        let to = Flipping { to: stream.try_clone().unwrap(), at };
        Connection::from_stream(stream, to, move |how| shut.shutdown(how))
    };
    let registry = registry();
    let setup = Source::builder(&registry, Arc::clone(ram)).digests(digests);
    setup.connect_over(connection(None), flips.iter().map(|&at| connection(at))).unwrap()
}

#[test]
fn a_bit_that_flips_in_a_page_is_refused_by_the_block_s_name_and_the_guest_stays() {
    let ram = ram(&[("pc.rom", 4096), ("pc.ram", 256 << 10)]);
    (1..64).for_each(|page| fill(&ram, "pc.ram", page, 1));
    // The initial packet, two SYNC packets' worth of heads and then pages, whatever else is before.
    for (at, digests, taken) in [
        (None, true, true),
        (Some(20_000), true, false),
        (Some(200_000), true, false),
        // Nothing in the format shows it.
        (Some(20_000), false, true),
    ] {
        let (uri, destination) = receive(|setup| setup.channels(1));
        let mut source = send_flipping(&ram, &uri, &[at], digests);
        source.round(&PageSet::all(&ram)).unwrap();
        let none = PageSet::none(&ram);
        let sent = std::thread::spawn(move || source.finish(&none, None));
        let arrived = destination.join().unwrap();
        assert_eq!(arrived.is_ok(), taken, "{at:?}, {digests}");
        match arrived {
            Ok(arrived) => {
                assert_eq!(arrived.vm.digests.is_some(), digests);
                let is_equal = content(&ram, "pc.ram") == content(&arrived.ram, "pc.ram");
                assert_eq!(is_equal, at.is_none());
                arrived.confirm().unwrap();
                sent.join().unwrap().unwrap();
            }
            Err(error) => {
                assert!(
                    matches!(&error, Error::Digest { name } if name.as_str() == "pc.ram"),
                    "{}",
                    chain(&error)
                );
                let failed = sent.join().unwrap().unwrap_err();
                assert!(matches!(failed, Unfinished::Failed(Error::DestinationFailed(1))));
            }
        }
    }
}

#[test]
fn channels_that_do_not_agree_whether_there_are_digests_are_refused_whoever_comes_first() {
    // In the initial packet's bytes that say so.
    const SAYS_DIGESTS: usize = 25;
    for flips in [[None, Some(SAYS_DIGESTS)], [Some(SAYS_DIGESTS), None]] {
        for has_relay in [false, true] {
            for _ in 0..10 {
                let ram = guest();
                let (uri, destination) = receive(|setup| setup);
                let registry = registry();
                let setup = Relay::builder(&registry).from_channels(2).to_channels(2);
                let relay = has_relay.then(|| setup.listen(&any_port(), &uri).unwrap());
                let to = relay.as_ref().map_or(uri, |relay| relay.uri().clone());
                let relayed = relay.map(|relay| std::thread::spawn(move || relay.run()));
                let mut source = send_flipping(&ram, &to, &flips, true);
                let all = PageSet::all(&ram);
                let sent = source.round(&all).map_err(Unfinished::Failed);
                let sent = sent.and_then(|()| source.finish(&all, None));
                match sent {
                    Err(Unfinished::Failed(_)) => {}
                    // It may have sent everything when the relay stops.
                    Err(Unfinished::Unclear(_)) if has_relay => {}
                    other => panic!("{other:?}"),
                }
                let arrived = destination.join().unwrap();
                let said = match relayed.map(|relayed| relayed.join().unwrap().unwrap_err()) {
                    Some(failed) => chain(&failed),
                    None => chain(arrived.as_ref().unwrap_err()),
                };
                assert!(said.contains("some channels announce digests"), "{said}");
                assert!(arrived.is_err());
            }
        }
    }
}

#[test]
fn digests_pass_through_a_relay_that_changes_the_codec() {
    let source_ram = guest();
    let (uri, destination) = receive(|setup| setup.compression(Compression::Zlib).channels(3));
    let relay = Relay::builder(&registry())
        .from_compression(Compression::Zstd)
        .to_compression(Compression::Zlib)
        .to_channels(3)
        .listen(&any_port(), &uri)
        .unwrap();
    let from = relay.uri().clone();
    let relayed = std::thread::spawn(move || relay.run());
    let mut source =
        send(&source_ram, &from, |setup| setup.compression(Compression::Zstd)).unwrap();
    source.round(&PageSet::all(&source_ram)).unwrap();
    let none = PageSet::none(&source_ram);
    let sent = std::thread::spawn(move || source.finish(&none, None));
    let arrived = destination.join().unwrap().unwrap();
    assert_eq!(arrived.vm.digests, Some(digests(&source_ram)));
    arrived.confirm().unwrap();
    sent.join().unwrap().unwrap();
    relayed.join().unwrap().unwrap();
}

#[test]
fn a_device_state_arrives_as_it_was_given_whole_and_in_pieces() {
    let ram = guest();
    let devices = FullSection { name: "vcpu", version: 1, body: &[7; 100_000] };
    let devices = devices.to_device_state(PageSize::Kib4).unwrap();
    for in_pieces in [false, true] {
        let destination = Destination::builder(&registry()).listen(&any_port()).unwrap();
        let uri = destination.uri().clone();
        let received = std::thread::spawn(move || {
            let mut pieces = Vec::new();
            let arrived = if in_pieces {
                destination.receive_in_pieces(provide, |piece| {
                    pieces.extend_from_slice(piece);
                    Ok(())
                })
            } else {
                destination.receive(provide)
            };
            (pieces, arrived.unwrap())
        });
        let mut source = send(&ram, &uri, |setup| setup).unwrap();
        source.round(&PageSet::all(&ram)).unwrap();
        let (none, state) = (PageSet::none(&ram), devices.clone());
        let sent = std::thread::spawn(move || source.finish(&none, Some(&state)));
        let (pieces, arrived) = received.join().unwrap();
        assert!(if in_pieces { pieces == devices } else { arrived.vm.device_state == devices });
        assert!(arrived.vm.digests.is_some());
        arrived.confirm().unwrap();
        sent.join().unwrap().unwrap();
    }
}

#[test]
fn ram_that_is_not_what_it_should_be_is_not_handed_over() {
    let ram = guest();
    let right = digests(&ram);
    let (uri, destination) = receive(|setup| setup);
    let source = send(&ram, &uri, |setup| setup.expected_digests(right.clone())).unwrap();
    complete(source, PageSet::all(&ram), &ram, destination);
    // One bit of what was stored.
    let mut page = [0; 4096];
    let block = ram.block("vga").unwrap();
    block.slice(4096, 4096).copy_to(&mut page[..]);
    page[77] ^= 4;
    block.write(4096, &page);
    let (uri, destination) = receive(|setup| setup);
    let source = send(&ram, &uri, |setup| setup.expected_digests(right)).unwrap();
    let failed = source.finish(&PageSet::all(&ram), None).unwrap_err();
    assert!(matches!(failed, Unfinished::Failed(_)), "{failed}");
    let error = cause(failed);
    assert!(matches!(&error, Error::Changed { name } if name.as_str() == "vga"), "{error}");
    destination.join().unwrap().unwrap_err();
}

/// Memory in which a page changes between being looked at and being sent.
#[derive(Debug)]
struct Changing {
    memory: MmapRegion<()>,
    looks: AtomicUsize,
}

impl BlockMemory for Changing {
    fn bytes(&self) -> u64 {
        BlockMemory::bytes(&self.memory)
    }

    fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        let slice = BlockMemory::slice(&self.memory, offset, len)?;
        slice.copy_from(&[self.looks.fetch_add(1, Relaxed) as u8][..]);
        Some(slice)
    }
}

#[test]
fn a_page_that_changes_while_it_is_sent_and_never_comes_again_is_as_it_was_sent() {
    for compression in all_compressions() {
        let memory = MmapRegion::new(64 << 12).unwrap();
        let memory = Changing { memory, looks: AtomicUsize::new(1) };
        let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
        let ram = Arc::new(Ram::new(PageSize::Kib4, [block]).unwrap());
        let (uri, destination) = receive(|setup| setup.compression(compression));
        let mut source = send(&ram, &uri, |setup| setup.compression(compression)).unwrap();
        source.round(&PageSet::all(&ram)).unwrap();
        // The guest has freed the pages: they are not of the last round.
        let none = PageSet::none(&ram);
        let sent = std::thread::spawn(move || source.finish(&none, None));
        let arrived = destination.join().unwrap().unwrap();
        assert!(arrived.vm.digests.is_some(), "{compression}");
        arrived.confirm().unwrap();
        sent.join().unwrap().unwrap();
    }
}

#[test]
fn channels_that_do_not_agree_whether_there_will_be_digests_are_noticed_at_the_first_sync() {
    let (uri, destination) = receive(|setup| setup);
    let Uri::Tcp { host, port } = &uri else { panic!("{uri}") };
    let connect = || TcpStream::connect((&host[..], *port)).unwrap();
    // Nothing comes behind the first sync.
    let mut main = connect();
    main.write_all(&announcement(&guest())).unwrap();
    let channels = [0, 1].map(|number| {
        let mut channel = connect();
        let initial = InitialPacket::new(Default::default(), number).with_digests(number == 0);
        channel.write_all(&initial.to_bytes()).unwrap();
        let sync = RamPacketBuilder::new(PageSize::Kib4).sync(number.into()).to_vec();
        channel.write_all(&sync).unwrap();
        channel
    });
    let error = destination.join().unwrap().map(drop).unwrap_err();
    assert!(matches!(error, Error::MixedDigests), "{error}");
    drop((main, channels));
}
