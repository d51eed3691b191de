//! The packets on a channel.

use crate::error::PeerError;
use crate::page_size::PageSize;
use crate::wire::{DeviceStatePacket, PacketFlags, PacketHeader, RamPacket};

/// The packets of one channel, from behind its initial packet, without what follows them: a machine
/// that says where a packet's bytes go and how many bytes of payload come behind it.
#[derive(Debug)]
pub struct Framing {
    page_size: PageSize,
    /// Room for the largest packet.
    packet: Box<[u8]>,
    /// Bytes of the current packet that have come.
    filled: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A packet is on its way.
    Packet,
    /// It is complete, and this many bytes of payload are still to come.
    Payload(u64),
    /// The stream has ended, or has been malformed.
    Over,
}

/// What comes next on a channel.
#[allow(clippy::exhaustive_enums, reason = "a caller deals with each")]
#[derive(Debug)]
pub enum Wanted<'a> {
    /// The packet's next bytes: at least one.
    Packet(&'a mut [u8]),
    /// This many bytes that belong to the last packet: its payload, or the data of a device.
    Payload(u64),
    /// Nothing: the stream has ended, or has been malformed.
    Nothing,
}

/// A packet that has come.
#[allow(clippy::exhaustive_enums, reason = "the format has these, and a caller deals with each")]
#[derive(Clone, Debug)]
pub enum Frame<'a> {
    /// Pages, a SYNC or both.
    Ram(RamPacket<'a>),
    /// A part of a device's state.
    DeviceState(DeviceStatePacket),
    /// None: the stream has ended between two packets.
    End,
}

impl Framing {
    /// A channel from behind its initial packet, with pages of `page_size`.
    pub fn new(page_size: PageSize) -> Self {
        let bytes = RamPacket::bytes(page_size.page_count()).max(DeviceStatePacket::BYTES);
        Self { page_size, packet: vec![0; bytes].into(), filled: 0, state: State::Packet }
    }

    /// The size of a page.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// What comes next.
    pub fn want(&mut self) -> Wanted<'_> {
        self.leave_packet();
        match self.state {
            State::Packet => {
                let end = self.packet_end();
                Wanted::Packet(&mut self.packet[self.filled..end])
            }
            State::Payload(left) => Wanted::Payload(left),
            State::Over => Wanted::Nothing,
        }
    }

    /// Takes note that `count` bytes of those wanted have come, 0 at the stream's end. Returns the
    /// packet, when all of it is there.
    ///
    /// # Errors
    /// A malformed packet, and a stream that ends within a packet or its payload. Nothing is wanted
    /// any more then.
    ///
    /// # Panics
    /// With more bytes than were wanted.
    pub fn filled(&mut self, count: usize) -> Result<Option<Frame<'_>>, PeerError> {
        self.leave_packet();
        match self.state {
            State::Over => Ok(None),
            State::Packet if count == 0 && self.filled == 0 => {
                self.state = State::Over;
                Ok(Some(Frame::End))
            }
            _ if count == 0 => self.fail(PeerError::Truncated),
            State::Packet => self.packet_filled(count),
            State::Payload(left) => {
                let left = left.checked_sub(count as u64).expect("no more than was wanted");
                self.state = State::Payload(left);
                Ok(None)
            }
        }
    }

    fn packet_filled(&mut self, count: usize) -> Result<Option<Frame<'_>>, PeerError> {
        assert!(count <= self.packet_end() - self.filled, "more bytes than were wanted");
        self.filled += count;
        let Some(header) = self.packet[..self.filled].first_chunk() else { return Ok(None) };
        // Looked at as soon as it is there: nothing is waited for behind a wrong one.
        match PacketHeader::parse(header) {
            Ok(header) if self.filled == self.packet_end() => self.frame(header).map(Some),
            Ok(_) => Ok(None),
            Err(error) => self.fail(error),
        }
    }

    /// The current packet's bytes, as far as they have come; until the next one is
    /// [wanted](Self::want), those of the last.
    pub fn bytes(&self) -> &[u8] {
        &self.packet[..self.filled]
    }

    /// The RAM packet that is complete; `None` where another is or none.
    pub fn ram_packet(&self) -> Option<RamPacket<'_>> {
        RamPacket::parse(self.bytes(), self.page_size).ok()
    }

    /// The number in the current packet, malformed or not, where all of it is there and is a RAM
    /// packet: to report it by.
    pub fn claimed_num(&self) -> Option<u64> {
        let whole = self.filled == RamPacket::bytes(self.page_size.page_count());
        RamPacket::claimed_num(self.bytes()).filter(|_| whole)
    }

    /// Where the packet ends, as far as that is known: the header says.
    fn packet_end(&self) -> usize {
        let known = self.packet[..self.filled].first_chunk();
        match known.map(PacketHeader::parse) {
            Some(Ok(header)) => {
                PacketHeader::BYTES + header.following_bytes(self.page_size.page_count())
            }
            _ => PacketHeader::BYTES,
        }
    }

    fn frame(&mut self, header: PacketHeader) -> Result<Frame<'_>, PeerError> {
        let bytes = &self.packet[..self.filled];
        let frame = if header.flags.contains(PacketFlags::DEVICE_STATE) {
            let packet = bytes.try_into().map_err(|_| PeerError::Truncated);
            packet.and_then(DeviceStatePacket::parse).map(Frame::DeviceState)
        } else {
            RamPacket::parse(bytes, self.page_size).map(Frame::Ram)
        };
        self.state = match &frame {
            Ok(Frame::Ram(packet)) => State::Payload(packet.payload_bytes as u64),
            Ok(Frame::DeviceState(packet)) => State::Payload(packet.data_bytes.into()),
            Ok(Frame::End) | Err(_) => State::Over,
        };
        frame
    }

    /// Goes on to the next packet where nothing more belongs to the last.
    fn leave_packet(&mut self) {
        if self.state == State::Payload(0) {
            self.filled = 0;
            self.state = State::Packet;
        }
    }

    fn fail<T>(&mut self, error: PeerError) -> Result<T, PeerError> {
        self.state = State::Over;
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{BlockName, Compression, RamPacketBuilder};

    const K4: PageSize = PageSize::Kib4;

    /// A packet with a page, its payload, device state with its data, and a SYNC.
    fn stream() -> Vec<u8> {
        let mut builder = RamPacketBuilder::new(K4);
        let name = BlockName::new("ram").unwrap();
        let mut bytes =
            builder.pages(Compression::Zlib, 1, &name, [&[0x1000], &[0x2000]], 5).to_vec();
        bytes.extend(b"zlib!");
        let device = BlockName::new("vfio").unwrap();
        bytes.extend(DeviceStatePacket { device, instance_id: 0, data_bytes: 3 }.to_bytes());
        bytes.extend(b"abc");
        bytes.extend(builder.sync(2));
        bytes
    }

    /// What is said of `bytes`, fed at most `step` at a time, up to the end or an error.
    fn said(mut bytes: &[u8], step: usize) -> Vec<String> {
        let mut framing = Framing::new(K4);
        let mut said = Vec::new();
        loop {
            let room = match framing.want() {
                Wanted::Packet(room) => {
                    let count = room.len().min(step).min(bytes.len());
                    room[..count].copy_from_slice(&bytes[..count]);
                    count
                }
                Wanted::Payload(left) => bytes.len().min(step).min(left as usize),
                Wanted::Nothing => return said,
            };
            bytes = &bytes[room..];
            match framing.filled(room) {
                Ok(None) => {}
                Ok(Some(Frame::Ram(packet))) => said.push(format!("{packet:?}")),
                Ok(Some(Frame::DeviceState(packet))) => said.push(format!("{packet:?}")),
                Ok(Some(Frame::End)) => said.push("end".to_owned()),
                Err(error) => said.push(error.to_string()),
            }
        }
    }

    #[test]
    fn bytes_in_pieces_of_any_size_give_the_same_packets() {
        let bytes = stream();
        let whole = said(&bytes, usize::MAX);
        assert_eq!(whole.len(), 4, "{whole:?}");
        assert!(whole[0].contains("packet_num: 1") && whole[1].contains("vfio"), "{whole:?}");
        assert!(whole[2].contains("packet_num: 2") && whole[3] == "end", "{whole:?}");
        for step in [1, 2, 7, 12, 13, 1344] {
            assert_eq!(said(&bytes, step), whole, "{step}");
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_packet_or_payload_is_cut_off() {
        let bytes = stream();
        // Miri takes minutes for every place.
        for end in (0..bytes.len()).step_by(if cfg!(miri) { 101 } else { 1 }) {
            let between = [0, 1349, 1349 + 279].contains(&end);
            let last = said(&bytes[..end], usize::MAX).pop().unwrap();
            let expected = PeerError::Truncated.to_string();
            assert_eq!(last, if between { "end".to_owned() } else { expected }, "{end}");
        }
    }

    #[test]
    fn a_packet_has_the_size_that_its_page_size_asks_for() {
        for page_size in PageSize::ALL {
            let mut framing = Framing::new(page_size);
            assert_eq!(framing.page_size(), page_size);
            let packet = RamPacketBuilder::new(page_size).sync(3).to_vec();
            let mut rest = &packet[..];
            while let Wanted::Packet(room) = framing.want() {
                let count = room.len();
                room.copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                if framing.filled(count).unwrap().is_some() {
                    break;
                }
            }
            assert!(rest.is_empty(), "{page_size}");
            assert_eq!((framing.bytes(), framing.claimed_num()), (&packet[..], Some(3)));
        }
    }

    #[test]
    fn a_wrong_header_is_refused_before_more_is_waited_for() {
        let mut framing = Framing::new(K4);
        let Wanted::Packet(room) = framing.want() else { panic!("no packet is wanted") };
        assert_eq!(room.len(), PacketHeader::BYTES);
        room.fill(0x55);
        let error = framing.filled(PacketHeader::BYTES).unwrap_err();
        assert_eq!(error, PeerError::Magic { found: 0x5555_5555 });
        assert!(matches!(framing.want(), Wanted::Nothing));
        assert!(framing.filled(0).unwrap().is_none());
        assert_eq!(framing.claimed_num(), None);
    }
}
