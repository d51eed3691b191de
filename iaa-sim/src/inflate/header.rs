//! A block's header, RFC 1951, 3.2.3 to 3.2.7.

use super::huffman::{Found, Huffman, Tables};
use crate::bits::BitReader;
use crate::status::DataError;

/// A header that has been read, with `last` from the bit BFINAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Stored {
        last: bool,
        bytes: u16,
    },
    Fixed {
        last: bool,
    },
    /// Its codes are in the tables.
    Dynamic {
        last: bool,
    },
}

/// In which order the lengths of the code lengths' code are sent.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Reads a header; nothing when the input ends within it. The tables may have changed then.
pub(super) fn read(
    reader: &mut BitReader<'_>,
    tables: &mut Tables,
) -> Result<Option<Header>, DataError> {
    let Some(start) = reader.take(3) else { return Ok(None) };
    let last = start & 1 == 1;
    match start >> 1 {
        0 => stored(reader, last),
        1 => Ok(Some(Header::Fixed { last })),
        2 => Ok(dynamic(reader, tables)?.map(|()| Header::Dynamic { last })),
        _ => Err(DataError::BadBlockType),
    }
}

fn stored(reader: &mut BitReader<'_>, last: bool) -> Result<Option<Header>, DataError> {
    reader.align();
    match reader.take(32) {
        None => Ok(None),
        Some(lengths) if lengths as u16 == !(lengths >> 16) as u16 => {
            Ok(Some(Header::Stored { last, bytes: lengths as u16 }))
        }
        Some(_) => Err(DataError::BadStoredLength),
    }
}

fn dynamic(reader: &mut BitReader<'_>, tables: &mut Tables) -> Result<Option<()>, DataError> {
    let Some(counts) = reader.take(14) else { return Ok(None) };
    let literals = 257 + (counts & 31) as usize;
    let distances = 1 + (counts >> 5 & 31) as usize;
    if literals > 286 {
        return Err(DataError::TooManyLiteralCodes);
    }
    if distances > 30 {
        return Err(DataError::TooManyDistanceCodes);
    }
    let Some(code) = length_code(reader, 4 + (counts >> 10) as usize)? else { return Ok(None) };
    let mut lengths = [0; 286 + 30];
    let (literals, distances) = lengths[..literals + distances].split_at_mut(literals);
    if code_lengths(reader, &code, literals, OF_LITERALS)?.is_none()
        || code_lengths(reader, &code, distances, OF_DISTANCES)?.is_none()
    {
        return Ok(None);
    }
    if literals.iter().all(|length| *length == 0) {
        return Err(DataError::NoLiteralCodes);
    }
    tables.literals.assign(literals).map_err(|_| DataError::BadLiteralLengths)?;
    tables.distances.assign(distances).map_err(|_| DataError::BadDistanceLengths)?;
    Ok(Some(()))
}

fn length_code(
    reader: &mut BitReader<'_>,
    count: usize,
) -> Result<Option<Huffman<128>>, DataError> {
    let mut lengths = [0; 19];
    for symbol in &ORDER[..count] {
        let Some(length) = reader.take(3) else { return Ok(None) };
        lengths[*symbol] = length as u8;
    }
    let mut code = Huffman::default();
    code.assign(&lengths).map_err(|_| DataError::BadCodeLengthLengths)?;
    Ok(Some(code))
}

/// What is wrong where the first length repeats one, and where there are too many.
type Wrong = (DataError, DataError);

const OF_LITERALS: Wrong = (DataError::FirstLiteralLengthRepeats, DataError::TooManyLiteralLengths);
const OF_DISTANCES: Wrong =
    (DataError::FirstDistanceLengthRepeats, DataError::TooManyDistanceLengths);

/// Reads the code lengths of one code. The device refuses a run that goes on from one code to the next,
/// which RFC 1951, 3.2.7, permits.
fn code_lengths(
    reader: &mut BitReader<'_>,
    code: &Huffman<128>,
    lengths: &mut [u8],
    (first_repeats, too_many): Wrong,
) -> Result<Option<()>, DataError> {
    let mut at = 0;
    while at < lengths.len() {
        reader.refill();
        let symbol = match code.find(reader.peek(), reader.held()) {
            Found::Symbol(symbol, bits) => {
                reader.drop(bits);
                symbol
            }
            // No word has more than 7 bits.
            Found::Short if reader.held() < 7 => return Ok(None),
            Found::Short | Found::Nothing => return Err(DataError::BadCodeLengthCode),
        };
        let (value, least, bits) = match symbol {
            0..16 => {
                lengths[at] = symbol as u8;
                at += 1;
                continue;
            }
            16 if at == 0 => return Err(first_repeats),
            16 => (lengths[at - 1], 3, 2),
            17 => (0, 3, 3),
            _ => (0, 11, 7),
        };
        let Some(more) = reader.take(bits) else { return Ok(None) };
        let run = least + more as usize;
        let Some(places) = lengths.get_mut(at..at + run) else {
            return Err(too_many);
        };
        places.fill(value);
        at += run;
    }
    Ok(Some(()))
}
