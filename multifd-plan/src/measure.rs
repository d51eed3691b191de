//! How well and how fast a codec compresses a sample on this machine.

use std::time::Duration;

use multifd_core::ram::{GuestPages, RamBlock};
use multifd_core::{Error as CodecError, MultiFdMethods, PageSize, Payload};
use pollster::block_on;
use rustix::time::{ClockId, clock_gettime};

use crate::codec::CodecSpeed;
use crate::error::Error;
use crate::parameters::Speed;
use crate::sample::{Packet, Sample, anonymous};
use crate::workload::{PAGE, Shape, Workload};

/// How often each side runs. The fastest run counts: its caches are warm.
const REPETITIONS: u32 = 2;

/// What a codec makes of a sample.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Measured {
    /// CPU speeds of this machine; `None` if all sampled pages are zero.
    pub speed: Option<CodecSpeed>,
    shapes: Vec<Shape>,
}

impl Measured {
    /// Memory of `pages` pages, made of the sampled packets as the codec compressed them.
    pub fn workload(&self, pages: u64) -> Workload {
        Workload::new(pages, self.shapes.clone())
    }
}

/// Runs both sides of `codec` on the sample, on one core.
///
/// # Errors
/// The codec does not have that level, is not available or fails, or there is not enough memory to
/// decompress into.
pub fn measure(
    codec: &dyn MultiFdMethods,
    level: Option<i32>,
    sample: &Sample,
) -> Result<Measured, Error> {
    let failed = |source| Error::Codec { codec: codec.name(), source };
    let packets = sample.packets();
    let mut sent = Sent { payloads: Vec::new(), time: Duration::MAX };
    for _ in 0..REPETITIONS {
        let again = block_on(send(codec, level, &packets)).map_err(failed)?;
        sent = Sent { time: sent.time.min(again.time), ..again };
    }
    let block = anonymous("destination", sample.block().bytes())?;
    let mut received = Duration::MAX;
    for _ in 0..REPETITIONS {
        let again = block_on(receive(codec, &packets, &sent.payloads, &block));
        received = received.min(again.map_err(failed)?);
    }
    let shapes: Vec<_> = packets.iter().zip(&sent.payloads).map(shape).collect();
    let normal: u64 = shapes.iter().map(|shape| shape.normal).sum();
    let speed = |time: Duration| {
        Speed::nearest((normal * PAGE as u64) as f64 / time.as_secs_f64().max(1e-9))
    };
    let speed = CodecSpeed::new(speed(sent.time), speed(received));
    Ok(Measured { shapes, speed: (normal > 0).then_some(speed) })
}

fn shape((packet, payload): (&Packet<'_>, &Vec<u8>)) -> Shape {
    let normal = packet.normal.map_or(0, |pages| pages.len() as u64);
    Shape { normal, zero: packet.zero, payload: payload.len() as u64 }
}

struct Sent {
    /// One for each packet, empty for a packet without normal pages.
    payloads: Vec<Vec<u8>>,
    /// The codec's CPU time for all packets.
    time: Duration,
}

async fn send(
    codec: &dyn MultiFdMethods,
    level: Option<i32>,
    packets: &[Packet<'_>],
) -> Result<Sent, CodecError> {
    let config = codec.descriptor().config(0, PageSize::Kib4, level)?;
    let mut method = codec.send_setup(&config).await?;
    let mut payload = Payload::new();
    let mut sent = Sent { payloads: Vec::new(), time: Duration::ZERO };
    for packet in packets {
        let mut bytes = Vec::new();
        if let Some(pages) = packet.normal {
            payload.clear();
            let started = cpu_time();
            method.send_prepare(&pages, &mut payload).await?;
            sent.time += cpu_time().saturating_sub(started);
            bytes = payload.to_vec(&pages);
        }
        sent.payloads.push(bytes);
    }
    Ok(sent)
}

/// Decompresses all payloads into `block`. Returns the codec's CPU time.
async fn receive(
    codec: &dyn MultiFdMethods,
    packets: &[Packet<'_>],
    payloads: &[Vec<u8>],
    block: &RamBlock,
) -> Result<Duration, CodecError> {
    let config = codec.descriptor().config(0, PageSize::Kib4, None)?;
    let mut method = codec.recv_setup(&config).await?;
    let mut time = Duration::ZERO;
    for (packet, payload) in packets.iter().zip(payloads) {
        let Some(pages) = packet.normal else { continue };
        let pages = GuestPages::new(block, PageSize::Kib4, pages.guest().offsets())?;
        let started = cpu_time();
        method.recv(payload, pages).await?;
        time += cpu_time().saturating_sub(started);
    }
    Ok(time)
}

/// CPU time of this thread. It does not grow while other programs have the core.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use multifd_core::Registry;
    use {multifd_qatzip as _, multifd_uadk as _, multifd_zlib as _, multifd_zstd as _};

    use super::*;

    #[test]
    fn every_linked_codec_is_measured_on_the_whole_sample() {
        let fill = |offset: u64, pages: &mut [u8]| {
            for (at, page) in pages.chunks_mut(PAGE).enumerate().filter(|(at, _)| at % 3 > 0) {
                page.fill(at as u8 | 1);
                page[..8].copy_from_slice(&offset.to_le_bytes());
            }
        };
        let sample = Sample::of_pages(4 << 20, 8, 1, fill).unwrap();
        for codec in Registry::collected().unwrap().iter() {
            let measured = measure(&**codec, None, &sample).unwrap();
            let pages: u64 = measured.shapes.iter().map(|shape| shape.pages()).sum();
            assert_eq!(pages, 1024, "{}", codec.name());
            let normal: u64 = measured.shapes.iter().map(|shape| shape.normal).sum();
            let payload: u64 = measured.shapes.iter().map(|shape| shape.payload).sum();
            assert!(payload > 0 && payload <= normal * PAGE as u64, "{}", codec.name());
            assert!(measured.speed.unwrap().compress > Speed::MIN, "{}", codec.name());
        }
    }
}
