//! The symbols of blocks.

use super::bits::Bits;
use super::code::{DISTANCE_BITS, Entry, LITLEN_BITS};
use super::header::Codes;
use super::lane::Lane;

/// Why no more symbols can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    BlockEnds,
    Malformed,
    /// The page is full.
    Long,
}

/// Goes on to the end of the lane's block.
pub(super) fn alone(lane: &mut Lane, window: usize) -> Stop {
    let mut output = std::mem::take(&mut lane.output);
    let (mut bits, mut made) = (lane.bits, lane.made);
    let codes = lane.codes();
    let stop = loop {
        if let Err(stop) = step(&mut bits, &lane.input, &mut output, &mut made, codes, window) {
            break stop;
        }
    };
    (lane.bits, lane.made, lane.output) = (bits, made, output);
    stop
}

/// Goes on with both in turns, until one stops. Says which.
#[inline(never)]
pub(super) fn both(lanes: [&mut Lane; 2], window: usize) -> [Option<Stop>; 2] {
    let [one, other] = lanes;
    let mut outputs = [std::mem::take(&mut one.output), std::mem::take(&mut other.output)];
    let [one_output, other_output] = &mut outputs;
    let (mut one_bits, mut one_made) = (one.bits, one.made);
    let (mut other_bits, mut other_made) = (other.bits, other.made);
    let (one_codes, other_codes) = (one.codes(), other.codes());
    let stops = loop {
        let on = step(&mut one_bits, &one.input, one_output, &mut one_made, one_codes, window);
        if let Err(stop) = on {
            break [Some(stop), None];
        }
        let on =
            step(&mut other_bits, &other.input, other_output, &mut other_made, other_codes, window);
        if let Err(stop) = on {
            break [None, Some(stop)];
        }
    };
    (one.bits, one.made) = (one_bits, one_made);
    (other.bits, other.made) = (other_bits, other_made);
    [one.output, other.output] = outputs;
    stops
}

/// Decodes up to four bytes, or up to three and a match. Stops where it cannot.
///
/// Nothing is behind the page and its margin, nor behind the input and its padding: what would be is an error. That
/// is what the bounds of both are checked for, and no other check is needed until the end.
#[inline(always)]
fn step(
    bits: &mut Bits,
    input: &[u8],
    output: &mut [u8],
    made: &mut usize,
    codes: &Codes,
    window: usize,
) -> Result<(), Stop> {
    // Two bytes and a match up to its distance's code are there in any case, or four bytes.
    const { assert!(2 * LITLEN_BITS + LITLEN_BITS + 5 + DISTANCE_BITS <= Bits::REFILLED) };
    const { assert!(4 * LITLEN_BITS <= Bits::REFILLED) };
    refill(bits, input)?;
    let mut entry = codes.litlen.look::<LITLEN_BITS>(bits.held);
    if entry.is_literal() {
        push(bits, output, made, entry)?;
        entry = codes.litlen.look::<LITLEN_BITS>(bits.held);
        if entry.is_literal() {
            push(bits, output, made, entry)?;
            entry = codes.litlen.look::<LITLEN_BITS>(bits.held);
            if entry.is_literal() {
                push(bits, output, made, entry)?;
                entry = codes.litlen.look::<LITLEN_BITS>(bits.held);
                if entry.is_literal() {
                    push(bits, output, made, entry)?;
                    return Ok(());
                }
                refill(bits, input)?;
            }
        }
    }
    if entry.is_special() {
        if entry.is_long() {
            refill(bits, input)?;
            bits.skip(LITLEN_BITS);
            entry = codes.litlen.look_further(entry, bits.held);
            if entry.is_literal() {
                push(bits, output, made, entry)?;
                return Ok(());
            }
        }
        if entry.is_end() {
            bits.skip(entry.0);
            return Err(Stop::BlockEnds);
        }
        if entry.is_special() {
            return Err(Stop::Malformed);
        }
    }
    let length = entry.value(bits.held);
    bits.skip(entry.0);
    let distance = distance(bits, input, codes)?;
    if distance > window.min(*made) {
        return Err(Stop::Malformed);
    }
    copy(output, *made, distance, length)?;
    *made += length;
    Ok(())
}

#[inline(always)]
fn refill(bits: &mut Bits, input: &[u8]) -> Result<(), Stop> {
    bits.refill(input).map_err(|_| Stop::Malformed)
}

#[inline(always)]
fn push(bits: &mut Bits, output: &mut [u8], made: &mut usize, entry: Entry) -> Result<(), Stop> {
    bits.skip(entry.0);
    let Some(byte) = output.get_mut(*made) else { return Err(Stop::Long) };
    *byte = entry.byte();
    *made += 1;
    Ok(())
}

#[inline(always)]
fn distance(bits: &mut Bits, input: &[u8], codes: &Codes) -> Result<usize, Stop> {
    let mut entry = codes.distances.look::<DISTANCE_BITS>(bits.held);
    if entry.is_special() {
        if !entry.is_long() {
            return Err(Stop::Malformed);
        }
        refill(bits, input)?;
        bits.skip(DISTANCE_BITS);
        entry = codes.distances.look_further(entry, bits.held);
        if entry.is_special() {
            return Err(Stop::Malformed);
        }
    }
    if bits.count % 64 < entry.0 % 64 {
        refill(bits, input)?;
    }
    let distance = entry.value(bits.held);
    bits.skip(entry.0);
    Ok(distance)
}

/// Copies `length` bytes to `to` from `distance` before it, and some behind them.
#[inline(always)]
fn copy(output: &mut [u8], mut to: usize, mut distance: usize, length: usize) -> Result<(), Stop> {
    let end = to + length;
    while distance < BLOCK {
        // The first bytes of the block are right: as many as the distance. With them, what repeats is twice as long.
        copy_block(output, to - distance, to)?;
        to += distance;
        distance *= 2;
        if to >= end {
            return Ok(());
        }
    }
    loop {
        copy_block(output, to - distance, to)?;
        to += BLOCK;
        if to >= end {
            return Ok(());
        }
    }
}

/// Bytes that are copied at once.
const BLOCK: usize = 16;

#[inline(always)]
fn copy_block(output: &mut [u8], from: usize, to: usize) -> Result<(), Stop> {
    let block = output.get(from..).and_then(<[u8]>::first_chunk::<BLOCK>);
    let Some(&block) = block else { return Err(Stop::Long) };
    let place = output.get_mut(to..).and_then(<[u8]>::first_chunk_mut::<BLOCK>);
    let Some(place) = place else { return Err(Stop::Long) };
    *place = block;
    Ok(())
}
