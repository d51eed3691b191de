//! Whole streams: written, read back, and framed as the format says.

use std::io::{self, Read};

use super::*;

/// Two blocks; the second has a longer name and is one page long.
pub(super) fn blocks(page_size: u64) -> Vec<BlockInfo> {
    vec![
        BlockInfo { name: "pc.ram".into(), bytes: 4 * page_size },
        BlockInfo { name: "/rom@etc/acpi/rsdp".into(), bytes: page_size },
    ]
}

/// A device state of one FULL section, ending in its FOOTER and EOF.
pub(super) const DEVICES: &[u8] =
    b"\x04\0\0\0\x02\x05timer\0\0\0\0\0\0\0\x02\x00\x06\0\0\0\0{}\x7e\0\0\0\x02\0";

/// [`DEVICES`] and a VMDESCRIPTION.
pub(super) fn described_devices() -> Vec<u8> {
    let json = br#"{"configuration": {"}": "\"{"}, "page_size": 4096, "devices": [{"a": [1]}]}"#;
    let length = json.len() as u32;
    [DEVICES, b"\x06", &length.to_be_bytes(), json].concat()
}

/// A source's stream with everything in it that a reader takes.
pub(super) fn stream(writer: MainWriter<Vec<u8>>, sync: SyncForm) -> Vec<u8> {
    let configuration = Configuration::new("pc-i440fx-10.0");
    write(writer, &configuration, sync, &described_devices()).unwrap()
}

fn write(
    mut writer: MainWriter<Vec<u8>>,
    configuration: &Configuration,
    sync: SyncForm,
    devices: &[u8],
) -> Result<Vec<u8>, StreamError> {
    let page_size = configuration.page_bits().map_or(4096, |bits| 1 << bits);
    writer.header(configuration)?;
    writer.open_return_path()?;
    writer.ping(1)?;
    writer.ram_start(2, 0, &blocks(page_size), sync)?;
    writer.part_begin()?;
    writer.zero_page(0, 0)?;
    writer.zero_page(0, 3 * page_size)?;
    writer.zero_page(1, 0)?;
    writer.page(1, 0, &vec![0x5a; page_size as usize])?;
    writer.sync()?;
    writer.body_end()?;
    writer.switchover_start()?;
    writer.end_begin()?;
    writer.zero_page(0, 0)?;
    writer.sync()?;
    writer.body_end()?;
    writer.ping(0xffff_fffe)?;
    writer.device_state(devices)?;
    Ok(writer.into_inner())
}

/// What [`stream`] says.
fn expected(configuration: &Configuration, sync: SyncForm, devices: &[u8]) -> Vec<Event> {
    let page_size = configuration.page_bits().map_or(4096, |bits| 1 << bits);
    let data = vec![0x5a; page_size as usize].into_boxed_slice();
    vec![
        Event::Configuration(configuration.clone()),
        Event::OpenReturnPath,
        Event::Ping(1),
        Event::RamStart { section_id: 2, instance_id: 0, blocks: blocks(page_size), sync },
        Event::Sync,
        Event::ZeroPage { block: 0, offset: 0 },
        Event::ZeroPage { block: 0, offset: 3 * page_size },
        Event::ZeroPage { block: 1, offset: 0 },
        Event::Page { block: 1, offset: 0, data },
        Event::Sync,
        Event::BodyEnd { last: false },
        Event::SwitchoverStart,
        Event::ZeroPage { block: 0, offset: 0 },
        Event::Sync,
        Event::BodyEnd { last: true },
        Event::Ping(0xffff_fffe),
        Event::DeviceState(devices.to_vec()),
    ]
}

pub(super) fn writer() -> MainWriter<Vec<u8>> {
    MainWriter::new(Vec::new())
}

/// All events before [`Event::End`].
pub(super) fn read(reader: impl Read) -> Result<Vec<Event>, StreamError> {
    let mut reader = MainReader::new(reader, Limits::default());
    let mut events = Vec::new();
    loop {
        match reader.next_event()? {
            Event::End => return Ok(events),
            event => events.push(event),
        }
    }
}

/// A socket that stays open: once all bytes are read, the next read would wait forever.
struct StaysOpen<'a>(&'a [u8]);

impl Read for StaysOpen<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

/// Gives one byte at a time, and is interrupted before each.
struct Trickle<'a>(&'a [u8], bool);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut buffer[..1]) }
    }
}

#[test]
fn what_is_written_is_read_back_in_both_sync_forms() {
    let configuration = Configuration::new("pc-i440fx-10.0");
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        for devices in [DEVICES, &described_devices()] {
            let bytes = write(writer(), &configuration, sync, devices).unwrap();
            assert_eq!(
                read(bytes.as_slice()).unwrap(),
                expected(&configuration, sync, devices),
                "{sync:?}"
            );
        }
    }
}

#[test]
fn a_stream_that_trickles_in_says_the_same() {
    let bytes = stream(writer(), SyncForm::Flush);
    assert_eq!(read(Trickle(&bytes, false)).unwrap(), read(bytes.as_slice()).unwrap());
}

#[test]
fn a_stream_without_footers_says_the_same_and_is_known_as_such() {
    let with = stream(writer(), SyncForm::Flush);
    let without = stream(writer().with_footers(false), SyncForm::Flush);
    assert_eq!(with.len() - without.len(), 15);
    assert_eq!(read(with.as_slice()).unwrap(), read(without.as_slice()).unwrap());
    for (bytes, footers) in [(&with, true), (&without, false)] {
        let mut reader = MainReader::new(bytes.as_slice(), Limits::default());
        while reader.next_event().unwrap() != Event::End {}
        assert_eq!(reader.footers(), footers);
        assert_eq!(reader.offset(), bytes.len() as u64);
    }
}

#[test]
fn subsections_of_the_configuration_are_read_back_and_set_the_page_size() {
    let capabilities = vec!["multifd".to_owned(), "return-path".to_owned()];
    let data = [
        SubsectionData::PageBits(16),
        SubsectionData::Capabilities(capabilities.clone()),
        SubsectionData::Uuid(*b"0123456789abcdef"),
    ];
    let subsections = data.map(|data| Subsection { version: 1, data }).to_vec();
    let configuration = Configuration { subsections, ..Configuration::new("virt-10.0") };
    let bytes = write(writer(), &configuration, SyncForm::Flush, DEVICES).unwrap();
    let events = expected(&configuration, SyncForm::Flush, DEVICES);
    assert_eq!(read(bytes.as_slice()).unwrap(), events);

    assert_eq!(configuration.page_bits(), Some(16));
    assert_eq!(configuration.capabilities(), capabilities);
    assert_eq!(configuration.uuid(), Some(b"0123456789abcdef"));
    let mut reader = MainReader::new(bytes.as_slice(), Limits::default());
    reader.next_event().unwrap();
    assert_eq!(reader.page_size(), 65536);
}

#[test]
fn a_stream_without_a_configuration_has_no_machine() {
    let bytes = write(writer(), &Configuration::default(), SyncForm::Flush, DEVICES).unwrap();
    assert_eq!(bytes[8], wire::section::COMMAND);
    let events = read(bytes.as_slice()).unwrap();
    assert_eq!(events[0], Event::Configuration(Configuration::default()));
}

#[test]
fn the_page_size_that_is_expected_goes_for_a_source_that_does_not_say_it() {
    let bytes = {
        let mut writer = writer().with_page_size(16384);
        writer.header(&Configuration::new("virt-10.0")).unwrap();
        writer.ram_start(1, 0, &blocks(16384), SyncForm::Flush).unwrap();
        writer.into_inner()
    };
    let limits = Limits { page_size: Some(16384), ..Limits::default() };
    let mut reader = MainReader::new(bytes.as_slice(), limits);
    reader.next_event().unwrap();
    let Event::RamStart { blocks: read, .. } = reader.next_event().unwrap() else { panic!() };
    assert_eq!(read, blocks(16384));
}

#[test]
fn a_stream_is_framed_byte_for_byte_as_the_format_says() {
    let block = [BlockInfo { name: "r".into(), bytes: 0x3000 }];
    let framed = |sync| {
        let mut writer = writer();
        writer.header(&Configuration::new("pc")).unwrap();
        writer.ram_start(7, 0, &block, sync).unwrap();
        writer.part_begin().unwrap();
        writer.zero_page(0, 0x1000).unwrap();
        writer.zero_page(0, 0x2000).unwrap();
        writer.sync().unwrap();
        writer.body_end().unwrap();
        writer.ram_end().unwrap();
        writer.no_device_state().unwrap();
        writer.into_inner()
    };
    let start = b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\x01\0\0\0\x07\x03ram\0\0\0\0\0\0\0\x04\
        \0\0\0\0\0\0\x30\x04\x01r\0\0\0\0\0\0\x30\0";
    let flush = b"\0\0\0\0\0\0\x02\0";
    let end_of_body = b"\0\0\0\0\0\0\0\x10\x7e\0\0\0\x07";
    let part = b"\x02\0\0\0\x07\0\0\0\0\0\0\x10\x02\x01r\0\0\0\0\0\0\0\x20\x22\0";
    let end = b"\x03\0\0\0\x07";
    let devices = b"\0\x06\0\0\0\x22{\"page_size\": 4096, \"devices\": []}";
    for (sync, flush) in [(SyncForm::Flush, flush.as_slice()), (SyncForm::EachSection, b"")] {
        let pieces: [&[u8]; 10] =
            [start, flush, end_of_body, part, flush, end_of_body, end, flush, end_of_body, devices];
        assert_eq!(framed(sync), pieces.concat(), "{sync:?}");
    }
}

#[test]
fn no_event_waits_for_bytes_that_come_after_it() {
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let bytes = stream(writer(), sync);
        let mut whole = MainReader::new(bytes.as_slice(), Limits::default());
        for nth in 0.. {
            let event = whole.next_event().unwrap();
            if event == Event::End {
                break;
            }
            // That CONFIGURATION has no more subsections shows in the byte after it.
            let needed = whole.offset() as usize + usize::from(nth == 0);
            let mut reader = MainReader::new(StaysOpen(&bytes[..needed]), Limits::default());
            for _ in 0..nth {
                reader.next_event().unwrap();
            }
            assert_eq!(reader.next_event().unwrap(), event);
        }
    }
}

#[test]
fn the_form_of_the_sync_is_known_before_the_first_sync() {
    for sync in [SyncForm::Flush, SyncForm::EachSection] {
        let events = read(stream(writer(), sync).as_slice()).unwrap();
        let start = events.iter().position(|event| matches!(event, Event::RamStart { .. }));
        let first = events.iter().position(|event| *event == Event::Sync);
        assert_eq!(first, start.map(|start| start + 1));
        assert_eq!(events.iter().filter(|event| **event == Event::Sync).count(), 3);
    }
}

#[test]
fn a_part_may_have_no_flush_or_several() {
    let mut writer = writer();
    writer.header(&Configuration::new("pc")).unwrap();
    writer.ram_start(1, 0, &blocks(4096), SyncForm::Flush).unwrap();
    for syncs in [0, 2] {
        writer.part_begin().unwrap();
        for _ in 0..syncs {
            writer.sync().unwrap();
        }
        writer.body_end().unwrap();
    }
    writer.ram_end().unwrap();
    writer.no_device_state().unwrap();
    let events = read(writer.into_inner().as_slice()).unwrap();
    let (sync, part) = (Event::Sync, Event::BodyEnd { last: false });
    assert_eq!(events[2..7], [sync.clone(), part.clone(), sync.clone(), sync, part]);
}

#[test]
fn a_source_that_waits_on_the_return_path_is_read_to_its_end_without_a_close() {
    let bytes = stream(writer(), SyncForm::Flush);
    let events = read(StaysOpen(&bytes)).unwrap();
    assert_eq!(events.last(), Some(&Event::DeviceState(described_devices())));
}

#[test]
fn a_source_without_a_return_path_is_read_until_it_closes() {
    let mut writer = writer();
    writer.header(&Configuration::new("pc")).unwrap();
    writer.ram_start(1, 0, &blocks(4096), SyncForm::Flush).unwrap();
    writer.ram_end().unwrap();
    writer.no_device_state().unwrap();
    let bytes = writer.into_inner();
    read(bytes.as_slice()).unwrap();
    let error = read(StaysOpen(&bytes)).unwrap_err();
    assert!(matches!(error.kind, StreamErrorKind::Read { .. }), "{error}");
}

#[test]
fn a_close_without_a_tls_goodbye_ends_the_stream_only_where_it_is_whole() {
    struct Cut<'a>(&'a [u8]);
    impl Read for Cut<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => Ok(bytes),
            }
        }
    }
    let bytes = stream(writer(), SyncForm::Flush);
    read(Cut(&bytes)).unwrap();
    let error = read(Cut(&bytes[..bytes.len() - 1])).unwrap_err();
    assert!(matches!(error.kind, StreamErrorKind::Truncated { .. }), "{error}");
}

#[test]
fn the_end_is_said_again_and_again() {
    let bytes = stream(writer(), SyncForm::Flush);
    let mut reader = MainReader::new(bytes.as_slice(), Limits::default());
    while reader.next_event().unwrap() != Event::End {}
    assert_eq!(reader.next_event().unwrap(), Event::End);
}

#[test]
fn an_error_of_the_inner_writer_is_final_and_says_how_far_it_came() {
    let mut room = [0; 15];
    let mut writer = MainWriter::new(room.as_mut_slice());
    writer.header(&Configuration::new("pc")).unwrap();
    let error = writer.ping(1).unwrap_err();
    assert!(matches!(error.kind, StreamErrorKind::Write(_)), "{error}");
    assert_eq!(error.offset, 15);
    let error = writer.ping(1).unwrap_err();
    assert!(matches!(error.kind, StreamErrorKind::Misuse(_)), "{error}");
}
