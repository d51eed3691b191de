//! The digests of the RAM, in the VMDESCRIPTION.
//!
//! The VMDESCRIPTION is JSON that tells people and tools what the device state is made of; a QEMU reads
//! over it. So a source of ours puts in front of the object's other keys what its RAM holds, a digest for
//! each block in the order of the list in `ram`'s START:
//!
//! ```json
//! {"multifd": {"digests": ["00112233445566778899aabbccddeeff"]}, "page_size": 4096, "devices": []}
//! ```
//!
//! It is always written like that, to the byte, and only read if it is.

use super::device_state::{split_description, with_json};
use crate::ram::BlockDigest;

const HEAD: &str = "{\"multifd\": {\"digests\": [";
const TAIL: &str = "]}, ";

/// Digests in a VMDESCRIPTION that are not what a source writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the digests of the RAM in the VMDESCRIPTION are malformed")]
#[non_exhaustive]
pub struct MalformedDigests;

/// The digests of the RAM blocks that a device state says, in the order of the blocks; `None` where it
/// says none, as QEMU's does not.
///
/// # Errors
/// Digests that are malformed.
pub fn described_digests(
    device_state: &[u8],
) -> Result<Option<Vec<BlockDigest>>, MalformedDigests> {
    let Some((_, json)) = split_description(device_state) else { return Ok(None) };
    let Some(list) = json.strip_prefix(HEAD.as_bytes()) else { return Ok(None) };
    let end = list.iter().position(|&byte| byte == b']').ok_or(MalformedDigests)?;
    let (list, rest) = list.split_at(end);
    if !rest.starts_with(TAIL.as_bytes()) {
        return Err(MalformedDigests);
    }
    let list = std::str::from_utf8(list).map_err(|_| MalformedDigests)?;
    let digest = |quoted: &str| {
        let text = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        text.and_then(|text| text.parse().ok()).ok_or(MalformedDigests)
    };
    list.split(", ").map(digest).collect::<Result<_, _>>().map(Some)
}

/// Removes from a device state what it says of the RAM. Its sections, which may be much, stay in place.
pub(super) fn remove_digests(device_state: &mut Vec<u8>) {
    let Some((sections, json)) = split_description(device_state) else { return };
    let end = with_json(&[b"{", others(json)].concat());
    let sections = sections.len();
    device_state.truncate(sections);
    device_state.extend_from_slice(&end);
}

/// The JSON of a VMDESCRIPTION behind its brace and the digests that it may have.
fn others(json: &[u8]) -> &[u8] {
    let own = json.strip_prefix(HEAD.as_bytes()).and_then(|rest| {
        let tail = rest.windows(TAIL.len()).position(|bytes| bytes == TAIL.as_bytes())?;
        Some(&rest[tail + TAIL.len()..])
    });
    // It is an object with a key at least.
    own.or(json.get(1..)).unwrap_or_default()
}

/// The JSON of a VMDESCRIPTION with these digests, in place of any that it has.
pub(super) fn with_digests(json: &[u8], digests: &[BlockDigest]) -> Vec<u8> {
    let others = others(json);
    let list: Vec<_> = digests.iter().map(|digest| format!("\"{digest}\"")).collect();
    [HEAD.as_bytes(), list.join(", ").as_bytes(), TAIL.as_bytes(), others].concat()
}

#[cfg(test)]
mod tests {
    use super::super::device_state::described_end;
    use super::*;
    use crate::PageSize;

    const ONE: &str = "00112233445566778899aabbccddeeff";
    const TWO: &str = "ffeeddccbbaa99887766554433221100";

    fn state(json: &[u8]) -> Vec<u8> {
        with_json(json)
    }

    #[test]
    fn digests_are_read_as_they_were_written_and_replace_those_that_were_there() {
        let plain = described_end(PageSize::Kib4, "");
        assert_eq!(described_digests(&plain), Ok(None));
        let json = split_description(&plain).unwrap().1;
        let (one, two) = (ONE.parse().unwrap(), TWO.parse().unwrap());
        let first = with_digests(json, &[one]);
        assert_eq!(described_digests(&state(&first)), Ok(Some(vec![one])));
        let second = with_digests(&first, &[two, one]);
        assert_eq!(described_digests(&state(&second)), Ok(Some(vec![two, one])));
        assert!(second.ends_with(&json[1..]));
        let mut removed = state(&second);
        remove_digests(&mut removed);
        assert_eq!(removed, plain);
        assert_eq!(second.windows(7).filter(|bytes| bytes == b"multifd").count(), 1);
    }

    #[test]
    fn what_no_source_of_ours_writes_is_malformed_or_not_looked_at() {
        let state = |inner: &str| {
            state(
                format!("{{\"multifd\": {inner}, \"page_size\": 4096, \"devices\": []}}")
                    .as_bytes(),
            )
        };
        for other in ["1", "{}", "{\"digest\": []}"] {
            assert_eq!(described_digests(&state(other)), Ok(None), "{other}");
        }
        let long = format!("\"{ONE}0\"");
        for wrong in ["", "1", "\"\"", ONE, "\"0011\"", &long, &format!("\"{ONE}\",\"{TWO}\"")] {
            let wrong = format!("{{\"digests\": [{wrong}]}}");
            assert_eq!(described_digests(&state(&wrong)), Err(MalformedDigests), "{wrong}");
        }
        let more = format!("{{\"digests\": [\"{ONE}\"], \"more\": 1}}");
        assert_eq!(described_digests(&state(&more)), Err(MalformedDigests));
    }
}
