//! One codec's two sides, driven as a channel drives them.

use std::ops::Range;

use multifd_core::ram::RamBlock;
use std::time::Duration;

use multifd_core::channel::Part;
use multifd_core::{MultiFdMethods, Payload, RecvMethod, SendMethod};
use pollster::block_on;

use crate::cpu::cpu_time_around_a_pause;
use crate::guest::{PAGE_BYTES, PAGE_SIZE, Packet, new_block, pages};

/// A codec's sending side.
#[allow(missing_debug_implementations, reason = "a method need not be Debug")]
pub struct Sender {
    method: Box<dyn SendMethod>,
    payload: Payload,
}

impl Sender {
    /// The sending side of a new channel, at the codec's default level.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn new(codec: &dyn MultiFdMethods) -> Self {
        let config = codec.descriptor().config(0, PAGE_SIZE, None);
        let config = config.expect("the default level exists");
        let method = block_on(codec.send_setup(&config)).expect("the codec works here");
        Self { method, payload: Payload::new() }
    }

    /// Makes the payload of each packet. Returns the bytes of all of them.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn send(&mut self, packets: &[Packet<'_>]) -> usize {
        let Self { method, payload } = self;
        block_on(async {
            let mut bytes = 0;
            for packet in packets {
                payload.clear();
                let sent = method.send_prepare(&packet.normal_pages(), payload).await;
                sent.expect("the codec works");
                bytes += payload.len();
            }
            bytes
        })
    }

    /// Makes the payload of a packet with a device. Returns this thread's CPU time up to where it waits for
    /// the device, during which `pause` is called, and from there on; `None` where the device took longer.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn send_around(
        &mut self,
        packet: &Packet<'_>,
        pause: impl FnOnce(),
    ) -> Option<[Duration; 2]> {
        let Self { method, payload } = self;
        payload.clear();
        let pages = packet.normal_pages();
        let send = async { method.send_prepare(&pages, payload).await.expect("the codec works") };
        cpu_time_around_a_pause(send, pause)
    }

    /// Bytes of the last payload that were copied into it. All others are sent from whole pages of memory,
    /// where a device has written them, or the private copy is.
    ///
    /// # Panics
    /// Where it is not of `packet`.
    pub fn copied(&self, packet: &Packet<'_>) -> usize {
        let copied = |part| match part {
            Part::Bytes(bytes) if bytes.as_ptr().addr() % PAGE_BYTES != 0 => bytes.len(),
            Part::Bytes(_) | Part::Guest(_) => 0,
        };
        self.payload.parts(&packet.normal_pages()).map(copied).sum()
    }
}

/// What a channel carries: the payload of each packet, from the first on.
#[derive(Debug, Default)]
pub struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    /// The payloads that `codec` makes of `packets`.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn of(codec: &dyn MultiFdMethods, packets: &[Packet<'_>]) -> Self {
        let mut sender = Sender::new(codec);
        let mut payloads = Self::default();
        for packet in packets {
            sender.send(std::slice::from_ref(packet));
            payloads.push(&sender.payload.to_vec(&packet.normal_pages()));
        }
        payloads
    }

    /// Appends the payload of one more packet.
    pub fn push(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
    }

    /// Bytes of all payloads.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The payload of the packet with the index `packet`.
    ///
    /// # Panics
    /// With an index past the last packet.
    pub fn get(&self, packet: usize) -> &[u8] {
        let start = packet.checked_sub(1).map_or(0, |last| self.ends[last]);
        &self.bytes[start..self.ends[packet]]
    }

    /// Each payload.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|packet| self.get(packet))
    }
}

/// The destination of a channel: guest memory, and the packets that are to come.
#[derive(Debug)]
pub struct Destination<'a> {
    codec: &'a dyn MultiFdMethods,
    block: RamBlock,
    packets: Vec<Incoming<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Incoming<'a> {
    payload: &'a [u8],
    offsets: &'a [u64],
}

impl<'a> Destination<'a> {
    /// The destination of `payloads`, which `codec` has made, or could have, of `packets`.
    pub fn new(
        codec: &'a dyn MultiFdMethods,
        packets: &[Packet<'a>],
        payloads: &'a Payloads,
    ) -> Self {
        let bytes = packets.first().map_or(0, |packet| packet.guest.block().bytes());
        let packets = packets.iter().zip(payloads.iter());
        let packets =
            packets.map(|(packet, payload)| Incoming { payload, offsets: packet.guest.offsets() });
        Self { codec, packets: packets.collect(), block: new_block(bytes as usize) }
    }

    /// The codec's receiving side for a new channel.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn open(&self) -> Receiver<'_> {
        let config = self.codec.descriptor().config(0, PAGE_SIZE, None);
        let config = config.expect("the default level exists");
        let method = block_on(self.codec.recv_setup(&config));
        Receiver { method: method.expect("the codec works here"), destination: self }
    }

    /// Checks that the pages of `packets` have arrived.
    ///
    /// # Panics
    /// Where one has not.
    pub fn check(&self, packets: &[Packet<'_>]) {
        let mut page = vec![0; PAGE_BYTES];
        for packet in packets {
            let private = packet.private.chunks_exact(PAGE_BYTES);
            for (&offset, expected) in packet.guest.offsets().iter().zip(private) {
                self.block.slice(offset, PAGE_BYTES).copy_to(&mut page[..]);
                assert!(page == expected, "the page at {offset:#x} has not arrived");
            }
        }
    }
}

/// A codec's receiving side.
#[allow(missing_debug_implementations, reason = "a method need not be Debug")]
pub struct Receiver<'a> {
    method: Box<dyn RecvMethod>,
    destination: &'a Destination<'a>,
}

impl Receiver<'_> {
    /// Receives the packets with the indices in `range`. A stream's must come from the first on.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn receive(&mut self, range: Range<usize>) {
        let Self { method, destination } = self;
        block_on(async {
            for incoming in &destination.packets[range] {
                let pages = pages(&destination.block, incoming.offsets);
                method.recv(incoming.payload, pages).await.expect("the payload is valid");
            }
        });
    }

    /// Receives a packet with a device. Returns this thread's CPU time up to where it waits for the
    /// device, during which `pause` is called, and from there on; `None` where the device took longer.
    ///
    /// # Panics
    /// Where the codec fails.
    pub fn receive_around(&mut self, packet: usize, pause: impl FnOnce()) -> Option<[Duration; 2]> {
        let Self { method, destination } = self;
        let Incoming { payload, offsets } = destination.packets[packet];
        let pages = pages(&destination.block, offsets);
        let receive = async { method.recv(payload, pages).await.expect("the payload is valid") };
        cpu_time_around_a_pause(receive, pause)
    }
}
