//! The device state by its sections.

use multifd_core::PageSize;
use serde::Deserialize;

use super::FindingKind;
use crate::stream::{section, split_description};

/// The device state: everything on the main channel from the first FULL section on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceState {
    /// Where it starts, in bytes from the start of the main channel.
    pub offset: u64,
    /// Its size in bytes, EOF and VMDESCRIPTION included.
    pub bytes: u64,
    /// The size of the VMDESCRIPTION's JSON in bytes; `None` without a VMDESCRIPTION.
    pub description_bytes: Option<u64>,
    /// The sections of the devices in the VMDESCRIPTION, up to the first that was not found.
    pub sections: Vec<DeviceSection>,
}

/// The state of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceSection {
    /// The device's id.
    pub name: String,
    /// Distinguishes devices with the same id.
    pub instance_id: u32,
    /// The version of its format.
    pub version: u32,
    /// The section's number in the stream.
    pub section_id: u32,
    /// Where it starts, in bytes from the start of the main channel.
    pub offset: u64,
    /// Its size in bytes, header and FOOTER included.
    pub bytes: u64,
}

/// The inspected part of a VMDESCRIPTION.
#[derive(Deserialize)]
struct Description {
    page_size: u64,
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    instance_id: u32,
    version: u32,
}

/// A finding, and its byte of the device state.
type Fault = (usize, FindingKind);

impl DeviceState {
    /// Splits `bytes`, which start at `offset` of the main channel, into the sections of the devices.
    /// `footers` says whether the stream's sections end in a FOOTER. Also returns the findings, each
    /// with its offset in the main channel.
    ///
    /// A section does not give its length, and the format of its body is not known here. But the
    /// VMDESCRIPTION lists the devices in the order of the stream, so each header is searched for
    /// after the previous one.
    pub fn parse(
        bytes: &[u8],
        offset: u64,
        page_size: PageSize,
        footers: bool,
    ) -> (Self, Vec<(u64, FindingKind)>) {
        let mut state = Self { offset, bytes: bytes.len() as u64, ..Self::default() };
        let mut faults = Vec::new();
        match split_description(bytes) {
            Some((before, json)) => {
                state.description_bytes = Some(json.len() as u64);
                let fault = state.describe(before, json, page_size, footers).err();
                faults.extend(fault);
            }
            None => faults.push((0, FindingKind::NoDescription)),
        }
        let place = |(at, kind)| (offset + at as u64, kind);
        (state, faults.into_iter().map(place).collect())
    }

    fn describe(
        &mut self,
        bytes: &[u8],
        json: &[u8],
        page_size: PageSize,
        footers: bool,
    ) -> Result<(), Fault> {
        let fault = |at, text| Err((at, FindingKind::Description(text)));
        let json_at = bytes.len() + BEFORE_JSON;
        let description: Description = match serde_json::from_slice(json) {
            Ok(description) => description,
            Err(error) => {
                return fault(json_at, format!("the VMDESCRIPTION is malformed: {error}"));
            }
        };
        if description.page_size != page_size.bytes() as u64 {
            let text = format!(
                "the VMDESCRIPTION's page_size is {}, the stream's pages have {} bytes",
                description.page_size,
                page_size.bytes()
            );
            return fault(json_at, text);
        }
        let mut end = 0;
        for device in description.devices {
            let Some(at) = device.find(bytes, end) else {
                let text = format!(
                    "the VMDESCRIPTION lists the device '{}', instance {}, version {}, whose \
                     section is not in its place",
                    device.name, device.instance_id, device.version
                );
                return fault(end, text);
            };
            self.close(bytes, at, footers)?;
            end = at + device.header_bytes();
            self.open(device, bytes, at);
        }
        self.close(bytes, bytes.len(), footers)
    }

    fn open(&mut self, device: Device, bytes: &[u8], at: usize) {
        self.sections.push(DeviceSection {
            name: device.name,
            instance_id: device.instance_id,
            version: device.version,
            section_id: word(&bytes[at + 1..]),
            offset: self.offset + at as u64,
            bytes: 0,
        });
    }

    /// Ends the last section at `end`, where the next one or the EOF is.
    fn close(&mut self, bytes: &[u8], end: usize, footers: bool) -> Result<(), Fault> {
        let fault = |at, text| Err((at, FindingKind::Description(text)));
        let Some(last) = self.sections.last_mut() else {
            return if end == 0 {
                Ok(())
            } else {
                fault(0, format!("{end} bytes belong to no device that the VMDESCRIPTION lists"))
            };
        };
        last.bytes = self.offset + end as u64 - last.offset;
        if !footers {
            return Ok(());
        }
        let footer = end - FOOTER_BYTES;
        let expected = last.section_id;
        match (bytes[footer], word(&bytes[footer + 1..])) {
            (section::FOOTER, found) if found == expected => Ok(()),
            (section::FOOTER, found) => fault(
                footer,
                format!(
                    "the FOOTER of '{}' has the section id {found}, its section {expected}",
                    last.name
                ),
            ),
            _ => fault(footer, format!("the section of '{}' does not end in a FOOTER", last.name)),
        }
    }
}

/// EOF, and the type byte and the length of the VMDESCRIPTION.
const BEFORE_JSON: usize = 6;

const FOOTER_BYTES: usize = 5;

/// The byte that says FULL, and the section id.
const BEFORE_NAME: usize = 5;

impl Device {
    /// Where the device's section starts, at or after `from`. The first one starts at 0.
    fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let key = self.key()?;
        let behind = bytes.get(from + BEFORE_NAME..)?;
        let at = match from {
            0 => behind.starts_with(&key).then_some(0),
            _ => behind.windows(key.len()).enumerate().find_map(|(at, window)| {
                (window == key && bytes[from + at] == section::FULL).then_some(at)
            }),
        }?;
        (bytes[from + at] == section::FULL).then_some(from + at)
    }

    /// The header from the name on.
    fn key(&self) -> Option<Vec<u8>> {
        let length = u8::try_from(self.name.len()).ok()?;
        let numbers = [self.instance_id.to_be_bytes(), self.version.to_be_bytes()].concat();
        Some([&[length], self.name.as_bytes(), &numbers].concat())
    }

    fn header_bytes(&self) -> usize {
        BEFORE_NAME + 1 + self.name.len() + 8
    }
}

/// The big-endian word at the start of `bytes`, which has at least four.
fn word(bytes: &[u8]) -> u32 {
    bytes[..4].iter().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two devices with bodies of 3 and 2 bytes, and a VMDESCRIPTION that lists `devices`.
    fn state(devices: &str) -> Vec<u8> {
        let sections = b"\x04\0\0\0\x07\x04apic\0\0\0\x01\0\0\0\x03abc\x7e\0\0\0\x07\
                         \x04\0\0\0\x09\x05timer\0\0\0\0\0\0\0\x02de\x7e\0\0\0\x09";
        let json = format!(r#"{{"page_size": 4096, "devices": [{devices}]}}"#);
        let length = (json.len() as u32).to_be_bytes();
        [&sections[..], b"\0\x06", &length, json.as_bytes()].concat()
    }

    fn device(name: &str, instance: u32, version: u32) -> String {
        format!(r#"{{"name": "{name}", "instance_id": {instance}, "version": {version}}}"#)
    }

    fn both() -> String {
        [device("apic", 1, 3), device("timer", 0, 2)].join(", ")
    }

    fn parse(bytes: &[u8]) -> (DeviceState, Vec<(u64, FindingKind)>) {
        DeviceState::parse(bytes, 1000, PageSize::Kib4, true)
    }

    fn fault(bytes: &[u8]) -> (u64, String) {
        let (_, faults) = parse(bytes);
        assert_eq!(faults.len(), 1, "{faults:?}");
        (faults[0].0, faults[0].1.to_string())
    }

    #[test]
    fn each_section_is_found_with_its_size() {
        let (state, faults) = parse(&state(&both()));
        assert_eq!(faults, []);
        let found = state.sections.iter().map(|section| {
            (section.name.as_str(), section.section_id, section.offset, section.bytes)
        });
        assert_eq!(found.collect::<Vec<_>>(), [("apic", 7, 1000, 26), ("timer", 9, 1026, 26)]);
    }

    #[test]
    fn a_description_of_other_devices_is_found_out() {
        let missing = [both(), device("rtc", 0, 1)].join(", ");
        for (devices, at, words) in [
            (missing, 1045, "'rtc', instance 0, version 1"),
            (device("apic", 1, 3), 1047, "the FOOTER of 'apic' has the section id 9"),
            ([device("timer", 0, 2), device("apic", 1, 3)].join(", "), 1000, "'timer'"),
            (device("apic", 1, 4), 1000, "version 4"),
            (String::new(), 1000, "52 bytes belong to no device"),
            ("7".to_owned(), 1058, "malformed"),
        ] {
            let (found, text) = fault(&state(&devices));
            assert!(found == at && text.contains(words), "{found}: {text}");
        }
    }

    #[test]
    fn another_page_size_is_found_out() {
        let (state, faults) = DeviceState::parse(&state(&both()), 0, PageSize::Kib16, true);
        assert!(faults[0].1.to_string().contains("page_size is 4096"), "{faults:?}");
        assert_eq!(state.sections, []);
    }

    #[test]
    fn a_footer_of_another_section_is_found_out() {
        let mut bytes = state(&both());
        bytes[25] = 8;
        let (at, text) = fault(&bytes);
        assert!(
            at == 1021 && text.contains("'apic' has the section id 8, its section 7"),
            "{text}"
        );
        bytes[21] = 0;
        assert!(fault(&bytes).1.contains("does not end in a FOOTER"));
    }

    #[test]
    fn a_state_without_a_description_is_only_measured() {
        let (state, faults) = parse(b"\x04\0\0\0\x07\0");
        assert_eq!((state.bytes, state.description_bytes, state.sections), (6, None, vec![]));
        assert_eq!(faults, [(1000, FindingKind::NoDescription)]);
    }
}
