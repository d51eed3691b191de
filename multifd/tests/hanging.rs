//! A codec whose device hangs does not hold a migration that is over.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use common::{any_port, assert_equal, fill, guest, provide, ram, registry};
use multifd::core::ram::{GuestPages, NormalPages};
use multifd::core::{
    Availability, ChannelConfig, Compression, Error as CodecError, MethodDescriptor,
    MultiFdMethods, Payload, PrivateMethod, RecvMethod, SendMethod, UsageError, async_trait,
};
use multifd::relay::Relay;
use multifd::{Destination, Error, PageSet, Source};

/// More than a cancellation may take, and far less than a device is waited for.
const PROMPT: Duration = Duration::from_secs(2);

/// A codec that sends pages as they are, or waits for ever.
#[derive(Clone, Debug)]
struct Codec {
    /// Said when it hangs; without, it works.
    hangs: Option<Sender<()>>,
    /// What it does when a sending channel ends.
    end: End,
    /// How long it takes to receive a packet.
    takes: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Works,
    Panics,
    Hangs,
}

impl Codec {
    fn working() -> Arc<Self> {
        Self::ending(End::Works)
    }

    fn ending(end: End) -> Arc<Self> {
        Arc::new(Self { hangs: None, end, takes: Duration::ZERO })
    }

    fn hanging() -> (Arc<Self>, Receiver<()>) {
        let (hangs, waiting) = channel();
        (Arc::new(Self { hangs: Some(hangs), end: End::Works, takes: Duration::ZERO }), waiting)
    }

    async fn device(&self) {
        if let Some(hangs) = &self.hangs {
            _ = hangs.send(());
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl MultiFdMethods for Codec {
    fn descriptor(&self) -> MethodDescriptor {
        MethodDescriptor::new("hanging", "for a test", Compression::Zstd)
    }

    fn probe(&self) -> Availability {
        Availability::Available("here".to_owned())
    }

    async fn send_setup(&self, _: &ChannelConfig) -> Result<Box<dyn SendMethod>, CodecError> {
        Ok(Box::new(self.clone()))
    }

    async fn recv_setup(&self, _: &ChannelConfig) -> Result<Box<dyn RecvMethod>, CodecError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SendMethod for Codec {
    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), CodecError> {
        self.device().await;
        payload.push(pages.private());
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<(), CodecError> {
        assert!(self.end != End::Panics, "a test's");
        if self.end == End::Hangs {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[async_trait]
impl RecvMethod for Codec {
    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), CodecError> {
        self.device().await;
        std::thread::sleep(self.takes);
        for (index, page) in payload.chunks(pages.page_size().bytes()).enumerate() {
            pages.write(index, page);
        }
        Ok(())
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<(), CodecError> {
        Ok(())
    }
}

#[test]
fn a_source_whose_device_hangs_is_cancelled_at_once() {
    let (hanging, waiting) = Codec::hanging();
    let destination = Destination::builder(&registry())
        .compression(Codec::working())
        .listen(&any_port())
        .unwrap();
    let uri = destination.uri().clone();
    let received = std::thread::spawn(move || destination.receive(provide));
    let (ram, registry) = (guest(), registry());
    let source = Source::builder(&registry, Arc::clone(&ram)).compression(hanging);
    let mut source = source.connect(&uri).unwrap();
    let token = source.cancel_token();
    let cancelling = std::thread::spawn(move || {
        waiting.recv().unwrap();
        token.cancel();
        Instant::now()
    });
    let error = source.round(&PageSet::all(&ram)).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(cancelling.join().unwrap().elapsed() < PROMPT);
    // What failed before is not said again, and not called a cancellation.
    let error = source.round(&PageSet::all(&ram)).unwrap_err();
    assert!(matches!(error, Error::Over | Error::Main(_)), "{error}");
    received.join().unwrap().unwrap_err();
}

#[test]
fn a_destination_whose_device_hangs_is_cancelled_at_once() {
    let (hanging, waiting) = Codec::hanging();
    let destination =
        Destination::builder(&registry()).compression(hanging).listen(&any_port()).unwrap();
    let (uri, token) = (destination.uri().clone(), destination.cancel_token());
    let sent = std::thread::spawn(move || {
        let (ram, registry) = (guest(), registry());
        let source = Source::builder(&registry, Arc::clone(&ram)).compression(Codec::working());
        source.connect(&uri)?.finish(&PageSet::all(&ram), None)
    });
    let received = std::thread::spawn(move || destination.receive(provide));
    waiting.recv().unwrap();
    token.cancel();
    let cancelled = Instant::now();
    let error = received.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(cancelled.elapsed() < PROMPT);
    sent.join().unwrap().unwrap_err();
}

#[test]
fn a_source_whose_codec_panics_or_hangs_at_its_end_has_succeeded_all_the_same() {
    for end in [End::Panics, End::Hangs] {
        let destination = Destination::builder(&registry())
            .compression(Codec::working())
            .listen(&any_port())
            .unwrap();
        let uri = destination.uri().clone();
        let received = std::thread::spawn(move || destination.receive(provide).unwrap().confirm());
        let (sent, finished) = channel();
        std::thread::spawn(move || {
            let (ram, registry) = (guest(), registry());
            let source = Source::builder(&registry, Arc::clone(&ram));
            let source = source.compression(Codec::ending(end)).connect(&uri).unwrap();
            sent.send(source.finish(&PageSet::all(&ram), None)).unwrap();
        });
        // The destination has the guest: a source that never returned would hold its own for ever.
        finished.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
        received.join().unwrap().unwrap();
    }
}

#[test]
fn a_relay_whose_codec_hangs_at_its_end_has_succeeded_all_the_same() {
    let destination = Destination::builder(&registry())
        .compression(Codec::working())
        .listen(&any_port())
        .unwrap();
    let to = destination.uri().clone();
    let received = std::thread::spawn(move || destination.receive(provide).unwrap().confirm());
    let registry = registry();
    let relay = Relay::builder(&registry).from_compression(Codec::working());
    let relay = relay.to_compression(Codec::ending(End::Hangs)).listen(&any_port(), &to).unwrap();
    let uri = relay.uri().clone();
    let (relayed, finished) = channel();
    std::thread::spawn(move || relayed.send(relay.run()).unwrap());
    let ram = guest();
    let source = Source::builder(&registry, Arc::clone(&ram)).compression(Codec::working());
    source.connect(&uri).unwrap().finish(&PageSet::all(&ram), None).unwrap();
    assert!(finished.recv_timeout(Duration::from_secs(60)).unwrap().unwrap().confirmed);
    received.join().unwrap().unwrap();
}

#[test]
fn a_relay_whose_devices_hang_is_cancelled_at_once() {
    for hangs_on_arrival in [true, false] {
        let (hanging, waiting) = Codec::hanging();
        let destination = Destination::builder(&registry())
            .compression(Codec::working())
            // It does not see the main channel end while it waits for channels.
            .channel_timeout(Duration::from_millis(500))
            .listen(&any_port())
            .unwrap();
        let to = destination.uri().clone();
        let received = std::thread::spawn(move || destination.receive(provide));
        let registry = registry();
        let (from_codec, to_codec) = match hangs_on_arrival {
            true => (hanging, Codec::working()),
            false => (Codec::working(), hanging),
        };
        let relay = Relay::builder(&registry).from_compression(from_codec).to_compression(to_codec);
        let relay = relay.listen(&any_port(), &to).unwrap();
        let (uri, token) = (relay.uri().clone(), relay.cancel_token());
        let relayed = std::thread::spawn(move || relay.run());
        let sent = std::thread::spawn(move || {
            let (ram, registry) = (guest(), common::registry());
            let source = Source::builder(&registry, Arc::clone(&ram));
            source.compression(Codec::working()).connect(&uri)?.finish(&PageSet::all(&ram), None)
        });
        waiting.recv().unwrap();
        token.cancel();
        let cancelled = Instant::now();
        let error = common::cause(relayed.join().unwrap().unwrap_err());
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert!(cancelled.elapsed() < PROMPT);
        sent.join().unwrap().unwrap_err();
        received.join().unwrap().unwrap_err();
    }
}

#[test]
fn a_destination_that_is_slow_goes_on_when_a_source_that_needs_no_answer_has_closed() {
    let limit = Duration::from_secs(2);
    let slow = Codec { hangs: None, end: End::Works, takes: 2 * limit };
    let destination = Destination::builder(&registry())
        .compression(Arc::new(slow))
        .channel_timeout(limit)
        .listen(&any_port())
        .unwrap();
    let uri = destination.uri().clone();
    let received = std::thread::spawn(move || destination.receive(provide));
    // Small enough for all of it to be on its way at once.
    let (ram, registry) = (ram(&[("pc.ram", 64 << 10)]), registry());
    fill(&ram, "pc.ram", 3, 1);
    let source = Source::builder(&registry, Arc::clone(&ram)).compression(Codec::working());
    let source = source.return_path(false).connect(&uri).unwrap();
    source.finish(&PageSet::all(&ram), None).unwrap();
    assert_equal(&ram, &received.join().unwrap().unwrap().ram);
}

#[test]
fn a_codec_that_cannot_work_is_refused_before_anybody_connects() {
    #[derive(Debug)]
    struct Absent;

    #[async_trait]
    impl MultiFdMethods for Absent {
        fn descriptor(&self) -> MethodDescriptor {
            let value = PrivateMethod::new(0x0e).unwrap();
            MethodDescriptor::new("absent", "for a test", Compression::Private(value))
        }

        fn probe(&self) -> Availability {
            Availability::Unavailable("no such device".to_owned())
        }

        async fn send_setup(&self, _: &ChannelConfig) -> Result<Box<dyn SendMethod>, CodecError> {
            panic!("it is not available")
        }

        async fn recv_setup(&self, _: &ChannelConfig) -> Result<Box<dyn RecvMethod>, CodecError> {
            panic!("it is not available")
        }
    }
    let nobody = "tcp:127.0.0.1:1".parse().unwrap();
    let registry = registry();
    let source = Source::builder(&registry, guest()).compression(Arc::new(Absent));
    let error = source.connect(&nobody).unwrap_err();
    let refused = matches!(&error, Error::Usage(UsageError::NotAvailable { name: "absent", .. }));
    assert!(refused, "{error}");
}
