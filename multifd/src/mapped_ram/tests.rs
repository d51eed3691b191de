use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt, MetadataExt};

use multifd_core::PageSize;
use multifd_core::ram::{Ram, RamBlock};
use multifd_core::vm_memory::MmapRegion;
use multifd_core::wire::BlockName;
use proptest::prelude::*;
use tempfile::tempfile;

use super::*;
use crate::Vm;
use crate::early_state::EarlyState;
use crate::stream::{
    BlockInfo, Configuration, FullSection, Limits, StreamErrorKind, Subsection, SubsectionData,
    SyncForm,
};

const BLOCKS: [(&str, u64); 3] = [("pc.ram", 3 << 20), ("rom", 8192), ("vga", (1 << 20) + 4096)];

fn ram_of(blocks: &[(&str, u64)]) -> Ram {
    let blocks = blocks.iter().map(|&(name, bytes)| {
        let memory = MmapRegion::<()>::new(bytes as usize).unwrap();
        RamBlock::new(BlockName::new(name).unwrap(), memory)
    });
    Ram::new(PageSize::Kib4, blocks).unwrap()
}

/// RAM of which every third page has something.
fn guest() -> Ram {
    let ram = ram_of(&BLOCKS);
    for block in ram.blocks() {
        for page in (0..block.bytes() / 4096).filter(|page| page % 3 == 1) {
            block.write(page * 4096 + page % 4096, &[page as u8 | 1; 1]);
        }
    }
    ram
}

fn vm() -> Vm {
    let mut configuration = Configuration::new("pc-i440fx-10.0");
    let uuid = multifd_core::wire::Uuid([9; 16]);
    configuration.subsections = vec![Subsection::new(SubsectionData::Uuid(uuid))];
    let device = FullSection { name: "device", version: 1, body: b"registers" };
    let early = FullSection { name: "early", version: 1, body: b"state" };
    let blocks =
        BLOCKS.map(|(name, bytes)| BlockInfo::new(BlockName::new(name).unwrap(), bytes)).to_vec();
    Vm {
        configuration,
        uuid,
        blocks,
        section_id: 2,
        footers: true,
        early_state: EarlyState::from(early.to_early_state().unwrap()),
        device_state: device.to_device_state(PageSize::Kib4).unwrap(),
        ..Vm::default()
    }
}

fn content(ram: &Ram) -> Vec<Vec<u8>> {
    let bytes = |block: &std::sync::Arc<RamBlock>| {
        let mut bytes = vec![0; block.bytes() as usize];
        block.slice(0, bytes.len()).copy_to(&mut bytes[..]);
        bytes
    };
    ram.blocks().iter().map(bytes).collect()
}

/// A file with the VM, from byte `offset` on.
fn saved(offset: u64) -> File {
    let file = tempfile().unwrap();
    let end = Writer::new(&file).offset(offset).threads(3).write(&vm(), &guest()).unwrap();
    assert_eq!(end, file.metadata().unwrap().len());
    file
}

fn open(file: &File, offset: u64) -> Result<MappedRam, MappedRamError> {
    MappedRam::open(file.try_clone().unwrap(), offset, Limits::default())
}

#[test]
fn what_is_written_is_read_again_wherever_it_begins() {
    for offset in [0, 1, 92, 4096, (1 << 20) + 7] {
        let file = saved(offset);
        let read = open(&file, offset).unwrap();
        assert_eq!(*read.vm(), vm());
        for threads in [1, 4] {
            let ram = ram_of(&BLOCKS);
            // What was there before is not left where the file has nothing.
            ram.blocks()[0].write(0, &[7; 8192]);
            read.load(&ram, threads).unwrap();
            assert!(content(&ram) == content(&guest()));
        }
        for block in read.blocks() {
            assert_eq!(block.pages_offset % (1 << 20), 0);
        }
    }
}

#[test]
fn pages_of_zeros_take_no_room_and_are_not_said_to_be_there() {
    let (file, ram) = (tempfile().unwrap(), ram_of(&BLOCKS));
    ram.blocks()[0].write(5 * 4096, &[1]);
    Writer::new(&file).write(&vm(), &ram).unwrap();
    let read = open(&file, 0).unwrap();
    let pages = 5 * 4096..6 * 4096;
    assert_eq!(read.data(0).unwrap(), std::slice::from_ref(&pages));
    assert_eq!(read.data(1).unwrap(), []);
    assert!(file.metadata().unwrap().blocks() * 512 < 100_000);
}

#[test]
fn what_is_behind_a_clear_bit_is_zero_whatever_the_file_has_there() {
    let file = saved(0);
    let pages = open(&file, 0).unwrap().blocks()[0].pages_offset;
    file.write_all_at(&[9; 4096], pages).unwrap();
    let ram = ram_of(&BLOCKS);
    open(&file, 0).unwrap().load(&ram, 2).unwrap();
    assert!(content(&ram) == content(&guest()));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let whole = saved(0).metadata().unwrap().len();
    let blocks = open(&saved(0), 0).unwrap().blocks().to_vec();
    let end = blocks[2].end();
    let inside = blocks.iter().flat_map(|block| {
        [block.bitmap_offset - 30, block.bitmap_offset, block.pages_offset, block.end() - 1]
    });
    // Some sources have no VMDESCRIPTION: what ends where one would begin is whole without.
    let state = vm().device_state;
    let (sections, _) = crate::stream::split_description(&state).unwrap();
    let undescribed = whole - (state.len() - sections.len() - 1) as u64;
    for length in inside.chain(end..whole).chain(0..100).filter(|&at| at != undescribed) {
        let file = saved(0);
        file.set_len(length).unwrap();
        let error = open(&file, 0).unwrap_err();
        let cut_off = match &error {
            MappedRamError::CutOff { .. } => true,
            MappedRamError::Stream(error) => {
                matches!(error.kind, StreamErrorKind::Truncated { .. })
            }
            _ => false,
        };
        assert!(cut_off, "{length}: {error}");
    }
}

/// The file with `bytes` at `at`.
fn changed(at: u64, bytes: &[u8]) -> File {
    let file = saved(0);
    file.write_all_at(bytes, at).unwrap();
    file
}

#[test]
fn what_is_not_as_it_says_is_refused_by_what_is_wrong() {
    let blocks = open(&saved(0), 0).unwrap().blocks().to_vec();
    let header = blocks[0].bitmap_offset - 28;
    let kind = |file: &File| match open(file, 0).unwrap_err() {
        MappedRamError::Stream(error) => error.kind,
        other => panic!("{other}"),
    };
    assert_eq!(kind(&changed(header, &[0, 0, 0, 2])), StreamErrorKind::MappedRamVersion(2));
    let pages = kind(&changed(header + 4, &8192_u64.to_be_bytes()));
    assert!(matches!(pages, StreamErrorKind::MappedRamPageSize { found: 8192, .. }));
    let overlaps = [
        // The bitmap is within its header, or ends behind where the pages begin.
        (12, header),
        (12, blocks[0].pages_offset - 8),
        // The pages overlap the bitmap, are not of whole pages, or run past the end of all files.
        (20, blocks[0].bitmap_offset),
        (20, blocks[0].pages_offset + 512),
        (20, u64::MAX - 4095),
        (20, i64::MAX as u64 - 4095),
    ];
    for (at, offset) in overlaps {
        let found = kind(&changed(header + at, &offset.to_be_bytes()));
        assert!(
            matches!(found, StreamErrorKind::MappedRamPlace { .. }),
            "{at} {offset:#x}: {found}"
        );
    }
    let far = changed(header + 20, &(1_u64 << 40).to_be_bytes());
    assert!(matches!(open(&far, 0), Err(MappedRamError::CutOff { .. })));
    // 259 pages: the last word has room for more.
    let last = &blocks[2];
    let behind = changed(last.bitmap_offset + 32, &[0b1000]);
    let read = open(&behind, 0).unwrap();
    assert!(matches!(read.data(2), Err(MappedRamError::Bitmap(name)) if name.as_str() == "vga"));
    assert!(matches!(read.load(&ram_of(&BLOCKS), 1), Err(MappedRamError::Bitmap(_))));
}

#[test]
fn a_stream_of_another_kind_and_pages_within_the_stream_are_refused() {
    let mut encoder = crate::stream::MainEncoder::new();
    encoder.header(&Configuration::new("pc-i440fx-10.0")).unwrap();
    encoder.ram_start(2, 0, &vm().blocks, SyncForm::Flush).unwrap();
    let mut file = tempfile().unwrap();
    file.write_all(encoder.bytes()).unwrap();
    let error = open(&file, 0).unwrap_err();
    assert!(error.to_string().contains("not a file in the mapped-ram format"), "{error}");

    let file = saved(0);
    // Behind the list: its EOS. A page's word is no more than an error there, and in the END as well.
    let end = open(&file, 0).unwrap().blocks()[2].end();
    for (at, word) in [(0, 0x08_u64), (0, 0x200), (8 + 5 + 5, 0x08), (8 + 5 + 5, 0x200)] {
        let file = changed(end + at, &word.to_be_bytes());
        let error = open(&file, 0).unwrap_err();
        let MappedRamError::Stream(error) = error else { panic!("{error}") };
        assert!(matches!(error.kind, StreamErrorKind::Misplaced(_)), "{at} {word:#x}: {error}");
        assert_eq!(error.offset, end + at);
    }
}

#[test]
fn ram_that_is_not_the_vms_is_refused_both_ways() {
    let file = saved(0);
    let read = open(&file, 0).unwrap();
    for blocks in
        [&BLOCKS[..2], &[BLOCKS[0], BLOCKS[2], BLOCKS[1]], &[BLOCKS[0], BLOCKS[1], ("vga", 4096)]]
    {
        let ram = ram_of(blocks);
        assert!(matches!(read.load(&ram, 1), Err(MappedRamError::OtherRam)));
        let written = Writer::new(&tempfile().unwrap()).write(&vm(), &ram);
        assert!(matches!(written, Err(MappedRamError::OtherRam)));
    }
}

#[test]
fn a_full_disk_and_a_caller_that_stops_are_said() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = Writer::new(&full).write(&vm(), &guest()).unwrap_err();
    let MappedRamError::Write { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    let file = tempfile().unwrap();
    let stopped = Writer::new(&file).watched_by(&|_| false).write(&vm(), &guest());
    assert!(matches!(stopped, Err(MappedRamError::Stopped)));
    // What there is by then is not taken for a VM.
    open(&file, 0).unwrap_err();
}

#[test]
fn what_is_done_is_counted_with_what_is_known_to_be_zero() {
    let (done, ram) = (std::sync::atomic::AtomicU64::new(0), guest());
    let watch = |bytes| done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) < u64::MAX;
    Writer::new(&tempfile().unwrap()).threads(2).watched_by(&watch).write(&vm(), &ram).unwrap();
    assert_eq!(done.into_inner(), ram.bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a file's stream holds: an error, or a VM whose pages lie in the file.
    #[test]
    fn a_file_with_bytes_changed_is_read_or_refused(
        changes in prop::collection::vec((0_u64..400, any::<u8>()), 1..6),
        at_end in any::<bool>(),
    ) {
        let mut file = saved(0);
        let from = if at_end { open(&file, 0).unwrap().blocks()[2].end() } else { 0 };
        for (at, byte) in changes {
            file.seek(SeekFrom::Start(from + at)).unwrap();
            file.write_all(&[byte]).unwrap();
        }
        let length = file.metadata().unwrap().len();
        if let Ok(read) = open(&file, 0) {
            for (index, block) in read.blocks().iter().enumerate() {
                prop_assert!(block.end() <= length);
                _ = read.data(index);
            }
        }
    }
}
