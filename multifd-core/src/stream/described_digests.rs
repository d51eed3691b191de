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

use super::StreamErrorKind;
use crate::ram::BlockDigest;

const HEAD: &str = "{\"multifd\": {\"digests\": [";
const TAIL: &str = "]}, ";

/// The digests of the RAM blocks that the JSON of a VMDESCRIPTION says, in the order of the blocks;
/// `None` where it says none, as QEMU's does not.
pub(super) fn digests(json: &[u8]) -> Result<Option<Vec<BlockDigest>>, StreamErrorKind> {
    let malformed = StreamErrorKind::Digests;
    let Some(list) = json.strip_prefix(HEAD.as_bytes()) else { return Ok(None) };
    let Some(end) = list.iter().position(|&byte| byte == b']') else { return Err(malformed) };
    let (list, rest) = list.split_at(end);
    if !rest.starts_with(TAIL.as_bytes()) {
        return Err(malformed);
    }
    let Ok(list) = std::str::from_utf8(list) else { return Err(malformed) };
    let digest = |quoted: &str| quoted.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
    list.split(", ").map(digest).collect::<Option<_>>().map(Some).ok_or(malformed)
}

/// The JSON of a VMDESCRIPTION without what it says of the RAM.
pub(super) fn without_digests(json: &[u8]) -> Vec<u8> {
    [b"{", others(json)].concat()
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
    use super::super::device_state::{described_end, split_description};
    use super::*;
    use crate::PageSize;

    const ONE: &str = "00112233445566778899aabbccddeeff";
    const TWO: &str = "ffeeddccbbaa99887766554433221100";

    #[test]
    fn digests_are_read_as_they_were_written_and_replace_those_that_were_there() {
        let plain = described_end(PageSize::Kib4, "");
        let json = split_description(&plain).unwrap().1;
        assert_eq!(digests(json), Ok(None));
        let (one, two) = (ONE.parse().unwrap(), TWO.parse().unwrap());
        let first = with_digests(json, &[one]);
        assert_eq!(digests(&first), Ok(Some(vec![one])));
        let second = with_digests(&first, &[two, one]);
        assert_eq!(digests(&second), Ok(Some(vec![two, one])));
        assert!(second.ends_with(&json[1..]));
        assert_eq!(without_digests(&second), json);
        assert_eq!(second.windows(7).filter(|bytes| bytes == b"multifd").count(), 1);
    }

    #[test]
    fn what_no_source_of_ours_writes_is_malformed_or_not_looked_at() {
        let json = |inner: &str| {
            format!("{{\"multifd\": {inner}, \"page_size\": 4096, \"devices\": []}}").into_bytes()
        };
        for other in ["1", "{}", "{\"digest\": []}"] {
            assert_eq!(digests(&json(other)), Ok(None), "{other}");
        }
        let long = format!("\"{ONE}0\"");
        for wrong in ["", "1", "\"\"", ONE, "\"0011\"", &long, &format!("\"{ONE}\",\"{TWO}\"")] {
            let wrong = format!("{{\"digests\": [{wrong}]}}");
            assert_eq!(digests(&json(&wrong)), Err(StreamErrorKind::Digests), "{wrong}");
        }
        let more = format!("{{\"digests\": [\"{ONE}\"], \"more\": 1}}");
        assert_eq!(digests(&json(&more)), Err(StreamErrorKind::Digests));
    }
}
