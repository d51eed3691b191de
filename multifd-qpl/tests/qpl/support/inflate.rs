//! An inflate that looks at everything: slow, plain, and none of those that the codec uses.

/// What a DEFLATE stream (RFC 1951) holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inflated {
    pub bytes: Vec<u8>,
    /// The largest distance of a match.
    pub distance: usize,
    /// Bytes of the stream, its last bits included.
    pub read: usize,
}

/// Inflates the stream at the start of `input`.
pub fn inflate(input: &[u8]) -> Result<Inflated, &'static str> {
    let mut bits = Bits { input, at: 0 };
    let mut output = Inflated::default();
    loop {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut output)?,
            1 => {
                let (literals, distances) = fixed();
                compressed(&mut bits, &mut output, &literals, &distances)?;
            }
            2 => {
                let (literals, distances) = dynamic(&mut bits)?;
                compressed(&mut bits, &mut output, &literals, &distances)?;
            }
            _ => return Err("a block of no type"),
        }
        if last {
            output.read = bits.at.div_ceil(8);
            return Ok(output);
        }
    }
}

struct Bits<'a> {
    input: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Result<usize, &'static str> {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.input.get(self.at / 8).ok_or("the stream is cut short")?;
            value |= usize::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Ok(value)
    }
}

/// A canonical Huffman code: how many codes of each length, and the symbols in order.
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Code {
    fn new(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().for_each(|&length| counts[length] += 1);
        counts[0] = 0;
        let mut symbols: Vec<_> = (0..lengths.len()).filter(|&at| lengths[at] > 0).collect();
        symbols.sort_by_key(|&symbol| lengths[symbol]);
        Self { counts, symbols }
    }

    /// Whether there is a symbol for any bits. Where there is none, or more, decoders differ.
    fn is_complete(&self) -> bool {
        let counts = self.counts.iter().zip(0..);
        counts.map(|(count, length)| count << (15 - length)).sum::<usize>() == 1 << 15
    }

    fn next(&self, bits: &mut Bits<'_>) -> Result<usize, &'static str> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            if code < first + count {
                return Ok(self.symbols[index + (code - first)]);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err("a code that is not defined")
    }
}

fn fixed() -> (Code, Code) {
    let literals = (0..288).map(|symbol| match symbol {
        0..144 | 280..288 => 8,
        144..256 => 9,
        _ => 7,
    });
    (Code::new(&literals.map(|length: u8| length.into()).collect::<Vec<_>>()), Code::new(&[5; 30]))
}

fn dynamic(bits: &mut Bits<'_>) -> Result<(Code, Code), &'static str> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances) = (bits.take(5)? + 257, bits.take(5)? + 1);
    let mut lengths = [0; 19];
    for &at in &ORDER[..bits.take(4)? + 4] {
        lengths[at] = bits.take(3)?;
    }
    let code = Code::new(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match code.next(bits)? {
            16 => (*lengths.last().ok_or("nothing to repeat")?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    if lengths.len() > literals + distances {
        return Err("too many lengths");
    }
    let (literals, distances) = lengths.split_at(literals);
    let codes = (Code::new(literals), Code::new(distances));
    match codes.0.is_complete() && codes.1.is_complete() && code.is_complete() {
        true => Ok(codes),
        false => Err("a code that is not complete"),
    }
}

fn stored(bits: &mut Bits<'_>, output: &mut Inflated) -> Result<(), &'static str> {
    bits.at = bits.at.next_multiple_of(8);
    let (length, inverse) = (bits.take(16)?, bits.take(16)?);
    if length != inverse ^ 0xffff {
        return Err("a stored block's lengths disagree");
    }
    for _ in 0..length {
        output.bytes.push(bits.take(8)? as u8);
    }
    Ok(())
}

fn compressed(
    bits: &mut Bits<'_>,
    output: &mut Inflated,
    literals: &Code,
    distances: &Code,
) -> Result<(), &'static str> {
    loop {
        let length = match literals.next(bits)? {
            literal @ 0..256 => {
                output.bytes.push(literal as u8);
                continue;
            }
            256 => return Ok(()),
            285 => 258,
            symbol @ 257..265 => symbol - 254,
            symbol => {
                let extra = (symbol - 261) / 4;
                ((4 + (symbol - 265) % 4) << extra) + 3 + bits.take(extra)?
            }
        };
        let distance = match distances.next(bits)? {
            symbol @ 0..4 => symbol + 1,
            symbol => {
                let extra = symbol / 2 - 1;
                ((2 + symbol % 2) << extra) + 1 + bits.take(extra)?
            }
        };
        output.distance = output.distance.max(distance);
        for _ in 0..length {
            let from = output.bytes.len().checked_sub(distance).ok_or("before the start")?;
            output.bytes.push(output.bytes[from]);
        }
    }
}
