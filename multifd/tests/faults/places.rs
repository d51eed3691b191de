//! Places in a migration's streams, and where the fields of a stream begin.

use std::fmt;
use std::str::FromStr;

/// One of a migration's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wire {
    Main,
    Channel(u8),
}

/// From the source, or to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    Forward,
    Back,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// After so many bytes.
    Byte(u64),
    /// Where a field begins, counted from 0.
    Field(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) wire: Wire,
    pub(crate) direction: Direction,
    pub(crate) at: At,
}

/// `ch1+f17`, `main-5`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wire {
            Wire::Main => f.write_str("main")?,
            Wire::Channel(number) => write!(f, "ch{number}")?,
        }
        f.write_str(if self.direction == Direction::Forward { "+" } else { "-" })?;
        match self.at {
            At::Byte(at) => write!(f, "{at}"),
            At::Field(at) => write!(f, "f{at}"),
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let sign = text.find(['+', '-']).ok_or(())?;
        let (wire, at) = (&text[..sign], &text[sign + 1..]);
        let wire = match wire.strip_prefix("ch") {
            Some(number) => Wire::Channel(number.parse().map_err(drop)?),
            None if wire == "main" => Wire::Main,
            None => return Err(()),
        };
        let direction =
            if text[sign..].starts_with('+') { Direction::Forward } else { Direction::Back };
        let number = |digits: &str| digits.parse().map_err(drop);
        let at = match at.strip_prefix('f') {
            Some(field) => At::Field(number(field)?),
            None => At::Byte(number(at)?),
        };
        Ok(Self { wire, direction, at })
    }
}

/// Finds where the fields of a stream begin, as it comes.
#[derive(Debug)]
pub(crate) struct Fields {
    form: Form,
    /// Bytes that have come.
    offset: u64,
    /// The next fields' beginnings, as far as they are known.
    known: Vec<u64>,
    /// The head of the current packet or record, as far as it has come.
    head: Vec<u8>,
    /// Where that began.
    begin: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A multifd channel without TLS.
    Packets,
    /// Records of TLS.
    Records,
    /// Whatever else: each byte may begin a field.
    Bytes,
}

const INITIAL: [u64; 6] = [0, 4, 8, 24, 25, 32];
const INITIAL_BYTES: u64 = 64;
const PACKET: [u64; 11] = [0, 4, 8, 12, 16, 20, 24, 32, 36, 40, 64];
/// Where a packet says how many offsets it has and what follows it.
const COUNTED: usize = 36;
const OFFSETS: u64 = 320;
const PACKET_BYTES: u64 = OFFSETS + 8 * 128;
const RECORD: [u64; 4] = [0, 1, 3, 5];
const RECORD_HEAD: usize = 5;

impl Fields {
    pub(crate) fn new(form: Form) -> Self {
        let mut fields = Self { form, offset: 0, known: Vec::new(), head: Vec::new(), begin: 0 };
        match form {
            Form::Packets => {
                fields.known.extend(INITIAL);
                fields.begin_at(INITIAL_BYTES);
            }
            Form::Records => fields.begin_at(0),
            Form::Bytes => {}
        }
        fields
    }

    fn begin_at(&mut self, at: u64) {
        let inner: &[u64] = if self.form == Form::Packets { &PACKET } else { &RECORD };
        self.known.extend(inner.iter().map(|inner| at + inner));
        self.begin = at;
        self.head.clear();
    }

    /// Takes the stream's next bytes. Gives the fields that begin among them or right behind, but for
    /// those that were given before.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<u64> {
        let end = self.offset + bytes.len() as u64;
        if self.form == Form::Bytes {
            let first = if self.offset == 0 { 0 } else { self.offset + 1 };
            self.offset = end;
            return (first..=end).collect();
        }
        loop {
            let wanted = if self.form == Form::Packets { COUNTED } else { RECORD_HEAD };
            let from = (self.begin + self.head.len() as u64).saturating_sub(self.offset);
            let from = usize::try_from(from).unwrap().min(bytes.len());
            let count = (wanted - self.head.len()).min(bytes.len() - from);
            self.head.extend(&bytes[from..from + count]);
            if self.head.len() < wanted {
                break;
            }
            self.end_head();
        }
        self.offset = end;
        self.known.sort_unstable();
        self.known.dedup();
        let later = self.known.split_off(self.known.partition_point(|&at| at <= end));
        std::mem::replace(&mut self.known, later)
    }

    /// A head is there: what follows it is known.
    fn end_head(&mut self) {
        let number =
            |at: usize| u64::from(u32::from_be_bytes(self.head[at..at + 4].try_into().unwrap()));
        if self.form == Form::Records {
            let length = u16::from_be_bytes([self.head[3], self.head[4]]);
            return self.begin_at(self.begin + RECORD_HEAD as u64 + u64::from(length));
        }
        let pages = number(16) + number(32);
        let payload = if pages == 0 { 0 } else { number(20) };
        // Those between the first two and the last are like them.
        let begin = self.begin + OFFSETS;
        let some = [0, 1, pages.saturating_sub(1)].into_iter().filter(|page| *page < pages);
        self.known.extend(some.map(|page| begin + 8 * page));
        self.known.push(self.begin + PACKET_BYTES);
        self.begin_at(self.begin + PACKET_BYTES + payload);
    }
}

#[test]
fn fields_are_found_however_a_stream_is_split() {
    let mut packet = vec![0; PACKET_BYTES as usize];
    packet[19] = 4;
    packet[23] = 100;
    packet[35] = 1;
    let stream = [&vec![0; 64][..], &packet, &[7; 100], &[0; 20]].concat();
    let second = 64 + PACKET_BYTES + 100;
    let mut expected: Vec<u64> = INITIAL.to_vec();
    expected.extend(PACKET.map(|at| 64 + at));
    expected.extend([0, 8, 32].map(|at| 64 + OFFSETS + at));
    expected.push(64 + PACKET_BYTES);
    expected.extend(PACKET.iter().map(|at| second + at).filter(|&at| at <= second + 20));
    for size in [1, 3, 64, 1000, stream.len()] {
        let mut fields = Fields::new(Form::Packets);
        let found: Vec<u64> = stream.chunks(size).flat_map(|chunk| fields.take(chunk)).collect();
        assert_eq!(found, expected, "{size}");
    }
    let records = [&[22, 3, 3, 0, 2, 1, 1][..], &[23, 3, 3, 0, 0], &[23]].concat();
    for size in [1, 4, records.len()] {
        let mut fields = Fields::new(Form::Records);
        let found: Vec<u64> = records.chunks(size).flat_map(|chunk| fields.take(chunk)).collect();
        assert_eq!(found, [0, 1, 3, 5, 7, 8, 10, 12, 13], "{size}");
    }
    assert_eq!(Fields::new(Form::Bytes).take(&[1, 2]), [0, 1, 2]);
}

#[test]
fn a_place_reads_as_it_is_written() {
    for text in ["main+5", "ch1+f17", "ch0-0"] {
        assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
    }
    for text in ["", "main", "ch+1", "main+x", "chan1+2"] {
        assert!(text.parse::<Place>().is_err(), "{text}");
    }
}
