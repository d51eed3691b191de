//! Which parts of a mapping may hold anything but zeros, as the kernel tells without a look at them.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{SeekFrom, fstatfs, major, minor, seek};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use vm_memory::FileOffset;

/// Parts that are no further apart than this, in bytes, are one. So memory that is touched here and
/// there does not become a long list, and little is read in vain.
const NEAR: u64 = 16 << 10;

/// Regions that one scan of the page tables returns at most.
const REGIONS: usize = 512;

/// The parts of the `len` bytes at `start` that may hold anything but zeros, in order, as offsets.
/// `None` where the kernel does not tell: it is too old, the memory is of another kind, or somebody
/// fills it in when it is touched (userfaultfd).
///
/// `file` is what is mapped there, if anything.
pub(super) fn data(start: usize, len: u64, file: Option<&FileOffset>) -> Option<Vec<Range<u64>>> {
    let addresses = start as u64..(start as u64).checked_add(len)?;
    match (Mapping::at(&addresses).ok()??, file) {
        (Mapping::Anonymous, None) => present(&addresses).ok(),
        (Mapping::Shared(shared), Some(file)) => shared.data(file, len).ok()?,
        _ => None,
    }
}

/// How a range of addresses is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mapping {
    /// Private memory of no file, which reads as zeros until it is written.
    Anonymous,
    Shared(SharedFile),
}

/// A file whose pages are the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SharedFile {
    /// Where in the file the memory starts.
    offset: u64,
    /// Major and minor number.
    device: (u32, u32),
    inode: u64,
}

impl Mapping {
    /// The mapping that has all of `addresses`; `None` where these are of different ones, or of one
    /// whose untouched pages may not be zero.
    fn at(addresses: &Range<u64>) -> io::Result<Option<Self>> {
        Self::find(BufReader::new(File::open("/proc/self/smaps")?), addresses)
    }

    fn find(smaps: impl BufRead, addresses: &Range<u64>) -> io::Result<Option<Self>> {
        let mut found: Option<Self> = None;
        let mut here = None;
        let mut covered = addresses.start;
        for line in smaps.lines() {
            let line = line?;
            if let Some(area) = Area::parse(&line) {
                if area.addresses.start >= addresses.end {
                    break;
                }
                here = (area.addresses.end > addresses.start).then_some(area);
            } else if let Some(flags) = line.strip_prefix("VmFlags:") {
                let Some(area) = here.take() else { continue };
                // Missing or minor faults of these pages are for somebody in user space to resolve.
                let mut flags = flags.split_ascii_whitespace();
                let filled_in = flags.any(|flag| matches!(flag, "um" | "ui"));
                let mapping = area.mapping(addresses).filter(|_| !filled_in);
                let same = found.is_none() || found == mapping;
                if mapping.is_none() || !same || area.addresses.start > covered {
                    return Ok(None);
                }
                (found, covered) = (mapping, area.addresses.end);
            }
        }
        Ok(found.filter(|_| covered >= addresses.end))
    }
}

/// The first line of an area in `smaps`.
#[derive(Debug)]
struct Area {
    addresses: Range<u64>,
    shared: bool,
    offset: u64,
    device: (u32, u32),
    inode: u64,
}

impl Area {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let [permissions, offset, device, inode] = [(); 4].map(|()| words.next());
        let (major, minor) = device?.split_once(':')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        Some(Self {
            addresses: hex(start)?..hex(end)?,
            shared: permissions?.ends_with('s'),
            offset: hex(offset?)?,
            device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
            inode: inode?.parse().ok()?,
        })
    }

    /// How the part of `addresses` that is in this area is mapped, as seen from their start.
    fn mapping(&self, addresses: &Range<u64>) -> Option<Mapping> {
        let Self { device, inode, .. } = *self;
        match (self.shared, inode) {
            (false, 0) => Some(Mapping::Anonymous),
            (true, 1..) => {
                let offset = (self.offset + addresses.start).checked_sub(self.addresses.start)?;
                Some(Mapping::Shared(SharedFile { offset, device, inode }))
            }
            // A private mapping of a file has pages of its own where it was written.
            _ => None,
        }
    }
}

impl SharedFile {
    /// The parts of `file`, of `len` bytes from where this is mapped on, that are not holes.
    fn data(&self, file: &FileOffset, len: u64) -> io::Result<Option<Vec<Range<u64>>>> {
        // A descriptor of our own: seeking moves the position that all others share.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.file().as_raw_fd()));
        let opened = File::open(path)?;
        let status = opened.metadata()?;
        let device = (major(status.dev()), minor(status.dev()));
        let same = (device, status.ino(), file.start()) == (self.device, self.inode, self.offset);
        let whole = self.offset.checked_add(len).filter(|&end| end <= status.len());
        let Some(end) = whole.filter(|_| same) else { return Ok(None) };
        // Others may have it mapped to be written, even where this mapping is only to be read.
        if !knows_mapped_writes(&opened)? {
            return Ok(None);
        }
        let mut parts = Parts::default();
        let mut at = self.offset;
        while at < end {
            let start = match seek(&opened, SeekFrom::Data(at)) {
                Ok(start) if start < end => start,
                // No data up to the end of the file.
                Ok(_) | Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            at = seek(&opened, SeekFrom::Hole(start))?.min(end);
            parts.add(start - self.offset..at - self.offset);
        }
        Ok(Some(parts.0))
    }
}

/// Whether the file's system says of a page that it is data as soon as it has been written through a
/// mapping, as tmpfs (so every memfd), ext4 and XFS do; others may say so only when it is written
/// back.
fn knows_mapped_writes(file: &File) -> io::Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    const EXT: i64 = 0xef53;
    const XFS: i64 = 0x5846_5342;
    #[allow(clippy::useless_conversion, reason = "its type is not the same everywhere")]
    let kind = i64::from(fstatfs(file)?.f_type);
    Ok([TMPFS, EXT, XFS].contains(&kind))
}

/// The parts of private anonymous memory that somebody has written and that are in memory or in
/// swap. Needs Linux 6.7.
fn present(addresses: &Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut parts = Parts::default();
    let mut regions = [Region::default(); REGIONS];
    let mut at = addresses.start;
    while at < addresses.end {
        let (count, reached) = scan(&pagemap, at..addresses.end, &mut regions)?;
        for region in &regions[..count] {
            parts.add(region.start - addresses.start..region.end - addresses.start);
        }
        if reached <= at {
            return Err(io::ErrorKind::Unsupported.into());
        }
        at = reached;
    }
    Ok(parts.0)
}

/// `struct pm_scan_arg` of Linux.
#[derive(Debug, Default)]
#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    returned: u64,
}

/// `struct page_region` of Linux.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Scans the page tables for pages that are present or swapped out, and not the shared page of
/// zeros. Returns how many regions there are, and the address up to which was looked.
fn scan(pagemap: &File, addresses: Range<u64>, regions: &mut [Region]) -> io::Result<(usize, u64)> {
    const PRESENT: u64 = 1 << 3;
    const SWAPPED: u64 = 1 << 4;
    const ZERO: u64 = 1 << 5;
    const PAGEMAP_SCAN: Opcode = opcode::read_write::<ScanArguments>(b'f', 16);
    let mut arguments = ScanArguments {
        size: size_of::<ScanArguments>() as u64,
        start: addresses.start,
        end: addresses.end,
        regions: regions.as_mut_ptr() as u64,
        regions_len: regions.len() as u64,
        inverted: ZERO,
        all_of: ZERO,
        any_of: PRESENT | SWAPPED,
        // What the kernel writes is found by that.
        ..ScanArguments::default()
    };
    regions.fill(Region::default());
    // SAFETY: the opcode is that of PAGEMAP_SCAN, whose argument is `struct pm_scan_arg`.
    let scan = unsafe { Updater::<PAGEMAP_SCAN, _>::new(&mut arguments) };
    // SAFETY: the kernel reads and writes the arguments, and writes as many regions as they say at
    // most, where they say: all of that is borrowed until it returns. Any bytes are a region. It only
    // looks at the page tables: without flags nothing is write-protected.
    unsafe { ioctl(pagemap, scan)? };
    // Regions are not empty.
    let count = regions.iter().take_while(|region| region.start < region.end).count();
    Ok((count, arguments.walk_end))
}

/// Parts in order.
#[derive(Debug, Default)]
struct Parts(Vec<Range<u64>>);

impl Parts {
    /// Adds a part behind the others.
    fn add(&mut self, part: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if part.start <= last.end.saturating_add(NEAR) => last.end = part.end,
            _ => self.0.push(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, MmapRegion};

    use super::super::BlockMemory;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn find(smaps: &str, addresses: Range<u64>) -> Option<Mapping> {
        Mapping::find(smaps.as_bytes(), &addresses).unwrap()
    }

    const SMAPS: &str = "\
1000-3000 rw-p 00000000 00:00 0
Size:                  8 kB
VmFlags: rd wr mr mw me ac nr
3000-4000 rw-p 00000000 00:00 0                          [anon:more]
VmFlags: rd wr mr mw me ac
5000-6000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me ac um
8000-9000 rw-s 00002000 00:01 1025                       /memfd:ram (deleted)
VmFlags: rd wr sh mr mw me ms
9000-a000 rw-s 00003000 00:01 1025                       /memfd:ram (deleted)
VmFlags: rd wr sh mr mw me ms
a000-b000 r--p 00000000 fe:00 77                         /vm/pc.ram
VmFlags: rd mr mw me
";

    #[test]
    fn areas_side_by_side_are_one_mapping_and_gaps_are_none() {
        assert_eq!(find(SMAPS, 0x1000..0x4000), Some(Mapping::Anonymous));
        assert_eq!(find(SMAPS, 0x2000..0x3000), Some(Mapping::Anonymous));
        for outside in [0..0x2000, 0x3000..0x4001, 0x4000..0x5000, 0x3000..0x6000, 0xb000..0xc000] {
            assert_eq!(find(SMAPS, outside.clone()), None, "{outside:x?}");
        }
    }

    #[test]
    fn memory_that_somebody_fills_in_when_it_is_touched_is_not_known_to_be_zero() {
        assert_eq!(find(SMAPS, 0x5000..0x6000), None);
    }

    #[test]
    fn a_shared_file_is_known_by_its_place_and_a_private_one_is_not() {
        let file = SharedFile { offset: 0x2800, device: (0, 1), inode: 1025 };
        assert_eq!(find(SMAPS, 0x8800..0xa000), Some(Mapping::Shared(file)));
        assert_eq!(find(SMAPS, 0xa000..0xb000), None);
        assert_eq!(find(SMAPS, 0x9000..0xb000), None);
    }

    #[test]
    fn parts_that_are_near_each_other_are_one() {
        let mut parts = Parts::default();
        parts.add(0..4096);
        parts.add(4096 + NEAR..MIB);
        parts.add(MIB + NEAR + 1..2 * MIB);
        assert_eq!(parts.0, [0..MIB, MIB + NEAR + 1..2 * MIB]);
    }

    /// The parts that the memory says may have data, and whether each byte outside is zero, which
    /// must be so.
    fn data(memory: &MmapRegion) -> Option<Vec<Range<u64>>> {
        let parts = memory.data()?;
        let mut bytes = vec![0_u8; memory.size()];
        BlockMemory::slice(memory, 0, bytes.len()).unwrap().copy_to(&mut bytes[..]);
        for part in &parts {
            bytes[part.start as usize..part.end as usize].fill(0);
        }
        assert_eq!(bytes.iter().position(|&byte| byte != 0), None, "{parts:?}");
        Some(parts)
    }

    #[test]
    fn what_is_written_to_anonymous_memory_is_data_and_what_is_only_read_is_not() {
        let memory = MmapRegion::<()>::new(64 << 20).unwrap();
        let scans = File::open("/proc/self/pagemap").is_ok_and(|pagemap| {
            let start = memory.as_ptr() as u64;
            scan(&pagemap, start..start + 4096, &mut [Region::default()]).is_ok()
        });
        if !scans {
            assert_eq!(data(&memory), None);
            // Not by eprintln, which is captured: it is to be seen.
            _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!("skipped: this kernel has no PAGEMAP_SCAN (Linux 6.7)\n"),
            );
            return;
        }
        for page in 0..2000 {
            let slice = BlockMemory::slice(&memory, page * 8192, 1).unwrap();
            if page % 2 == 0 {
                slice.write_obj(7_u8, 0).unwrap();
            } else {
                _ = slice.read_obj::<u8>(0);
            }
        }
        let slice = BlockMemory::slice(&memory, (40 << 20) + 5, 1).unwrap();
        slice.write_obj(7_u8, 0).unwrap();
        let parts = data(&memory).unwrap();
        assert_eq!(parts.len(), 2, "{parts:?}");
        assert!(parts[0].start == 0 && parts[0].end < 17 * MIB, "{parts:?}");
        assert!(parts[1].contains(&(40 * MIB)) && parts[1].end < 43 * MIB, "{parts:?}");
    }

    #[test]
    fn a_memfds_holes_are_known_and_its_position_stays() {
        use std::io::Seek;
        let memfd = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(memfd);
        file.set_len(16 * MIB).unwrap();
        file.seek(io::SeekFrom::Start(123)).unwrap();
        let part = FileOffset::new(file.try_clone().unwrap(), 4 * MIB);
        let memory = MmapRegion::<()>::from_file(part, 8 << 20).unwrap();
        // Not read here: that would fill the holes.
        assert_eq!(memory.data(), Some(Vec::new()));
        file.write_all_at(&[1], 4 * MIB - 1).unwrap();
        file.write_all_at(&[1], 12 * MIB).unwrap();
        BlockMemory::slice(&memory, 2 << 20, 1).unwrap().write_obj(7_u8, 0).unwrap();
        let parts = data(&memory).unwrap();
        assert!(parts.len() == 1 && parts[0].contains(&(2 * MIB)), "{parts:?}");
        assert!(parts[0].end - parts[0].start <= 2 * MIB, "{parts:?}");
        assert_eq!(file.stream_position().unwrap(), 123);
        // Now too short for the mapping: to read it would be a fault, as it always was.
        file.set_len(5 * MIB).unwrap();
        assert_eq!(memory.data(), None);
    }

    #[test]
    fn a_file_that_is_mapped_privately_is_read() {
        let memfd = rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(memfd);
        file.set_len(MIB).unwrap();
        // MAP_PRIVATE | MAP_NORESERVE, PROT_READ | PROT_WRITE.
        let memory =
            MmapRegion::<()>::build(Some(FileOffset::new(file, 0)), MIB as usize, 3, 0x4002);
        assert_eq!(memory.unwrap().data(), None);
    }
}
