//! Recordings of real QEMUs decode to the RAM that was sent.

use std::fmt::Write;
use std::sync::Arc;

use multifd_core::PageSize;
use multifd_core::channel::Received;
use multifd_core::ram::{Ram, RamBlock};
use multifd_core::wire::{BlockName, InitialPacket};
use sha2::{Digest, Sha256};

use crate::harness::{Context, Stop, Subject, Verdict, ensure, zeros};
use crate::recording::{Recording, recordings};

pub(crate) fn recordings_of_qemu_7_2_decode_to_the_ram_that_was_sent(subject: &Subject) -> Verdict {
    decode_all(subject, "7.", usize::MAX)
}

pub(crate) fn recordings_of_qemu_10_decode_to_the_ram_that_was_sent(subject: &Subject) -> Verdict {
    decode_all(subject, "10.", usize::MAX)
}

pub(crate) fn a_recording_that_arrives_in_pieces_decodes_to_the_same_ram(
    subject: &Subject,
) -> Verdict {
    decode_all(subject, "10.", 1)?;
    decode_all(subject, "10.", 1009)
}

/// Decodes every recording for the codec by QEMUs of `version`, whose channels arrive in pieces of
/// `piece` bytes.
fn decode_all(subject: &Subject, version: &str, piece: usize) -> Verdict {
    let compression = subject.compression();
    let all: Vec<_> = recordings()
        .iter()
        .filter(|recording| {
            recording.compression == compression && recording.qemu.starts_with(version)
        })
        .collect();
    if all.is_empty() {
        let reason = format!("no recordings of {compression} by QEMU {version}x");
        return Err(Stop::not_applicable(reason));
    }
    all.into_iter().try_for_each(|recording| {
        decode(subject, recording, piece).context(|| format!("recording '{}'", recording.name))
    })
}

fn decode(subject: &Subject, recording: &Recording, piece: usize) -> Verdict {
    let ram = ram_of(recording)?;
    for (number, stream) in recording.channels.iter().enumerate() {
        // One after the other: a paused guest's pages are sent once, so no SYNC orders them.
        decode_channel(subject, stream, piece, &ram).context(|| format!("channel {number}"))?;
    }
    let digest = sha256(&ram, recording.ram_block)?;
    let expected = recording.ram_sha256;
    ensure!(digest == expected, "the RAM has the SHA-256 {digest}, sent was {expected}");
    Ok(())
}

fn decode_channel(subject: &Subject, stream: &[u8], piece: usize, ram: &Arc<Ram>) -> Verdict {
    let (initial, mut packets) = stream.split_first_chunk().ok_or_else(|| Stop::failed("empty"))?;
    let initial = InitialPacket::parse(initial).map_err(|error| Stop::failed(error.to_string()))?;
    let mut receiver = subject.receiver(ram, initial.channel)?;
    receiver.piece = piece;
    loop {
        match receiver.try_receive(&mut packets)? {
            Ok(Received::End) => break,
            Ok(_) => {}
            Err(error) => return Err(Stop::failed(error.to_string())),
        }
    }
    receiver.finish().map(drop)
}

/// Fresh memory for every block: what the main channel says is zero stays so.
fn ram_of(recording: &Recording) -> Verdict<Arc<Ram>> {
    let failed = |error: multifd_core::UsageError| Stop::failed(error.to_string());
    let blocks = recording.blocks().into_iter().map(|(name, bytes)| {
        let name = BlockName::new(&name).map_err(failed)?;
        Ok(RamBlock::new(name, zeros(bytes as usize)?).fresh())
    });
    let blocks: Vec<_> = blocks.collect::<Verdict<_>>()?;
    Ok(Arc::new(Ram::new(PageSize::Kib4, blocks).map_err(failed)?))
}

fn sha256(ram: &Ram, block: &str) -> Verdict<String> {
    let block = ram.block(block).ok_or_else(|| Stop::failed(format!("no block {block}")))?;
    let mut content = vec![0; block.bytes() as usize];
    block.slice(0, content.len()).copy_to(&mut content[..]);
    let mut text = String::new();
    for byte in Sha256::digest(&content) {
        _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
