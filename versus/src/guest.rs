//! The guest's RAM: that of a real guest, made as large as is asked for.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;

use crate::error::Error;

/// Pages that stay beside each other, in bytes: a huge page, so that as many huge pages are empty as in
/// the real guest, and neighbours have as much in common.
const GROUP: u64 = 2 << 20;

const PAGE: usize = 4096;

/// How much RAM a guest has, of whole 2 MiB and not none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct GuestSize {
    mib: u64,
}

impl GuestSize {
    /// `None` where it is not of whole 2 MiB, or none.
    pub(crate) fn of_bytes(bytes: u64) -> Option<Self> {
        (bytes > 0 && bytes % GROUP == 0).then_some(Self { mib: bytes >> 20 })
    }

    pub(crate) fn mib(self) -> u64 {
        self.mib
    }

    pub(crate) fn bytes(self) -> u64 {
        self.mib << 20
    }

    fn groups(self) -> u64 {
        self.bytes() / GROUP
    }
}

/// `512M` or `4G`, in powers of 1024.
impl FromStr for GuestSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a size such as 512M or 4G, of whole 2 MiB");
        let (number, shift) = match (text.strip_suffix('M'), text.strip_suffix('G')) {
            (Some(number), _) => (number, 20),
            (None, Some(number)) => (number, 30),
            (None, None) => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(1 << shift);
        bytes.and_then(Self::of_bytes).ok_or_else(wrong)
    }
}

impl fmt::Display for GuestSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mib {
            mib if mib % 1024 == 0 => write!(f, "{} GiB", mib / 1024),
            mib => write!(f, "{mib} MiB"),
        }
    }
}

/// What a guest's RAM holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Guest {
    #[serde(rename = "mib")]
    pub(crate) size: GuestSize,
    pub(crate) pages_not_zero: u64,
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_zero = self.pages_not_zero as f64 * PAGE as f64 / f64::from(1 << 20);
        write!(f, "guest of {}, {not_zero:.0} MiB of it not zero", self.size)
    }
}

/// Writes the RAM of a guest of this size to a new file: the groups of the real guest's again and
/// again, each time in another order, the same on every machine.
pub(crate) fn write(real: &Path, size: GuestSize, to: &Path) -> Result<Guest, Error> {
    let shown = real.display();
    let from = File::open(real).map_err(Error::io(format!("open {shown}")))?;
    let bytes = from.metadata().map_err(Error::io(format!("read {shown}")))?.len();
    let real = GuestSize::of_bytes(bytes);
    let real = real.ok_or_else(|| Error::Other(format!("{shown} is not of whole 2 MiB")))?;
    let writing = || format!("write {}", to.display());
    let file = File::create_new(to).map_err(Error::io(writing()))?;
    file.set_len(size.bytes()).map_err(Error::io(writing()))?;
    let mut pages_not_zero = 0;
    let mut group = vec![0; GROUP as usize];
    for (at, which) in order(real.groups(), size.groups()).into_iter().enumerate() {
        from.read_exact_at(&mut group, which * GROUP)
            .map_err(Error::io(format!("read {shown}")))?;
        let not_zero = group.chunks(PAGE).filter(|page| page.iter().any(|&byte| byte != 0)).count();
        pages_not_zero += not_zero as u64;
        if not_zero > 0 {
            file.write_all_at(&group, at as u64 * GROUP).map_err(Error::io(writing()))?;
        }
    }
    Ok(Guest { size, pages_not_zero })
}

/// For each group of the guest, which of the real guest's it is.
fn order(real: u64, guest: u64) -> Vec<u64> {
    let copies = guest.div_ceil(real);
    let all = (0..copies).flat_map(|copy| permutation(real, copy));
    all.take(usize::try_from(guest).unwrap_or(usize::MAX)).collect()
}

/// The numbers below `count` in an order that the seed decides (Fisher and Yates).
fn permutation(count: u64, seed: u64) -> Vec<u64> {
    let mut random = Random(seed);
    let mut order: Vec<u64> = (0..count).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, (random.next() % (last as u64 + 1)) as usize);
    }
    order
}

/// `SplitMix64`, which is the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use std::collections::HashMap;
    use std::fs;

    use super::*;

    pub(crate) fn guest() -> Guest {
        Guest { size: "4G".parse().unwrap(), pages_not_zero: 428_640 }
    }

    #[test]
    fn a_size_is_of_whole_2_mib() {
        let size = |text: &str| text.parse::<GuestSize>().map(GuestSize::mib).ok();
        assert_eq!((size("512M"), size("4G"), size("2M")), (Some(512), Some(4096), Some(2)));
        for bad in ["", "4", "3M", "0G", "-2M", "4T", "G", "99999999999999999G"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        let shown = |text: &str| text.parse::<GuestSize>().unwrap().to_string();
        assert_eq!((shown("4096M"), shown("512M")), ("4 GiB".to_owned(), "512 MiB".to_owned()));
    }

    #[test]
    fn every_copy_has_every_group_once_and_an_order_of_its_own() {
        let order = order(256, 2048);
        let copies: Vec<_> = order.chunks(256).collect();
        assert_eq!(copies.len(), 8);
        for (at, copy) in copies.iter().enumerate() {
            let mut sorted = copy.to_vec();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..256));
            assert!(!copies[..at].contains(copy));
        }
    }

    /// Or else a codec that remembers what it has seen would send it once.
    #[test]
    fn equal_groups_are_further_apart_than_any_codec_remembers() {
        let mut seen = HashMap::new();
        let mut least = usize::MAX;
        for (at, which) in order(256, 2048).into_iter().enumerate() {
            if let Some(before) = seen.insert(which, at) {
                least = least.min(at - before);
            }
        }
        assert!(least > 4, "{least} groups of 2 MiB");
    }

    #[test]
    fn what_is_written_are_the_groups_in_their_order_with_as_many_pages_not_zero() {
        let folder = tempfile::tempdir().unwrap();
        let (real, to) = (folder.path().join("real"), folder.path().join("to"));
        let group = GROUP as usize;
        let mut bytes = vec![0; 3 * group];
        // A full group, one with a page that is not zero, and an empty one.
        bytes[..group].fill(1);
        bytes[2 * group - 1] = 2;
        fs::write(&real, &bytes).unwrap();
        let guest = write(&real, "10M".parse().unwrap(), &to).unwrap();
        let written = fs::read(&to).unwrap();
        let order = order(3, 5);
        for (found, &which) in written.chunks(group).zip(&order) {
            assert!(found == &bytes[which as usize * group..][..group]);
        }
        let pages = |which: &u64| [512, 1, 0][*which as usize];
        assert_eq!(guest.pages_not_zero, order.iter().map(pages).sum::<u64>());
        assert_eq!(written.len() as u64, guest.size.bytes());

        fs::write(&real, [0; PAGE]).unwrap();
        let error = write(&real, guest.size, &folder.path().join("other")).unwrap_err();
        assert!(error.to_string().ends_with("is not of whole 2 MiB"), "{error}");
    }
}
