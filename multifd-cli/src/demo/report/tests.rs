//! Codecs that are broken on purpose are caught.

use std::sync::Arc;

use multifd::core::codec::{PacketCodec, PacketMethods, PageWriter};
use multifd::core::none::Plain;
use multifd::core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, Payload, PrivateMethod,
    Registry,
};

use super::*;
use crate::cancel::Interrupt;
use crate::options::verbosity::Verbosity;

/// Sends pages as they are. The receiver does this with each packet.
#[derive(Clone, Copy, Debug)]
enum Broken {
    /// It restores the packet: the codec is not broken.
    Not,
    /// It changes the last byte.
    Changes,
    Fails,
    /// The codec cannot be used at all.
    Unavailable,
}

impl PacketCodec for Broken {
    type Encoder = ();
    type Decoder = ();

    fn descriptor(&self) -> MethodDescriptor {
        let compression = Compression::Private(PrivateMethod::new(0x0a).unwrap());
        MethodDescriptor::new("broken", "a codec for tests", compression)
    }

    fn probe(&self) -> Availability {
        match self {
            Self::Unavailable => Availability::Unavailable("there is no such device".to_owned()),
            _ => Availability::Available("built in".to_owned()),
        }
    }

    fn encoder(&self, _: &ChannelConfig) -> Result<(), Error> {
        Ok(())
    }

    fn decoder(&self, _: &ChannelConfig) -> Result<(), Error> {
        Ok(())
    }

    fn encode(&self, (): &mut (), pages: &[u8], payload: &mut Payload) -> Result<(), Error> {
        payload.push(pages);
        Ok(())
    }

    fn decode(&self, (): &mut (), bytes: &[u8], pages: &mut PageWriter<'_>) -> Result<(), Error> {
        let mut bytes = bytes.to_vec();
        match self {
            Self::Fails => return Err(Error::payload("it looks odd")),
            Self::Changes => *bytes.last_mut().unwrap() ^= 1,
            Self::Not | Self::Unavailable => {}
        }
        pages.spare().copy_from_slice(&bytes);
        pages.advance(bytes.len());
        Ok(())
    }
}

fn codec(broken: Broken) -> Arc<dyn MultiFdMethods> {
    Arc::new(PacketMethods::new(broken))
}

/// What the demo reports of `codec`.
fn report(codec: &Arc<dyn MultiFdMethods>) -> Report {
    let output = Output::new(Verbosity { verbose: 0, quiet: true });
    let registry = Registry::with([Arc::clone(codec)]).unwrap();
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
    let report = report(&codec(Broken::Not));
    assert!(report.equal);
    assert!(report.table().to_string().contains("256 pages, all equal"));
}

#[test]
fn a_codec_that_changes_a_byte_is_caught_with_the_place() {
    let report = report(&codec(Broken::Changes));
    assert!(!report.equal);
    let table = report.table().to_string();
    assert!(table.contains(" DIFFER, the first in pc.ram at 0x"), "{table}");
}

#[test]
fn a_codec_that_fails_is_not_equal_and_its_reason_is_said() {
    let report = report(&codec(Broken::Fails));
    assert!(!report.equal);
    let table = report.table().to_string();
    assert!(table.contains("FAILED: ") && table.contains("it looks odd"), "{table}");
}

#[test]
fn a_codec_that_is_not_available_is_listed_with_its_reason_and_proves_nothing() {
    let none: Arc<dyn MultiFdMethods> = Arc::new(Plain);
    let codec = codec(Broken::Unavailable);
    let mut report = report(&none);
    report.codecs.clear();
    report.add(CodecReport::not_available(&*codec, &codec.require().unwrap_err()));
    assert!(!report.equal);
    assert!(report.table().to_string().contains("there is no such device"));
    report.add(self::report(&none).codecs.remove(0));
    assert!(report.equal);
}
