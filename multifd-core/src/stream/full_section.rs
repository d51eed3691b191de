//! The device state of a VMM other than QEMU: one FULL section of its own.

use super::StreamErrorKind;
use super::device_state::{self, split_description};
use super::early::{self, Place};
use super::wire::{self, section};
use crate::PageSize;

/// The section's number. It need not differ from QEMU's, only from the ram section's, which is 2
/// unless said otherwise.
const SECTION_ID: u32 = 0;

/// A FOOTER's length: its type byte and the section's number.
const FOOTER_BYTES: usize = 5;

/// What a VMM of one's own sends as device state: its bytes, in whatever form it likes, as the one
/// FULL section of a stream with FOOTERs.
///
/// A stream's device state has to end in a way by which a destination knows its end; this writes
/// that around the bytes, and takes it off again.
///
/// ```
/// # use multifd_core::PageSize;
/// # use multifd_core::stream::FullSection;
/// let vcpu = FullSection { name: "vcpu", version: 1, body: b"registers" };
/// let device_state = vcpu.to_device_state(PageSize::Kib4)?;    // for `Source::finish`
/// let arrived = FullSection::of_device_state(&device_state);   // from `Vm::device_state`
/// assert_eq!(arrived, Some(vcpu));
/// # Ok::<(), multifd_core::stream::StreamErrorKind>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a section has these parts, which a caller names")]
pub struct FullSection<'a> {
    /// Whose state it is: 1 to 255 bytes without a NUL.
    pub name: &'a str,
    /// The version of the body's form. It is for the destination to check, as the name is.
    pub version: u32,
    /// The state.
    pub body: &'a [u8],
}

impl<'a> FullSection<'a> {
    /// The device state of a VM whose RAM is migrated in pages of `page_size`: the section, its
    /// FOOTER, EOF and a VMDESCRIPTION. Its section number is 0, which the ram section then must
    /// not have.
    ///
    /// # Errors
    /// A name that cannot be sent. A body in which a whole EOF and VMDESCRIPTION are, as in another
    /// stream's device state: a destination would take them for the end.
    pub fn to_device_state(&self, page_size: PageSize) -> Result<Vec<u8>, StreamErrorKind> {
        let mut out = self.to_section()?;
        let device = format!(
            r#"{{"name": "{}", "instance_id": 0, "version": {}}}"#,
            json_escaped(self.name),
            self.version
        );
        out.extend(device_state::described_end(page_size, &device));
        match device_state::trailing(&out) {
            None => Ok(out),
            Some(_) => Err(StreamErrorKind::Misuse(
                "the section's body has the end of a device state in it: encode it in another form",
            )),
        }
    }

    /// The section as state that comes before the RAM's pages, such as a VMM's configuration, which
    /// its destination needs before it provides memory. Its name has to be of printable ASCII
    /// characters and its version at most 65535. Its section number is 0, which the ram section then
    /// must not have.
    ///
    /// # Errors
    /// A name or version that cannot be sent early. A body in which a destination would see the end of
    /// the section, as in one that holds other sections.
    pub fn to_early_state(&self) -> Result<Vec<u8>, StreamErrorKind> {
        let out = self.to_section()?;
        early::check(&out, Place::BeforeStart, true)?;
        Ok(out)
    }

    fn to_section(self) -> Result<Vec<u8>, StreamErrorKind> {
        let mut out = vec![section::FULL];
        out.extend_from_slice(&SECTION_ID.to_be_bytes());
        wire::put_name(&mut out, self.name, "a section's name")?;
        out.extend_from_slice(&0_u32.to_be_bytes()); // the instance
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(self.body);
        out.push(section::FOOTER);
        out.extend_from_slice(&SECTION_ID.to_be_bytes());
        Ok(out)
    }

    /// The one section that `early_state` is made of. `None` where it is anything else, such as none
    /// at all, or QEMU's devices'.
    pub fn of_early_state(early_state: &'a [u8]) -> Option<Self> {
        let behind = early::behind_section(early_state, Place::BeforeStart, true).ok()?;
        behind.is_empty().then(|| Self::of_section(early_state)).flatten()
    }

    /// The one section that `device_state` is made of. `None` where it is anything else, such as
    /// QEMU's, which has a section for each device.
    pub fn of_device_state(device_state: &'a [u8]) -> Option<Self> {
        let (sections, _) = split_description(device_state)?;
        Self::of_section(sections)
    }

    fn of_section(sections: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = sections.split_first()?;
        let (section_id, rest) = rest.split_first_chunk::<4>()?;
        let (&name_bytes, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(name_bytes.into())?;
        let (instance_id, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (body, footer) = rest.split_at_checked(rest.len().checked_sub(FOOTER_BYTES)?)?;
        let is_one = kind == section::FULL
            && u32::from_be_bytes(*instance_id) == 0
            && footer[0] == section::FOOTER
            && footer[1..] == *section_id;
        let name = std::str::from_utf8(name).ok().filter(|_| is_one)?;
        Some(Self { name, version: u32::from_be_bytes(*version), body })
    }
}

/// `text` as it stands in a JSON string.
fn json_escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_body_comes_back_as_it_was_sent() {
        let long = vec![0x7e; if cfg!(miri) { 700 } else { 70_000 }];
        for body in [&b""[..], b"\0", b"\x7e\0\0\0\0\0\x06", &long] {
            for page_size in PageSize::ALL {
                let sent = FullSection { name: r#"a "toy" \ vCPU"#, version: 7, body };
                let device_state = sent.to_device_state(page_size).unwrap();
                assert!(device_state::is_whole(&device_state, true));
                assert_eq!(FullSection::of_device_state(&device_state), Some(sent));
            }
        }
    }

    #[test]
    fn its_description_names_the_section_whatever_characters_it_has() {
        let name = "a \"toy\"\n\\ vCPU";
        let sent = FullSection { name, version: 7, body: b"x" };
        let device_state = sent.to_device_state(PageSize::Kib16).unwrap();
        let (_, json) = split_description(&device_state).unwrap();
        let json: serde_json::Value = serde_json::from_slice(json).unwrap();
        assert_eq!(json["page_size"], 16384);
        assert_eq!(json["devices"][0]["name"], name);
        assert_eq!(json["devices"][0]["version"], 7);
    }

    #[test]
    fn a_name_that_cannot_be_sent_is_refused() {
        for name in ["", "a\0b", &"x".repeat(256)] {
            let section = FullSection { name, version: 1, body: &[] };
            section.to_device_state(PageSize::Kib4).unwrap_err();
        }
    }

    #[test]
    fn a_body_in_which_a_destination_would_see_the_end_is_refused() {
        let inner = FullSection { name: "vcpu", version: 1, body: b"registers" };
        let inner = inner.to_device_state(PageSize::Kib4).unwrap();
        let outer = FullSection { body: &inner, name: "outer", version: 1 };
        outer.to_device_state(PageSize::Kib4).unwrap_err();
        let cut_off = FullSection { body: &inner[..inner.len() - 1], ..outer };
        let sent = cut_off.to_device_state(PageSize::Kib4).unwrap();
        assert_eq!(FullSection::of_device_state(&sent), Some(cut_off));
    }

    #[test]
    fn a_section_before_the_ram_comes_back_as_it_was_sent() {
        for body in [&b""[..], b"\x7e\0\0\0\0\0\x06", b"{\"cpus\": 4}"] {
            let sent = FullSection { name: "vmm/config", version: 7, body };
            let early_state = sent.to_early_state().unwrap();
            assert_eq!(FullSection::of_early_state(&early_state), Some(sent));
            let twice = [&early_state[..], &early_state].concat();
            for other in [&twice[..], &early_state[1..], &early_state[..8], b""] {
                assert_eq!(FullSection::of_early_state(other), None);
            }
        }
    }

    #[test]
    fn a_section_before_the_ram_whose_end_would_be_seen_elsewhere_is_refused() {
        let inner = FullSection { name: "vmm/config", version: 1, body: b"x" };
        let body = [&inner.to_early_state().unwrap()[..], b"\x08\0\x01\0\0"].concat();
        FullSection { body: &body, ..inner }.to_early_state().unwrap_err();
        FullSection { version: 1 << 16, ..inner }.to_early_state().unwrap_err();
        FullSection { name: "umlaut ü", ..inner }.to_early_state().unwrap_err();
    }

    #[test]
    fn anything_but_one_whole_section_is_none() {
        let whole = FullSection { name: "vcpu", version: 1, body: b"registers" };
        let whole = whole.to_device_state(PageSize::Kib4).unwrap();
        for end in 0..whole.len() {
            assert_eq!(FullSection::of_device_state(&whole[..end]), None, "{end}");
        }
        assert_eq!(
            FullSection::of_device_state(&device_state::without_devices(PageSize::Kib4)),
            None
        );
        // The type byte, the section's number, the instance.
        for at in [0, 4, 13] {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            assert_eq!(FullSection::of_device_state(&broken), None, "{at}");
        }
        // Two devices: the last FOOTER is not the first section's.
        let section = |id| [&[4, 0, 0, 0, id, 1, b'd'], &[0; 8][..], &[0x7e, 0, 0, 0, id]].concat();
        let end = device_state::described_end(PageSize::Kib4, "");
        assert_eq!(FullSection::of_device_state(&[section(0), section(1), end].concat()), None);
    }
}
