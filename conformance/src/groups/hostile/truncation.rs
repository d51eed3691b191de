//! Streams and payloads that end too early.

use super::scene::{CHANGED, PAGE_SIZE, Scene};
use crate::harness::{Context, Part, Subject, Verdict, ensure};

pub(crate) fn a_packet_cut_short_at_any_byte_is_refused(subject: &Subject) -> Verdict {
    let scene = Scene::of_small_packets(subject)?;
    let packet = scene.packets[0].bytes();
    for bytes in 0..=packet.len() {
        let attempt = scene
            .attempt(&packet[..bytes])
            .context(|| format!("a stream of {bytes} bytes instead of {}", packet.len()))?;
        let at_a_border = bytes == 0 || bytes == packet.len();
        ensure!(
            attempt.error.is_none() == at_a_border,
            "after {bytes} of {} bytes of a packet, the stream ended with {:?}",
            packet.len(),
            attempt.error.map(|error| error.to_string())
        );
    }
    Ok(())
}

/// A payload of noise that lacks this many bytes lacks some of the noise: whatever ends a payload
/// in any format is shorter.
const LONGER_THAN_ANY_TRAILER: usize = 64;

pub(crate) fn a_payload_that_is_cut_short_is_refused(subject: &Subject) -> Verdict {
    let scene = Scene::of_noise(subject)?;
    cut_short(&scene, &scene.packets[CHANGED].whole())?;
    // Noise is not compressed, so there is no chunk for a codec.
    let scene = Scene::of_small_packets(subject)?;
    match scene.packets[CHANGED].chunk(PAGE_SIZE) {
        Some(chunk) => cut_short(&scene, &chunk),
        None => Ok(()),
    }
}

fn cut_short(scene: &Scene<'_>, part: &Part) -> Verdict {
    let packet = &scene.packets[CHANGED];
    let bytes = &packet.payload[part.range.clone()];
    let whole = bytes.len();
    let all = [1, 2, 3, 4, 5, 8, 16, LONGER_THAN_ANY_TRAILER, whole / 3, whole / 2, whole - 1];
    for missing in all.into_iter().filter(|missing| (1..whole).contains(missing)) {
        let cut = packet.with_part(part, &bytes[..whole - missing]);
        let place = || format!("{} without its last {missing} bytes", part.name);
        let attempt = scene.attempt_with(&cut).context(place)?;
        if missing >= LONGER_THAN_ANY_TRAILER {
            ensure!(attempt.refused_at_once(), "{} was taken", place());
        }
        if attempt.error.is_none() {
            scene.exact(&attempt).context(place)?;
        }
    }
    Ok(())
}
