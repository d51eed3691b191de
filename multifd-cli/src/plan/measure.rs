//! What a codec makes of a sample, and how fast, on this machine.

use std::time::Duration;

use multifd::core::io::{Blocking, ChannelWriter};
use multifd::core::ram::{GuestPages, RamBlock};
use multifd::core::wire::{BlockName, RamPacket, RamPacketBuilder};
use multifd::core::{Error, MethodDescriptor, PageSize, Payload};
use pollster::block_on;
use rustix::time::{ClockId, clock_gettime};

use super::parameters::CodecSpeed;
use super::sample::{Packet, Sample};
use super::workload::{PAGE, Shape};
use crate::failure::Failure;
use crate::mapping;

/// Each side runs so many times; the fastest counts, with the caches warm.
const REPETITIONS: u32 = 2;

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) shapes: Vec<Shape>,
    /// `None` without a page that is not zero.
    pub(super) speed: Option<CodecSpeed>,
}

/// Runs both sides of `codec` on the sample.
pub(super) fn measure(
    codec: &MethodDescriptor,
    level: Option<i32>,
    sample: &Sample,
) -> Result<Measured, Failure> {
    let failed = |error: Error| Failure::new(format!("{} fails: {error}", codec.name));
    let packets = sample.packets()?;
    let mut sent = Sent { payloads: Vec::new(), time: Duration::MAX };
    for _ in 0..REPETITIONS {
        let again = block_on(send(codec, level, &packets)).map_err(failed)?;
        sent = Sent { time: sent.time.min(again.time), ..again };
    }
    let memory = mapping::anonymous(sample.block().bytes()).map_err(Failure::new)?;
    let block = RamBlock::new(BlockName::new("destination")?, memory);
    let mut received = Duration::MAX;
    for _ in 0..REPETITIONS {
        let again = block_on(receive(codec, &packets, &sent.payloads, &block));
        received = received.min(again.map_err(failed)?);
    }
    let shapes: Vec<_> = packets.iter().zip(&sent.payloads).map(shape).collect();
    let normal: u64 = shapes.iter().map(|shape| shape.normal).sum();
    let speed = |time: Duration| (normal * PAGE as u64) as f64 / time.as_secs_f64().max(1e-9);
    let speed = CodecSpeed { compress: speed(sent.time), decompress: speed(received) };
    Ok(Measured { shapes, speed: (normal > 0).then_some(speed) })
}

fn shape((packet, payload): (&Packet<'_>, &Vec<u8>)) -> Shape {
    let normal = packet.normal.map_or(0, |pages| pages.len() as u64);
    Shape { normal, zero: packet.zero, payload: payload.len() as u64 }
}

struct Sent {
    /// One for each packet, empty where it has no normal pages.
    payloads: Vec<Vec<u8>>,
    /// The CPU time that the codec took for all.
    time: Duration,
}

async fn send(
    codec: &MethodDescriptor,
    level: Option<i32>,
    packets: &[Packet<'_>],
) -> Result<Sent, Error> {
    let config = codec.config(0, PageSize::Kib4, level)?;
    let mut method = codec.methods.send_setup(&config).await?;
    let mut payload = Payload::new();
    let mut sent = Sent { payloads: Vec::new(), time: Duration::ZERO };
    for packet in packets {
        let mut bytes = Blocking::new(Vec::new());
        if let Some(pages) = packet.normal {
            payload.clear();
            let started = cpu_time();
            method.send_prepare(&pages, &mut payload).await?;
            sent.time += cpu_time().saturating_sub(started);
            let parts: Vec<_> = payload.parts(&pages).collect();
            let kept = bytes.write_parts(&parts).await;
            kept.map_err(|error| Error::io("keeping a payload", error))?;
        }
        sent.payloads.push(bytes.into_inner());
    }
    Ok(sent)
}

/// The CPU time that the codec takes to restore the pages into `block`.
async fn receive(
    codec: &MethodDescriptor,
    packets: &[Packet<'_>],
    payloads: &[Vec<u8>],
    block: &RamBlock,
) -> Result<Duration, Error> {
    let config = codec.config(0, PageSize::Kib4, None)?;
    let mut method = codec.methods.recv_setup(&config).await?;
    let mut builder = RamPacketBuilder::new(PageSize::Kib4);
    let mut time = Duration::ZERO;
    for (packet, payload) in packets.iter().zip(payloads) {
        let Some(pages) = packet.normal else { continue };
        let offsets = pages.guest().offsets();
        let (name, length) = (block.name(), payload.len());
        let header = builder.pages(codec.compression(), 0, name, [offsets, &[]], length);
        let header = RamPacket::parse(header, PageSize::Kib4)?;
        let pages = GuestPages::new(block, PageSize::Kib4, offsets)?;
        let started = cpu_time();
        method.recv(&header, &mut Blocking::new(&payload[..]), pages).await?;
        time += cpu_time().saturating_sub(started);
    }
    Ok(time)
}

/// CPU time of this thread: what other programs take from it does not count.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registered_codec_restores_what_it_made_of_the_sample() {
        let sample = Sample::made_up(4 << 20, 8, 1).unwrap();
        for codec in multifd::registry().unwrap().iter() {
            let measured = measure(codec, None, &sample).unwrap();
            let pages: u64 = measured.shapes.iter().map(|shape| shape.pages()).sum();
            assert_eq!(pages, 1024, "{}", codec.name);
            let normal: u64 = measured.shapes.iter().map(|shape| shape.normal).sum();
            let payload: u64 = measured.shapes.iter().map(|shape| shape.payload).sum();
            assert!(payload > 0 && payload <= normal * PAGE as u64, "{}", codec.name);
            assert!(measured.speed.unwrap().compress > 1e6, "{}", codec.name);
        }
    }
}
