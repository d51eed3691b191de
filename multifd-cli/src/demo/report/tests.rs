//! Codecs that are broken on purpose are caught.

use multifd::core::codec::{PacketCodec, PacketMethods, PageWriter};
use multifd::core::{
    Availability, ChannelConfig, Compression, Error, Payload, PrivateMethod, Registry, none,
};

use super::*;
use crate::cancel::Interrupt;
use crate::options::verbosity::Verbosity;

/// Sends pages as they are. By `DAMAGE`, the receiver changes the last byte of each packet or fails.
struct Broken<const DAMAGE: u8>;

const FAIL: u8 = 1;
const CHANGE: u8 = 2;

impl<const DAMAGE: u8> PacketCodec for Broken<DAMAGE> {
    const COMPRESSION: Compression = Compression::Private(PrivateMethod::new(0x0a).unwrap());
    type Encoder = ();
    type Decoder = ();

    fn encoder(_: &ChannelConfig) -> Result<(), Error> {
        Ok(())
    }

    fn decoder(_: &ChannelConfig) -> Result<(), Error> {
        Ok(())
    }

    fn encode((): &mut (), pages: &[u8], payload: &mut Payload) -> Result<(), Error> {
        payload.push(pages);
        Ok(())
    }

    fn decode((): &mut (), bytes: &[u8], pages: &mut PageWriter<'_>) -> Result<(), Error> {
        let mut bytes = bytes.to_vec();
        match DAMAGE {
            FAIL => return Err(Error::payload("it looks odd")),
            CHANGE => *bytes.last_mut().unwrap() ^= 1,
            _ => {}
        }
        pages.spare().copy_from_slice(&bytes);
        pages.advance(bytes.len());
        Ok(())
    }
}

fn descriptor<const DAMAGE: u8>() -> MethodDescriptor {
    let methods = const { &PacketMethods::<Broken<DAMAGE>>::new() };
    MethodDescriptor { name: "broken", methods, ..none::DESCRIPTOR }
}

/// What the demo reports of `codec`.
fn report(codec: &MethodDescriptor) -> Report {
    let output = Output::new(Verbosity { verbose: 0, quiet: true });
    let registry = Registry::with([*codec]).unwrap();
    let mut guest = Guest::made_up(1 << 20, 1).unwrap();
    let mut report = Report::new(&guest, 4, &output, false).unwrap();
    let migration =
        Migration { registry: &registry, codec, level: None, channels: 4, output: &output };
    let result = migration.run(&mut guest, &Interrupt::default());
    report.add(CodecReport::of(&migration, guest.pages(), result));
    report
}

#[test]
fn a_codec_that_does_its_work_is_equal() {
    let report = report(&descriptor::<0>());
    assert!(report.equal);
    assert!(report.table().to_string().contains("256 pages, all equal"));
}

#[test]
fn a_codec_that_changes_a_byte_is_caught_with_the_place() {
    let report = report(&descriptor::<CHANGE>());
    assert!(!report.equal);
    let table = report.table().to_string();
    assert!(table.contains(" DIFFER, the first in pc.ram at 0x"), "{table}");
}

#[test]
fn a_codec_that_fails_is_not_equal_and_its_reason_is_said() {
    let report = report(&descriptor::<FAIL>());
    assert!(!report.equal);
    let table = report.table().to_string();
    assert!(table.contains("FAILED: ") && table.contains("it looks odd"), "{table}");
}

#[test]
fn a_codec_that_is_not_available_is_listed_with_its_reason_and_proves_nothing() {
    let codec = MethodDescriptor {
        probe: || Availability::Unavailable("there is no such device".to_owned()),
        ..none::DESCRIPTOR
    };
    let mut report = report(&none::DESCRIPTOR);
    report.codecs.clear();
    report.add(CodecReport::not_available(&codec, &codec.require().unwrap_err()));
    assert!(!report.equal);
    assert!(report.table().to_string().contains("there is no such device"));
    report.add(self::report(&none::DESCRIPTOR).codecs.remove(0));
    assert!(report.equal);
}
