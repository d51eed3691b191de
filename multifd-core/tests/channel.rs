//! One channel's loop with method none, over every kind of stream.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use multifd_core::channel::{
    PacketBuffer, Received, RecvChannel, SendChannel, SendConfig, read_initial,
};
use multifd_core::io::{Blocking, ChannelReader, ChannelWriter};
use multifd_core::ram::{PageBatch, Ram, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::{BlockName, DeviceStatePacket, InitialPacket, Uuid};
use multifd_core::{Compression, Error, ErrorKind, PageSize, PeerError, UsageError, none};
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

async fn send<W: ChannelWriter>(writer: W, ram: &Ram) -> Result<W, Error> {
    let config = SendConfig {
        channel: none::DESCRIPTOR.config(3, PageSize::Kib4, None)?,
        uuid: Uuid([9; 16]),
        detect_zero_pages: true,
        packet_num: Arc::default(),
        counters: Arc::default(),
    };
    let mut channel = SendChannel::open(writer, none::DESCRIPTOR.methods, config).await?;
    let offsets: Vec<u64> = (0..PAGES).map(|page| page * 4096).collect();
    for offsets in offsets.chunks(128) {
        let batch = PageBatch::new(Arc::clone(&ram.blocks()[0]), PageSize::Kib4, offsets.to_vec())?;
        channel.send_pages(&batch).await?;
    }
    channel.send_sync().await?;
    Ok(channel.finish().await?.0)
}

/// Takes a channel in. Returns how often each thing came: pages, syncs.
async fn receive<R: ChannelReader>(mut reader: R, ram: &Arc<Ram>) -> Result<[u32; 2], Error> {
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).await.map_err(Error::reading)?;
    let initial = read_initial(magic, &mut reader).await?;
    assert_eq!(initial, InitialPacket { uuid: Uuid([9; 16]), channel: 3 });
    let methods = none::DESCRIPTOR.methods;
    let mut channel = RecvChannel::new(reader, methods, 3, Arc::clone(ram), Arc::default()).await?;
    let mut counts = [0; 2];
    loop {
        match channel.next().await? {
            Received::Pages => counts[0] += 1,
            Received::Sync => counts[1] += 1,
            Received::End => return Ok(counts),
        }
    }
}

fn stream() -> Vec<u8> {
    block_on(send(Blocking::new(Vec::new()), &guest())).unwrap().into_inner()
}

fn receive_bytes(bytes: &[u8]) -> Result<[u32; 2], Error> {
    block_on(receive(Blocking::new(bytes), &ram()))
}

fn peer_error(bytes: &[u8]) -> (PeerError, Error) {
    let error = receive_bytes(bytes).expect_err("the stream is wrong");
    match error.kind() {
        ErrorKind::Peer(peer) => (peer.clone(), error),
        other => panic!("not the peer's fault: {other}"),
    }
}

#[test]
fn memory_carries_a_channel() {
    let (source, destination) = (guest(), ram());
    let stream = block_on(send(Blocking::new(Vec::new()), &source)).unwrap().into_inner();
    let counts = block_on(receive(Blocking::new(&stream[..]), &destination)).unwrap();
    assert_eq!(counts, [3, 1]);
    assert!(content(&source) == content(&destination));
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn tokios_streams_carry_a_channel() {
    use multifd_core::io::Tokio;

    let (source, destination) = (guest(), ram());
    // A pipe smaller than a packet: both loops have to take turns on one thread.
    let (left, right) = tokio::io::duplex(1000);
    let (sent, received) = tokio::join!(
        // The writer is dropped when it is done, which ends the stream.
        async { send(Tokio::new(left), &source).await.map(drop) },
        receive(Tokio::new(right), &destination)
    );
    sent.unwrap();
    assert_eq!(received.unwrap(), [3, 1]);
    assert!(content(&source) == content(&destination));
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
        let result = receive_bytes(&stream[..at]);
        if packets.contains(&at) {
            result.unwrap();
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
    assert_eq!(receive_bytes(&bytes).unwrap(), [2, 2]);
}

#[test]
fn two_channels_that_write_the_same_pages_do_not_disturb_each_other() {
    let destination = ram();
    let stream = stream();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20 {
                    block_on(receive(Blocking::new(&stream[..]), &destination)).unwrap();
                }
            });
        }
    });
    assert!(content(&destination) == content(&guest()));
}

/// Takes a channel in and sends it on, without RAM.
async fn relay(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut reader = Blocking::new(bytes);
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).await.map_err(Error::reading)?;
    read_initial(magic, &mut reader).await?;
    let (methods, no_ram) = (none::DESCRIPTOR.methods, Arc::new(Ram::new(PageSize::Kib4, [])?));
    let mut from = RecvChannel::new(reader, methods, 3, no_ram, Arc::default()).await?;
    let config = SendConfig {
        channel: none::DESCRIPTOR.config(3, PageSize::Kib4, None)?,
        uuid: Uuid([9; 16]),
        // Nothing is looked for in what comes as it is.
        detect_zero_pages: true,
        packet_num: Arc::default(),
        counters: Arc::default(),
    };
    let mut to = SendChannel::open(Blocking::new(Vec::new()), methods, config).await?;
    let mut buffer = PacketBuffer::new(PageSize::Kib4)?;
    loop {
        let received = from.next_into(&mut buffer, |_| Ok::<_, Error>(())).await?;
        to.send_buffer(&buffer).await?;
        match received {
            Received::Pages => assert!(!buffer.is_empty()),
            Received::Sync => {
                assert!(buffer.is_empty(), "what the packet before held is gone");
                to.send_sync().await?;
            }
            Received::End => return Ok(to.finish().await?.0.into_inner()),
        }
    }
}

#[test]
fn a_channel_goes_through_buffers_byte_for_byte_without_any_ram() {
    let bytes = stream();
    assert!(block_on(relay(&bytes)).unwrap() == bytes);
    let received = ram();
    block_on(receive(Blocking::new(&block_on(relay(&bytes)).unwrap()[..]), &received)).unwrap();
    assert!(content(&received) == content(&guest()));
}

#[test]
fn a_normal_page_that_is_zero_stays_one_in_a_buffer() {
    // The first page's content, behind the initial packet and the first header, made all zero.
    let mut bytes = stream();
    bytes[64 + 1344..64 + 1344 + 4096].fill(0);
    assert!(block_on(relay(&bytes)).unwrap() == bytes);
}

#[test]
fn a_packet_that_is_refused_leaves_no_page_in_the_buffer() {
    let bytes = stream();
    let no_ram = Arc::new(Ram::new(PageSize::Kib4, []).unwrap());
    let reader = Blocking::new(&bytes[64..64 + 1344 + 5000]);
    let channel = RecvChannel::new(reader, none::DESCRIPTOR.methods, 3, no_ram, Arc::default());
    let mut channel = block_on(channel).unwrap();
    let mut buffer = PacketBuffer::new(PageSize::Kib4).unwrap();
    let error = block_on(channel.next_into(&mut buffer, |_| Ok::<_, Error>(()))).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Peer(PeerError::Truncated)), "{error}");
    assert!(buffer.is_empty());
}
