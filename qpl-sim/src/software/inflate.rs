//! An inflate that says what is wrong with a stream as an engine does, and has no more history
//! than the window. Bit by bit, so it is slow: for pages above 4 KiB, and for streams that the
//! fast one has refused.

use qpl_sys::Status;

use super::WINDOW;

/// Inflates the stream that `input` begins with. Returns the bytes read and written.
pub(super) fn inflate(input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Status> {
    let mut inflate = Inflate { bits: Bits { input, at: 0 }, output, filled: 0 };
    loop {
        let is_final = inflate.bits.take(1)? == 1;
        match inflate.bits.take(2)? {
            0 => inflate.stored()?,
            1 => {
                let (literals, distances) = fixed_codes();
                inflate.compressed(&literals, &distances)?;
            }
            2 => {
                let (literals, distances) = dynamic_codes(&mut inflate.bits)?;
                inflate.compressed(&literals, &distances)?;
            }
            _ => return Err(Status::INVALID_BLOCK_TYPE),
        }
        if is_final {
            return Ok((inflate.bits.at.div_ceil(8), inflate.filled));
        }
    }
}

struct Inflate<'a> {
    bits: Bits<'a>,
    output: &'a mut [u8],
    filled: usize,
}

impl Inflate<'_> {
    fn stored(&mut self) -> Result<(), Status> {
        self.bits.at = self.bits.at.next_multiple_of(8);
        let length = self.bits.take(16)?;
        if self.bits.take(16)? != !length & 0xffff {
            return Err(Status::INVALID_STORED_LEN);
        }
        for _ in 0..length {
            let byte = self.bits.take(8)? as u8;
            self.push(byte)?;
        }
        Ok(())
    }

    fn compressed(&mut self, literals: &Codes, distances: &Codes) -> Result<(), Status> {
        loop {
            match literals.decode(&mut self.bits, Status::BAD_LL_CODE)? {
                byte @ 0..256 => self.push(byte as u8)?,
                256 => return Ok(()),
                symbol @ 257..286 => {
                    let (first, extra) = length(symbol - 257);
                    let length = first + self.bits.take(extra)?;
                    let symbol = distances.decode(&mut self.bits, Status::BAD_D_CODE)?;
                    if symbol >= 30 {
                        return Err(Status::BAD_D_CODE);
                    }
                    let (first, extra) = distance(symbol);
                    let distance = first + self.bits.take(extra)?;
                    self.copy(length as usize, distance as usize)?;
                }
                _ => return Err(Status::BAD_LL_CODE),
            }
        }
    }

    fn copy(&mut self, length: usize, distance: usize) -> Result<(), Status> {
        if distance > WINDOW {
            return Err(Status::BAD_DIST);
        }
        let from = self.filled.checked_sub(distance).ok_or(Status::REF_BEFORE_START)?;
        for at in from..from + length {
            self.push(self.output[at])?;
        }
        Ok(())
    }

    fn push(&mut self, byte: u8) -> Result<(), Status> {
        *self.output.get_mut(self.filled).ok_or(Status::MORE_OUTPUT_NEEDED)? = byte;
        self.filled += 1;
        Ok(())
    }
}

/// Bits of the input, from the lowest of each byte.
struct Bits<'a> {
    input: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Result<u32, Status> {
        let mut bits = 0;
        for place in 0..count {
            let byte = *self.input.get(self.at / 8).ok_or(Status::BAD_EOF)?;
            bits |= u32::from(byte >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Ok(bits)
    }
}

/// A canonical code.
struct Codes {
    /// Symbols that have a code of that many bits.
    counts: [u16; 16],
    /// Those symbols, by length of code and then by value.
    symbols: Vec<u16>,
}

impl Codes {
    /// The code in which each symbol has the length that `lengths` says. `None` if there are more
    /// codes than fit, or if some are missing, unless it is all but one.
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0; 16];
        for &length in lengths {
            counts[usize::from(length)] += 1;
        }
        counts[0] = 0;
        let mut left = 1_i32;
        for &count in &counts[1..] {
            left = 2 * left - i32::from(count);
            if left < 0 {
                return None;
            }
        }
        let mut symbols: Vec<_> = (0..lengths.len() as u16).collect();
        symbols.retain(|&symbol| lengths[usize::from(symbol)] > 0);
        symbols.sort_by_key(|&symbol| lengths[usize::from(symbol)]);
        (left == 0 || symbols.len() <= 1).then_some(Self { counts, symbols })
    }

    /// The next symbol; `undefined` where the bits are not a code.
    fn decode(&self, bits: &mut Bits, undefined: Status) -> Result<u32, Status> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for &count in &self.counts[1..] {
            let count = u32::from(count);
            code |= bits.take(1)?;
            if code < first + count {
                return Ok(self.symbols[(index + code - first) as usize].into());
            }
            (index, first, code) = (index + count, (first + count) << 1, code << 1);
        }
        Err(undefined)
    }
}

/// RFC 1951, 3.2.6.
fn fixed_codes() -> (Codes, Codes) {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    let literals = Codes::new(&lengths).expect("a complete code");
    (literals, Codes::new(&[5; 32]).expect("a complete code"))
}

/// RFC 1951, 3.2.7.
fn dynamic_codes(bits: &mut Bits) -> Result<(Codes, Codes), Status> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let literals = bits.take(5)? as usize + 257;
    let distances = bits.take(5)? as usize + 1;
    let codes = bits.take(4)? as usize + 4;
    if literals > 286 {
        return Err(Status::TOO_MANY_LL_CODES);
    }
    if distances > 30 {
        return Err(Status::TOO_MANY_D_CODES);
    }
    let mut lengths = [0; 19];
    for &symbol in &ORDER[..codes] {
        lengths[symbol] = bits.take(3)? as u8;
    }
    let codes = Codes::new(&lengths).ok_or(Status::BAD_CL_CODE_LEN)?;
    let lengths = code_lengths(bits, &codes, literals + distances)?;
    let (literals, distances) = lengths.split_at(literals);
    if literals[256] == 0 {
        return Err(Status::NO_LL_CODE);
    }
    Ok((
        Codes::new(literals).ok_or(Status::BAD_LL_CODE_LEN)?,
        Codes::new(distances).ok_or(Status::BAD_DIST_CODE_LEN)?,
    ))
}

fn code_lengths(bits: &mut Bits, codes: &Codes, count: usize) -> Result<Vec<u8>, Status> {
    let mut lengths = Vec::with_capacity(count);
    while lengths.len() < count {
        let (length, times) = match codes.decode(bits, Status::UNDEF_CL_CODE)? {
            16 => {
                let last = *lengths.last().ok_or(Status::FIRST_LL_CODE_16)?;
                (last, 3 + bits.take(2)?)
            }
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length as u8, 1),
        };
        lengths.extend((0..times).map(|_| length));
    }
    if lengths.len() == count { Ok(lengths) } else { Err(Status::WRONG_NUM_LL_CODES) }
}

/// The first length of a symbol, counted from 257, and its number of extra bits.
fn length(symbol: u32) -> (u32, u32) {
    match symbol {
        0..8 => (3 + symbol, 0),
        28 => (258, 0),
        _ => {
            let extra = symbol / 4 - 1;
            (3 + ((4 + symbol % 4) << extra), extra)
        }
    }
}

/// The first distance of a symbol, and its number of extra bits.
fn distance(symbol: u32) -> (u32, u32) {
    match symbol {
        0..4 => (1 + symbol, 0),
        _ => {
            let extra = symbol / 2 - 1;
            (1 + ((2 + symbol % 2) << extra), extra)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_by_status() {
        let cases: [(&[u8], Status); 8] = [
            (&[], Status::BAD_EOF),
            (&[0b111], Status::INVALID_BLOCK_TYPE),
            (&[1, 2, 0, 0, 0], Status::INVALID_STORED_LEN),
            (&[1, 2, 0, 0xfd, 0xff, 7], Status::BAD_EOF),
            // A dynamic block of 257 + 31 literal codes, and one of 31 distance codes.
            (&[0xfd, 0, 0], Status::TOO_MANY_LL_CODES),
            (&[5, 0x1e, 0], Status::TOO_MANY_D_CODES),
            // No code for code lengths but one that is not there.
            (&[5, 0, 0, 0, 0, 0, 0, 0], Status::UNDEF_CL_CODE),
            // A fixed block that begins with a match.
            (&[0b0000_0011, 0b0000_0010, 0, 0], Status::REF_BEFORE_START),
        ];
        for (stream, status) in cases {
            assert_eq!(inflate(stream, &mut [0; 64]), Err(status), "{stream:?}");
        }
        let stored = inflate(&[1, 2, 0, 0xfd, 0xff, 7, 8, 9], &mut [0; 64]);
        assert_eq!(stored, Ok((7, 2)), "read and written of a stored block");
        let room = inflate(&[1, 2, 0, 0xfd, 0xff, 7, 8], &mut [0; 1]);
        assert_eq!(room, Err(Status::MORE_OUTPUT_NEEDED));
    }

    #[test]
    fn it_reads_what_libdeflate_writes_at_every_level() {
        let page: Vec<u8> =
            (0..4096_u32).map(|at| (at * at / 7 % 251) as u8 ^ (at / 512) as u8).collect();
        for level in 0..=12 {
            let level = libdeflater::CompressionLvl::new(level).unwrap();
            let mut stream = vec![0; 8192];
            let mut compressor = libdeflater::Compressor::new(level);
            let written = compressor.deflate_compress(&page, &mut stream).unwrap();
            let mut back = vec![0; 4096];
            assert_eq!(inflate(&stream, &mut back), Ok((written, 4096)));
            assert!(back == page);
        }
    }
}
