//! A codec whose receivers do not clear a page that they got with data gets no such page as zero.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::{any_port, complete, fill, guest, ram, receive, registry, send};
use multifd::core::Compression;
use multifd::relay::Relay;
use multifd::{PageSet, Stats, ZeroPages};

/// A migration whose guest clears all its pages between two rounds. Returns what the source has sent,
/// and what a relay in between has, if there is one, to which the source sends without compression.
fn migrate(codec: Compression, zero_pages: ZeroPages, relayed: bool) -> (Stats, Option<Stats>) {
    let (uri, received) = receive(|setup| setup.compression(codec));
    let relay = relayed.then(|| {
        let registry = registry();
        let relay = Relay::builder(&registry).to_compression(codec);
        let relay = relay.listen(&any_port(), &uri).unwrap();
        (relay.uri().clone(), std::thread::spawn(move || relay.run()))
    });
    let (to, compression) = match &relay {
        Some((relay, _)) => (relay, Compression::None),
        None => (&uri, codec),
    };
    let (ram, mut pages) = (ram(&[("pc.ram", 1 << 20)]), 0);
    for page in (0..256).filter(|page| page % 4 != 0) {
        fill(&ram, "pc.ram", page, 2);
        pages += 1;
    }
    assert_eq!(pages, 192);
    let mut source =
        send(&ram, to, |setup| setup.compression(compression).zero_pages(zero_pages)).unwrap();
    source.round(&PageSet::all(&ram)).unwrap();
    ram.blocks()[0].write(0, &vec![0; 1 << 20]);
    let stats = complete(source, PageSet::all(&ram), &ram, received);
    (stats, relay.map(|(_, relay)| relay.join().unwrap().unwrap().to))
}

fn pages(stats: &Stats) -> (u64, u64) {
    (stats.total().normal_pages, stats.zero_pages())
}

#[test]
fn uadk_never_gets_a_page_as_zero_that_it_got_with_data() {
    for zero_pages in [ZeroPages::Channels, ZeroPages::Main] {
        let (sent, _) = migrate(Compression::Uadk, zero_pages, false);
        assert_eq!(pages(&sent), (2 * 192, 2 * 64), "{zero_pages:?}");
    }
    let (sent, relayed) = migrate(Compression::Uadk, ZeroPages::Channels, true);
    assert_eq!(pages(&sent), (192, 64 + 256));
    assert_eq!(pages(&relayed.unwrap()), (2 * 192, 2 * 64));
}

#[test]
fn other_codecs_get_every_zero_page_as_such() {
    for codec in [Compression::None, Compression::Qpl, Compression::Qatzip] {
        let (sent, relayed) = migrate(codec, ZeroPages::Channels, true);
        assert_eq!(pages(&sent), (192, 64 + 256), "{codec}");
        assert_eq!(pages(&relayed.unwrap()), (192, 64 + 256), "{codec}");
    }
}

#[test]
fn a_guest_in_rounds_arrives_as_it_is() {
    let (ram, (uri, received)) = (guest(), receive(|setup| setup.compression(Compression::Uadk)));
    let mut source = send(&ram, &uri, |setup| setup.compression(Compression::Uadk)).unwrap();
    source.round(&PageSet::all(&ram)).unwrap();
    for page in 0..100 {
        ram.blocks()[0].write(page * 4096, &[0; 4096]);
    }
    fill(&ram, "pc.ram", 50, 3);
    complete(source, PageSet::all(&ram), &ram, received);
}
