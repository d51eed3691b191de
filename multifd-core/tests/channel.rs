//! One channel's machines with method none, over memory.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use multifd_core::channel::{
    ChannelCounters, Opened, Opening, PacketBuffer, Received, RecvMachine, RecvNext, SendConfig,
    SendMachine, SendNext, Target, memory,
};
use multifd_core::none::Plain;
use multifd_core::ram::{
    BlockMemory, GuestPages, NormalPages, PageBatch, Ram, RamBlock, RamDigests, SentPages,
};
use multifd_core::vm_memory::{MmapRegion, VolatileSlice};
use multifd_core::wire::{BlockName, DeviceStatePacket, InitialPacket, RamPacket, Uuid};
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, ErrorKind, MethodDescriptor, MultiFdMethods,
    PageSize, Payload, PeerError, PrivateMethod, RecvMethod, SendMethod, UsageError,
};
use pollster::block_on;

const PAGES: u64 = 300;

fn ram() -> Arc<Ram> {
    let memory = MmapRegion::<()>::new(PAGES as usize * 4096).unwrap();
    let block = RamBlock::new(BlockName::new("pc.ram").unwrap(), memory);
    Arc::new(Ram::new(PageSize::Kib4, [block]).unwrap())
}

/// Every fourth page is zero, the others have one byte each.
fn guest() -> Arc<Ram> {
    let ram = ram();
    for page in (0..PAGES).filter(|page| page % 4 != 0) {
        ram.blocks()[0].write(page * 4096 + page, &[page as u8 | 1]);
    }
    ram
}

fn content(ram: &Ram) -> Vec<u8> {
    let mut bytes = vec![0; ram.bytes() as usize];
    ram.blocks()[0].slice(0, bytes.len()).copy_to(&mut bytes[..]);
    bytes
}

fn sender() -> SendMachine {
    let config = SendConfig::new(ChannelConfig::new(3, PageSize::Kib4, 0)).with_uuid(Uuid([9; 16]));
    block_on(SendMachine::new(&Plain, config)).unwrap()
}

fn receiver() -> RecvMachine {
    block_on(RecvMachine::new(&Plain, 3, PageSize::Kib4, Arc::default())).unwrap()
}

fn batches(ram: &Ram) -> Vec<PageBatch> {
    let offsets: Vec<u64> = (0..PAGES).map(|page| page * 4096).collect();
    let batch = |offsets: &[u64]| {
        PageBatch::new(Arc::clone(&ram.blocks()[0]), PageSize::Kib4, offsets.to_vec()).unwrap()
    };
    offsets.chunks(128).map(batch).collect()
}

/// The stream of a channel: all pages of `ram`, and a SYNC.
fn send(ram: &Ram) -> Vec<u8> {
    let (mut channel, mut out) = (sender(), Vec::new());
    block_on(memory::send(&mut channel, &mut out)).unwrap();
    for batch in batches(ram) {
        channel.pages(batch).unwrap();
        block_on(memory::send(&mut channel, &mut out)).unwrap();
    }
    channel.sync().unwrap();
    block_on(memory::send(&mut channel, &mut out)).unwrap();
    block_on(channel.finish()).unwrap();
    out
}

/// Takes the opening off `bytes`.
fn open(bytes: &mut &[u8]) -> Result<InitialPacket, Error> {
    let mut opening = Opening::new();
    loop {
        let room = opening.want();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        *bytes = &bytes[count..];
        match opening.filled(count)? {
            None => {}
            Some(Opened::Channel(initial)) => return Ok(initial),
            Some(_) => return Err(PeerError::Truncated.into()),
        }
    }
}

/// Takes a channel in. Returns how often each thing came: pages, syncs.
fn receive(mut bytes: &[u8], ram: &Arc<Ram>) -> Result<[u32; 2], Error> {
    assert_eq!(open(&mut bytes)?, InitialPacket::new(Uuid([9; 16]), 3));
    let (mut channel, mut counts) = (receiver(), [0; 2]);
    loop {
        match block_on(memory::receive(&mut channel, &mut bytes, ram))? {
            Received::Pages => counts[0] += 1,
            Received::Sync => counts[1] += 1,
            Received::End => return Ok(counts),
        }
    }
}

fn stream() -> Vec<u8> {
    send(&guest())
}

fn peer_error(bytes: &[u8]) -> (PeerError, Error) {
    let error = receive(bytes, &ram()).expect_err("the stream is wrong");
    match error.kind() {
        ErrorKind::Peer(peer) => (peer.clone(), error),
        other => panic!("not the peer's fault: {other}"),
    }
}

#[test]
fn memory_carries_a_channel() {
    let (source, destination) = (guest(), ram());
    assert_eq!(receive(&send(&source), &destination).unwrap(), [3, 1]);
    assert!(content(&source) == content(&destination));
}

/// Writes at most `step` bytes at a time.
fn send_in_steps(channel: &mut SendMachine, out: &mut Vec<u8>, step: usize) {
    loop {
        match channel.next().unwrap() {
            SendNext::Idle => return,
            SendNext::Encode => block_on(channel.encode()).unwrap(),
            SendNext::Write(mut parts) => {
                let part = parts.next().expect("something is left to write");
                let mut piece = vec![0; part.bytes().min(step)];
                assert_eq!(part.copy_to(&mut piece), piece.len());
                out.extend(&piece);
                channel.sent(piece.len());
            }
        }
    }
}

#[test]
fn bytes_written_in_pieces_of_any_size_are_the_same() {
    let (source, expected) = (guest(), stream());
    for step in [1, 63, 4095, 4097, 1 << 20] {
        let (mut channel, mut out) = (sender(), Vec::new());
        send_in_steps(&mut channel, &mut out, step);
        for batch in batches(&source) {
            channel.pages(batch).unwrap();
            send_in_steps(&mut channel, &mut out, step);
        }
        channel.sync().unwrap();
        send_in_steps(&mut channel, &mut out, step);
        assert!(out == expected, "{step}");
    }
}

/// Reads at most `step` bytes at a time, and asks twice what is next.
fn receive_in_steps(mut bytes: &[u8], ram: &Arc<Ram>, step: usize) -> Vec<Received> {
    open(&mut bytes).unwrap();
    let (mut channel, mut all) = (receiver(), Vec::new());
    loop {
        let again = match channel.next().unwrap() {
            RecvNext::Read(room) => room.len(),
            RecvNext::ReadGuest(room) => room.bytes(),
            RecvNext::Admit(packet) => packet.payload_bytes,
            RecvNext::Decode => panic!("none has nothing to decode"),
            RecvNext::Received(received) => {
                all.push(received);
                if received == Received::End {
                    return all;
                }
                continue;
            }
        };
        match channel.next().unwrap() {
            RecvNext::Read(room) => {
                assert_eq!(room.len(), again);
                let count = room.len().min(bytes.len()).min(step);
                room[..count].copy_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                channel.filled(count).unwrap();
            }
            RecvNext::ReadGuest(room) => {
                assert_eq!(room.bytes(), again);
                let count = room.copy_from(&bytes[..step.min(bytes.len())]);
                bytes = &bytes[count..];
                channel.filled(count).unwrap();
            }
            RecvNext::Admit(packet) => {
                assert_eq!(packet.payload_bytes, again);
                channel.place(Target::Ram(Arc::clone(ram))).unwrap();
            }
            RecvNext::Decode | RecvNext::Received(_) => panic!("it was something else before"),
        }
    }
}

#[test]
fn bytes_read_in_pieces_of_any_size_give_the_same_pages() {
    let stream = stream();
    for step in [1, 63, 4095, 4097, 1 << 20] {
        let destination = ram();
        let received = receive_in_steps(&stream, &destination, step);
        let pages = Received::Pages;
        assert_eq!(received, [pages, pages, pages, Received::Sync, Received::End]);
        assert!(content(&destination) == content(&guest()), "{step}");
    }
}

#[test]
fn a_stream_that_ends_between_two_packets_has_ended_and_any_other_is_cut_off() {
    let stream = stream();
    let packets: Vec<usize> = {
        // Initial packet, then two full packets of 96 normal pages, one of 33, and the SYNC.
        let sizes = [64, 1344 + 96 * 4096, 1344 + 96 * 4096, 1344 + 33 * 4096, 1344];
        let mut end = 0;
        sizes
            .iter()
            .map(|size| {
                end += size;
                end
            })
            .collect()
    };
    assert_eq!(*packets.last().unwrap(), stream.len());
    let near = |at: usize| packets.iter().any(|&end| at.abs_diff(end) < 20);
    // Every byte near a border, and some of the many between.
    for at in (0..stream.len()).filter(|&at| near(at) || at % 9973 == 0) {
        if packets.contains(&at) {
            receive(&stream[..at], &ram()).unwrap();
        } else {
            let (error, _) = peer_error(&stream[..at]);
            assert_eq!(error, PeerError::Truncated, "{at}");
        }
    }
}

#[test]
fn an_error_in_a_packet_says_channel_packet_and_block() {
    let mut bytes = stream();
    let second = 64 + 1344 + 96 * 4096;
    bytes[second + 64] = b'x';
    let (error, whole) = peer_error(&bytes);
    assert_eq!(error, PeerError::UnknownBlock { name: "xc.ram".to_owned() });
    assert_eq!((whole.place().channel, whole.place().packet_num), (Some(3), Some(1)));
}

#[test]
fn an_offset_past_the_end_of_its_block_is_an_error() {
    for offset in [PAGES * 4096, u64::MAX - 4095] {
        let mut bytes = stream();
        bytes[64 + 320..][..8].copy_from_slice(&offset.to_be_bytes());
        let (error, _) = peer_error(&bytes);
        assert!(matches!(error, PeerError::OffsetPastEnd { offset: found, .. } if found == offset));
    }
}

#[test]
fn a_malformed_packet_is_reported_by_the_number_that_it_claims() {
    let mut bytes = stream();
    bytes[64 + 1344 + 96 * 4096 + 12..][..4].fill(0xff);
    let (error, whole) = peer_error(&bytes);
    assert_eq!(error, PeerError::PagesAlloc { found: u32::MAX, page_count: 128 });
    assert_eq!((whole.place().channel, whole.place().packet_num), (Some(3), Some(1)));
}

#[test]
fn a_batch_without_pages_or_with_too_many_is_refused() {
    let batch = |offsets| PageBatch::new(Arc::clone(&ram().blocks()[0]), PageSize::Kib4, offsets);
    assert!(batch(vec![0; 128]).is_ok());
    for pages in [0, 129] {
        let refused = batch(vec![0; pages]).unwrap_err();
        assert_eq!(refused, UsageError::BatchSize { pages, page_count: 128 });
    }
}

#[test]
fn a_packet_of_another_codec_is_an_error() {
    let mut bytes = stream();
    bytes[64 + 11] |= 0x04;
    let (error, _) = peer_error(&bytes);
    let (expected, found) = (Compression::None, Compression::Zstd);
    assert_eq!(error, PeerError::Method { expected, found });
}

#[test]
fn device_state_on_a_channel_is_refused_by_its_device() {
    let device = BlockName::new("0000:00:05.0/vfio").unwrap();
    let packet = DeviceStatePacket { device: device.clone(), instance_id: 0, data_bytes: 8 };
    let mut bytes = stream()[..64].to_vec();
    bytes.extend(packet.to_bytes());
    bytes.extend([0; 8]);
    assert_eq!(peer_error(&bytes).0, PeerError::DeviceStateRefused { device });
}

#[test]
fn a_sync_with_pages_puts_them_in_place_first() {
    // As QEMU before 9.0 sends it.
    let mut bytes = stream();
    bytes[64 + 11] |= 0x01;
    assert_eq!(receive(&bytes, &ram()).unwrap(), [2, 2]);
}

#[test]
fn two_channels_that_write_the_same_pages_do_not_disturb_each_other() {
    let destination = ram();
    let stream = stream();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20 {
                    receive(&stream, &destination).unwrap();
                }
            });
        }
    });
    assert!(content(&destination) == content(&guest()));
}

#[test]
fn after_an_error_a_channel_says_that_it_has_failed() {
    let bytes = stream();
    let (mut bytes, destination) = (&bytes[64..5000], ram());
    let mut channel = receiver();
    block_on(memory::receive(&mut channel, &mut bytes, &destination)).unwrap_err();
    let failed =
        |error: &Error| matches!(error.kind(), ErrorKind::Usage(UsageError::ChannelFailed));
    assert!(failed(&channel.next().unwrap_err()));
    assert!(failed(&channel.filled(1).unwrap_err()));
    assert!(failed(&block_on(channel.decode()).unwrap_err()));
}

#[test]
fn a_call_out_of_turn_is_an_error_and_changes_nothing() {
    let turn =
        |error: Error| matches!(error.kind(), ErrorKind::Usage(UsageError::OutOfTurn { .. }));
    let mut sender = sender();
    assert!(turn(sender.sync().unwrap_err()), "the initial packet has to be written first");
    assert!(turn(block_on(sender.encode()).unwrap_err()));
    let mut out = Vec::new();
    block_on(memory::send(&mut sender, &mut out)).unwrap();
    assert_eq!(out.len(), InitialPacket::BYTES);

    let mut channel = receiver();
    assert!(turn(channel.place(Target::Ram(ram())).unwrap_err()));
    assert!(turn(block_on(channel.decode()).unwrap_err()));
    let bytes = stream();
    let received = block_on(memory::receive(&mut channel, &mut &bytes[64..], &ram())).unwrap();
    assert_eq!(received, Received::Pages);
}

/// Takes a channel in and sends it on, without RAM.
fn relay(mut bytes: &[u8]) -> Vec<u8> {
    open(&mut bytes).unwrap();
    let [received, sent] = [Arc::<ChannelCounters>::default(), Arc::default()];
    let from = RecvMachine::new(&Plain, 3, PageSize::Kib4, Arc::clone(&received));
    let config = SendConfig::new(ChannelConfig::new(3, PageSize::Kib4, 0)).with_uuid(Uuid([9; 16]));
    let to = SendMachine::new(&Plain, config.with_counters(Arc::clone(&sent)));
    let (mut from, mut to, mut out) = (block_on(from).unwrap(), block_on(to).unwrap(), Vec::new());
    let mut spare = Some(PacketBuffer::new(PageSize::Kib4).unwrap());
    block_on(memory::send(&mut to, &mut out)).unwrap();
    loop {
        match from.next().unwrap() {
            RecvNext::Read(room) => {
                let count = room.len().min(bytes.len());
                room[..count].copy_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                from.filled(count).unwrap();
            }
            RecvNext::ReadGuest(room) => {
                let count = room.copy_from(bytes);
                bytes = &bytes[count..];
                from.filled(count).unwrap();
            }
            RecvNext::Admit(_) => from.place(Target::Buffer(spare.take().unwrap())).unwrap(),
            RecvNext::Decode => block_on(from.decode()).unwrap(),
            RecvNext::Received(Received::End) => {
                assert_eq!(received.snapshot(), sent.snapshot());
                return out;
            }
            RecvNext::Received(came) => {
                let buffer = from.take_buffer().unwrap();
                let sync = came == Received::Sync;
                assert_eq!(buffer.is_empty(), sync, "what the packet before held is gone");
                to.buffer(buffer).unwrap();
                block_on(memory::send(&mut to, &mut out)).unwrap();
                spare = to.take_buffer();
                if sync {
                    to.sync().unwrap();
                    block_on(memory::send(&mut to, &mut out)).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_channel_goes_through_buffers_byte_for_byte_without_any_ram() {
    let bytes = stream();
    assert!(relay(&bytes) == bytes);
    let received = ram();
    receive(&relay(&bytes), &received).unwrap();
    assert!(content(&received) == content(&guest()));
}

#[test]
fn a_normal_page_that_is_zero_stays_one_in_a_buffer() {
    // The first page's content, behind the initial packet and the first header, made all zero.
    let mut bytes = stream();
    bytes[64 + 1344..64 + 1344 + 4096].fill(0);
    assert!(relay(&bytes) == bytes);
}

#[test]
fn a_packet_that_is_cut_off_leaves_no_page_in_the_buffer() {
    let bytes = stream();
    let mut bytes = &bytes[64..64 + 1344 + 5000];
    let mut channel = receiver();
    let error = loop {
        let filled = match channel.next().unwrap() {
            RecvNext::Read(room) => {
                let count = room.len().min(bytes.len());
                room[..count].copy_from_slice(&bytes[..count]);
                count
            }
            RecvNext::ReadGuest(room) => room.copy_from(bytes),
            RecvNext::Admit(_) => {
                let buffer = PacketBuffer::new(PageSize::Kib4).unwrap();
                channel.place(Target::Buffer(buffer)).unwrap();
                continue;
            }
            RecvNext::Decode | RecvNext::Received(_) => panic!("the packet is not whole"),
        };
        bytes = &bytes[filled..];
        if let Err(error) = channel.filled(filled) {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::Peer(PeerError::Truncated)), "{error}");
    assert!(channel.take_buffer().unwrap().is_empty());
}

#[test]
fn both_sides_count_the_same_and_every_byte_on_the_wire() {
    let source = guest();
    let (sent, received) = (Arc::<ChannelCounters>::default(), Arc::<ChannelCounters>::default());
    let config = SendConfig::new(ChannelConfig::new(3, PageSize::Kib4, 0));
    let config = config.with_counters(Arc::clone(&sent));
    let (mut channel, mut out) = (block_on(SendMachine::new(&Plain, config)).unwrap(), Vec::new());
    block_on(memory::send(&mut channel, &mut out)).unwrap();
    for batch in batches(&source) {
        channel.pages(batch).unwrap();
        block_on(memory::send(&mut channel, &mut out)).unwrap();
    }
    channel.sync().unwrap();
    block_on(memory::send(&mut channel, &mut out)).unwrap();

    let channel = RecvMachine::new(&Plain, 3, PageSize::Kib4, Arc::clone(&received));
    let (mut channel, mut rest, ram) = (block_on(channel).unwrap(), &out[64..], ram());
    while block_on(memory::receive(&mut channel, &mut rest, &ram)).unwrap() != Received::End {}
    let counted = sent.snapshot();
    assert_eq!(counted, received.snapshot());
    assert_eq!(counted.wire_bytes, out.len() as u64);
    assert_eq!((counted.packets, counted.normal_pages, counted.zero_pages), (4, 225, 75));
    assert_eq!(counted.payload_bytes, 225 * 4096);
}

#[test]
fn pages_of_several_blocks_keep_their_names_in_a_buffer() {
    let block = |name| {
        let memory = MmapRegion::<()>::new(0x2000).unwrap();
        let block = RamBlock::new(BlockName::new(name).unwrap(), memory);
        block.write(0x1000, &[name.len() as u8; 4096]);
        block
    };
    let source = Ram::new(PageSize::Kib4, [block("a"), block("bb")]).unwrap();
    let (mut channel, mut out) = (sender(), Vec::new());
    block_on(memory::send(&mut channel, &mut out)).unwrap();
    for at in [0, 1, 1, 0] {
        let block = Arc::clone(&source.blocks()[at]);
        channel.pages(PageBatch::new(block, PageSize::Kib4, vec![0x1000, 0]).unwrap()).unwrap();
        block_on(memory::send(&mut channel, &mut out)).unwrap();
    }
    assert!(relay(&out) == out);
}

#[test]
fn an_opening_says_whether_it_is_known_and_keeps_its_bytes_as_they_came() {
    let mut bytes = InitialPacket::new(Uuid([9; 16]), 3).to_bytes();
    bytes[25..].fill(0xaa);
    let mut opening = Opening::new();
    for (at, byte) in bytes.into_iter().enumerate() {
        assert_eq!((opening.is_known(), opening.bytes()), (at >= 4, &bytes[..at]));
        opening.want()[0] = byte;
        assert_eq!(opening.filled(1).unwrap().is_some(), at == 63);
    }
    assert_eq!(opening.bytes(), bytes);
}

/// Receives `bytes`, behind the initial packet, into `target`.
fn place(channel: &mut RecvMachine, bytes: &[u8], target: Target) -> Result<(), Error> {
    let (mut rest, mut target) = (bytes, Some(target));
    loop {
        match channel.next()? {
            RecvNext::Read(room) => {
                let count = room.len().min(rest.len());
                room[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                channel.filled(count)?;
            }
            RecvNext::Admit(_) => return channel.place(target.take().unwrap()),
            _ => panic!("no packet has come"),
        }
    }
}

#[test]
fn memory_for_pages_of_another_size_than_the_channels_is_refused() {
    let bytes = stream();
    let buffer = PacketBuffer::new(PageSize::Kib64).unwrap();
    let no_ram = Arc::new(Ram::new(PageSize::Kib16, []).unwrap());
    for (target, given) in
        [(Target::Buffer(buffer), PageSize::Kib64), (Target::Ram(no_ram), PageSize::Kib16)]
    {
        let refused = place(&mut receiver(), &bytes[64..], target).unwrap_err();
        let expected = UsageError::TargetPageSize { channel: PageSize::Kib4, given };
        assert!(matches!(refused.kind(), ErrorKind::Usage(it) if *it == expected), "{refused}");
    }
}

#[test]
fn a_private_method_in_place_is_held_to_the_size_of_its_pages() {
    /// Method none under a private value.
    #[derive(Debug)]
    struct Private;

    #[multifd_core::async_trait]
    impl MultiFdMethods for Private {
        fn descriptor(&self) -> MethodDescriptor {
            let value = const { PrivateMethod::new(0x0e).unwrap() };
            MethodDescriptor::new("private", "a test's", Compression::Private(value))
        }

        fn probe(&self) -> Availability {
            Plain.probe()
        }

        async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
            Plain.send_setup(config).await
        }

        async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
            Plain.recv_setup(config).await
        }
    }

    let mut bytes = stream();
    bytes[64 + 11] |= 0x0e;
    for (payload, refused) in [(96 * 4096, false), (96 * 4096 - 1, true), (1, true)] {
        bytes[64 + 20..][..4].copy_from_slice(&u32::to_be_bytes(payload));
        let mut channel =
            block_on(RecvMachine::new(&Private, 3, PageSize::Kib4, Arc::default())).unwrap();
        let placed = place(&mut channel, &bytes[64..], Target::Ram(ram()));
        assert_eq!(placed.is_err(), refused, "{payload}: {placed:?}");
        if let Err(error) = placed {
            assert!(matches!(error.kind(), ErrorKind::Peer(PeerError::Payload { .. })), "{error}");
        }
    }
}

/// A codec that makes nothing of any page, and does not let go at its end.
#[derive(Debug)]
struct Failing;

#[multifd_core::async_trait]
impl MultiFdMethods for Failing {
    fn descriptor(&self) -> MethodDescriptor {
        MethodDescriptor::new("failing", "a test's", Compression::Zstd)
    }

    fn probe(&self) -> Availability {
        Plain.probe()
    }

    async fn send_setup(&self, _: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Ok(Box::new(Failing))
    }

    async fn recv_setup(&self, _: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Ok(Box::new(Failing))
    }
}

#[multifd_core::async_trait]
impl SendMethod for Failing {
    async fn send_prepare(&mut self, _: &NormalPages<'_>, _: &mut Payload) -> Result<(), Error> {
        Ok(())
    }

    async fn send_cleanup(self: Box<Self>) -> Result<(), Error> {
        Err(Error::backend("it does not let go"))
    }
}

#[multifd_core::async_trait]
impl RecvMethod for Failing {
    async fn recv(&mut self, _: &[u8], _: GuestPages<'_>) -> Result<(), Error> {
        panic!("nothing is received")
    }

    async fn recv_cleanup(self: Box<Self>) -> Result<(), Error> {
        Err(Error::backend("it does not let go"))
    }
}

fn failing_sender() -> SendMachine {
    let config = SendConfig::new(ChannelConfig::new(3, PageSize::Kib4, 0));
    block_on(SendMachine::new(&Failing, config)).unwrap()
}

#[test]
fn a_codec_that_fails_at_its_end_is_named_with_its_channel() {
    let sender = failing_sender();
    let receiver = block_on(RecvMachine::new(&Failing, 3, PageSize::Kib4, Arc::default())).unwrap();
    for ended in [block_on(sender.finish()), block_on(receiver.finish())] {
        assert_eq!(ended.unwrap_err().to_string(), "channel 3, zstd: it does not let go");
    }
}

#[test]
fn a_payload_that_no_receiver_would_take_is_the_codecs_error_and_ends_the_channel() {
    let mut sender = failing_sender();
    block_on(memory::send(&mut sender, &mut Vec::new())).unwrap();
    sender.pages(batches(&guest()).swap_remove(0)).unwrap();
    let refused = block_on(sender.encode()).unwrap_err();
    let said = "channel 3, packet 0, zstd: the codec made a payload of 0 bytes, not of ";
    assert!(refused.to_string().starts_with(said), "{refused}");
    let again = block_on(sender.encode()).unwrap_err();
    assert!(matches!(again.kind(), ErrorKind::Usage(UsageError::ChannelFailed)), "{again}");
}

#[test]
fn zero_pages_are_written_over_what_the_memory_held() {
    let destination = ram();
    destination.blocks()[0].write(0, &vec![0xff; PAGES as usize * 4096]);
    receive(&stream(), &destination).unwrap();
    assert!(content(&destination) == content(&guest()));
}

#[test]
fn a_channel_that_does_not_look_for_zero_pages_sends_them_whole_under_the_numbers_of_all() {
    let packet_num = Arc::new(std::sync::atomic::AtomicU64::new(7));
    let config = SendConfig::new(ChannelConfig::new(3, PageSize::Kib4, 0))
        .with_detect_zero_pages(false)
        .with_packet_num(Arc::clone(&packet_num));
    let (mut channel, mut out) = (block_on(SendMachine::new(&Plain, config)).unwrap(), Vec::new());
    channel_idle(&mut channel, &mut out);
    channel.pages(batches(&ram()).swap_remove(0)).unwrap();
    channel_idle(&mut channel, &mut out);
    assert_eq!(out.len(), 64 + 1344 + 128 * 4096);
    assert_eq!(packet_num.load(std::sync::atomic::Ordering::Relaxed), 8);
}

fn channel_idle(channel: &mut SendMachine, out: &mut Vec<u8>) {
    block_on(memory::send(channel, out)).unwrap();
}

#[test]
fn pages_known_to_be_zero_are_offsets_alone_and_are_not_read_even_without_a_look_for_zero_pages() {
    /// Memory that must not be touched.
    #[derive(Debug)]
    struct Hole;

    impl BlockMemory for Hole {
        fn bytes(&self) -> u64 {
            PAGES * 4096
        }

        fn slice(&self, _: usize, _: usize) -> Option<VolatileSlice<'_>> {
            panic!("nobody reads a hole");
        }
    }

    let block = Arc::new(RamBlock::new(BlockName::new("pc.ram").unwrap(), Hole));
    let offsets: Vec<u64> = (0..128).map(|page| page * 4096).collect();
    let batch = PageBatch::new(block, PageSize::Kib4, offsets).unwrap().known_zero();
    let config = SendConfig::new(ChannelConfig::new(3, PageSize::Kib4, 0));
    let config = config.with_detect_zero_pages(false);
    let (mut channel, mut out) = (block_on(SendMachine::new(&Plain, config)).unwrap(), Vec::new());
    channel.pages(batch.clone()).unwrap_err();
    channel_idle(&mut channel, &mut out);
    channel.pages(batch).unwrap();
    channel_idle(&mut channel, &mut out);
    assert_eq!(out.len(), 64 + 1344);
    let packet = RamPacket::parse(&out[64..], PageSize::Kib4).unwrap();
    let pages = packet.pages.unwrap();
    assert_eq!((pages.normal.len(), pages.zero.len()), (0, 128));
    assert_eq!(pages.zero[127].get(), 127 * 4096);
}

/// The number of normal and of zero pages in each packet behind the initial packet, of a method whose
/// payload is the pages, and that none of the payload is anything but zero.
fn packets_of_zeros(mut bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut packets = Vec::new();
    bytes = &bytes[64..];
    while !bytes.is_empty() {
        let packet = RamPacket::parse(&bytes[..1344], PageSize::Kib4).unwrap();
        let counts = packet.pages.map_or((0, 0), |pages| (pages.normal.len(), pages.zero.len()));
        let (payload, rest) = bytes[1344..].split_at(counts.0 * 4096);
        assert!(payload.iter().all(|&byte| byte == 0));
        packets.push(counts);
        bytes = rest;
    }
    packets
}

#[test]
fn a_page_that_any_channel_has_sent_with_data_is_not_sent_as_zero_where_it_must_not_be() {
    let guest = ram();
    let block = guest.blocks()[0].name();
    let sent = Arc::new(SentPages::new());
    sent.note(block, &[0, 7 * 4096, 200 * 4096]);
    let config = SendConfig::new(ChannelConfig::new(3, PageSize::Kib4, 0));
    for detect in [true, false] {
        let config = config.clone().with_sent_pages(Some(Arc::clone(&sent)));
        let config = config.with_detect_zero_pages(detect);
        let mut channel = block_on(SendMachine::new(&Plain, config)).unwrap();
        let mut out = Vec::new();
        channel_idle(&mut channel, &mut out);
        if detect {
            channel.pages(batches(&guest).swap_remove(0)).unwrap();
            channel_idle(&mut channel, &mut out);
        }
        for batch in batches(&guest) {
            channel.pages(batch.known_zero()).unwrap();
            channel_idle(&mut channel, &mut out);
        }
        let known = [(2, 126), (1, 127), (0, 44)];
        let scanned = [(2, 126)];
        let expected = if detect { &[&scanned[..], &known].concat()[..] } else { &known };
        assert_eq!(packets_of_zeros(&out), expected);
    }
    // Without such a note, nothing is remembered.
    let mut channel = block_on(SendMachine::new(&Plain, config)).unwrap();
    let mut out = Vec::new();
    channel_idle(&mut channel, &mut out);
    channel.pages(batches(&guest).swap_remove(0)).unwrap();
    channel_idle(&mut channel, &mut out);
    assert_eq!(packets_of_zeros(&out), [(0, 128)]);
}

#[test]
fn a_page_known_to_be_zero_that_must_be_sent_with_data_is_not_read_for_a_codec_that_gets_copies() {
    let guest = ram();
    guest.blocks()[0].write(0, &[1; 128 * 4096]);
    let config = SendConfig::new(ChannelConfig::new(3, PageSize::Kib4, 0));
    let config = config.with_sent_pages(Some(Arc::new(SentPages::new())));
    // Who notes hashes works on copies.
    let config = config.with_digests(Some(Arc::new(RamDigests::new(&guest))));
    let (mut channel, mut out) = (block_on(SendMachine::new(&Plain, config)).unwrap(), Vec::new());
    channel_idle(&mut channel, &mut out);
    let batch = batches(&guest).swap_remove(0);
    channel.pages(batch.clone()).unwrap();
    channel_idle(&mut channel, &mut out);
    out.truncate(64);
    channel.pages(batch.known_zero()).unwrap();
    channel_idle(&mut channel, &mut out);
    assert_eq!(packets_of_zeros(&out), [(128, 0)]);
}

#[test]
fn a_page_that_a_buffer_has_as_zero_is_sent_with_data_where_it_must_be() {
    let sent = Arc::new(SentPages::new());
    let config = SendConfig::new(ChannelConfig::new(3, PageSize::Kib4, 0));
    let config = config.with_sent_pages(Some(Arc::clone(&sent)));
    let mut to = block_on(SendMachine::new(&Plain, config)).unwrap();
    let mut out = Vec::new();
    channel_idle(&mut to, &mut out);
    // Every fourth page zero; then all.
    for guest in [guest(), ram()] {
        let mut spare = Some(PacketBuffer::new(PageSize::Kib4).unwrap());
        let stream = send(&guest);
        let mut bytes = &stream[..];
        open(&mut bytes).unwrap();
        let mut from = receiver();
        loop {
            match from.next().unwrap() {
                RecvNext::Read(room) => {
                    let count = room.len().min(bytes.len());
                    room[..count].copy_from_slice(&bytes[..count]);
                    bytes = &bytes[count..];
                    from.filled(count).unwrap();
                }
                RecvNext::ReadGuest(room) => {
                    let count = room.copy_from(bytes);
                    bytes = &bytes[count..];
                    from.filled(count).unwrap();
                }
                RecvNext::Admit(_) => {
                    from.place(Target::Buffer(spare.take().unwrap())).unwrap();
                }
                RecvNext::Decode => block_on(from.decode()).unwrap(),
                RecvNext::Received(Received::End) => break,
                RecvNext::Received(_) => {
                    to.buffer(from.take_buffer().unwrap()).unwrap();
                    channel_idle(&mut to, &mut out);
                    spare = to.take_buffer();
                }
            }
        }
    }
    let mut rest = &out[64..];
    for (normal, zero) in [(96, 32), (96, 32), (33, 11), (96, 32), (96, 32), (33, 11)] {
        let packet = RamPacket::parse(&rest[..1344], PageSize::Kib4).unwrap();
        let pages = packet.pages.unwrap();
        assert_eq!((pages.normal.len(), pages.zero.len()), (normal, zero));
        assert!(pages.zero.iter().all(|offset| offset.get() % (4 * 4096) == 0));
        let first_round = rest.len() > out.len() / 2;
        let (payload, behind) = rest[1344..].split_at(normal * 4096);
        assert_eq!(payload.iter().all(|&byte| byte == 0), !first_round);
        rest = behind;
    }
    assert!(rest.is_empty());
}
