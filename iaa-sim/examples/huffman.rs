//! What a page's own Huffman codes would gain over the fixed ones, and what they would cost a device: libqpl on
//! the hardware path, over the pages of a guest's RAM.
//!
//! ```text
//! cargo build --release -p multifd-iaa-sim --example huffman
//! IAA_SIM_COUNTERS_AT_EXIT=1 scripts/iaa -- target/release/examples/huffman target/guest-ram/guest.ram
//! ```

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for a person")]

use std::alloc::{Layout, alloc_zeroed};
use std::fs::File;
use std::io::Read;

use qpl_sys::{Flags, Job, Library, Operation, Path, Status};

const PAGE: usize = 4096;

/// Bytes a second of an engine that compresses, fitted to Intel's published times (docs/planning.md).
const ENGINE: f64 = 1.74e9;

struct Codes {
    name: &'static str,
    flags: u32,
    /// Descriptors of a page: with codes of its own, one counts its symbols first.
    passes: usize,
}

const CODES: [Codes; 2] = [
    Codes { name: "fixed", flags: 0, passes: 1 },
    Codes { name: "dynamic", flags: Flags::DYNAMIC_HUFFMAN, passes: 2 },
];

fn main() {
    let image = std::env::args().nth(1).expect("usage: huffman IMAGE");
    let mut bytes = Vec::new();
    File::open(&image).unwrap().read_to_end(&mut bytes).unwrap();
    let pages: Vec<_> =
        bytes.chunks_exact(PAGE).filter(|page| page.iter().any(|&byte| byte != 0)).collect();
    // Evenly over the image.
    let pages: Vec<_> = pages.iter().step_by(pages.len().div_ceil(8192)).collect();
    println!("{} pages of {image} that are not zero", pages.len());
    let library = Library::open().unwrap();
    let layout = Layout::from_size_align(library.job_size(Path::Hardware).unwrap(), Job::ALIGN);
    // SAFETY: the size is not 0. The memory is never given back.
    let job: *mut Job = unsafe { alloc_zeroed(layout.unwrap()) }.cast();
    for Codes { name, flags, passes } in CODES {
        let (mut sent, mut raw, mut shrunk_from, mut shrunk_to) = (0, 0, 0, 0);
        for page in &pages {
            match compress(&library, job, page, flags) {
                Some(bytes) => {
                    sent += bytes;
                    shrunk_from += PAGE;
                    shrunk_to += bytes;
                }
                None => {
                    sent += PAGE;
                    raw += 1;
                }
            }
        }
        let all = (pages.len() * PAGE) as f64;
        println!(
            "{name:8} ratio {:.3} ({:.3} of the pages that shrink), {raw} pages do not shrink; an engine takes {:.2} us \
             a page, {:.0} MB/s",
            all / sent as f64,
            shrunk_from as f64 / shrunk_to as f64,
            passes as f64 * PAGE as f64 / ENGINE * 1e6,
            ENGINE / passes as f64 / 1e6,
        );
    }
}

/// The bytes that a page shrinks to, if it does.
fn compress(library: &Library, job: *mut Job, page: &[u8], flags: u32) -> Option<usize> {
    let mut output = [0; PAGE - 1];
    // SAFETY: the memory is as large as libqpl wants it, and no job is in flight there. It is set up anew each time,
    // since a job keeps what a mode before has left.
    let status = unsafe { library.init_job(Path::Hardware, job) };
    assert_eq!(status, Status::OK, "no device: run this by scripts/iaa");
    // SAFETY: the job was set up.
    let fields = unsafe { &mut *job };
    fields.op = Operation::Compress as u32;
    fields.level = Job::LEVEL_1;
    fields.flags = Flags::FIRST | Flags::LAST | Flags::OMIT_VERIFY | flags;
    fields.numa_id = Job::NUMA_ANY;
    (fields.next_in_ptr, fields.available_in) = (page.as_ptr().cast_mut(), PAGE as u32);
    (fields.next_out_ptr, fields.available_out) = (output.as_mut_ptr(), output.len() as u32);
    // SAFETY: job and buffers live through the call, at whose end they are no longer used.
    let status = unsafe { library.execute_job(job) };
    // SAFETY: it has ended.
    let bytes = unsafe { (*job).total_out } as usize;
    match status {
        Status::OK => Some(bytes),
        Status::MORE_OUTPUT_NEEDED => None,
        status => panic!("{status}"),
    }
}
