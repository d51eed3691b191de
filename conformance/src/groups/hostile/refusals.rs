//! Well-formed packets for somebody else.

use multifd_core::wire::{BlockName, RamPacketBuilder};
use multifd_core::{Compression, ErrorKind, PeerError, PrivateMethod};

use super::scene::{Attempt, CHANGED, PAGE_SIZE, Scene};
use crate::harness::{BLOCK, Context, Packet, Random, Stop, Subject, Verdict, offsets};

pub(crate) fn a_packet_of_another_codec_is_refused(subject: &Subject) -> Verdict {
    let scene = Scene::of_small_packets(subject)?;
    let own = subject.compression();
    let name = BlockName::new(BLOCK).map_err(|error| Stop::failed(error.to_string()))?;
    let private = [0x06, 0x3e].into_iter().filter_map(PrivateMethod::new);
    let others = Compression::QEMU.into_iter().chain(private.map(Compression::Private));
    for found in others.filter(|&other| other != own) {
        // As much payload as the other codec may well have for a page.
        let (_, most) = found.payload_bounds(1, PAGE_SIZE.bytes());
        let payload = Random::new(70).bytes(most.min(PAGE_SIZE.bytes()));
        let mut builder = RamPacketBuilder::new(PAGE_SIZE);
        let normal = offsets(PAGE_SIZE, [9]);
        let header = builder.pages(found, 5, &name, [&normal, &[]], payload.len()).to_vec();
        let attempt = scene.attempt_with(&Packet { header, payload })?;
        refused_as(&attempt, |error| *error == PeerError::Method { expected: own, found })
            .context(|| format!("a packet of {found}"))?;
    }
    Ok(())
}

pub(crate) fn a_packet_for_an_unknown_block_is_refused(subject: &Subject) -> Verdict {
    let scene = Scene::of_small_packets(subject)?;
    let mut packet = scene.packets[CHANGED].clone();
    packet.header[Packet::BLOCK..][..BLOCK.len()].copy_from_slice(b"pc.rom");
    refused_as(
        &scene.attempt_with(&packet)?,
        |error| matches!(error, PeerError::UnknownBlock { name } if name == "pc.rom"),
    )
}

pub(crate) fn an_offset_past_the_end_of_the_block_is_refused(subject: &Subject) -> Verdict {
    let scene = Scene::of_small_packets(subject)?;
    let end = offsets(PAGE_SIZE, [16])[0];
    // The fourth slot is that of the zero page.
    for slot in 0..4 {
        for offset in [end, end << 20, 1 << 63, u64::MAX - (PAGE_SIZE.bytes() as u64 - 1)] {
            let mut packet = scene.packets[CHANGED].clone();
            packet.header[Packet::OFFSETS + 8 * slot..][..8].copy_from_slice(&offset.to_be_bytes());
            scene
                .attempt_with(&packet)
                .and_then(|attempt| {
                    refused_as(&attempt, |error| {
                        matches!(error, PeerError::OffsetPastEnd { offset: found, .. } if *found == offset)
                    })
                })
                .context(|| format!("offset {offset:#x} in slot {slot}"))?;
        }
    }
    Ok(())
}

fn refused_as(attempt: &Attempt, expected: impl Fn(&PeerError) -> bool) -> Verdict {
    match attempt.error.as_ref().map(|error| (error, error.kind())) {
        Some((_, ErrorKind::Peer(peer))) if expected(peer) => Ok(()),
        Some((error, _)) => Err(Stop::failed(format!("refused for another reason: {error}"))),
        None => Err(Stop::failed("it was taken")),
    }
}
