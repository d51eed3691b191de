//! What is made without libqpl: every decoder takes it, not only the ones that receive here.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use crate::support::streams::text;
use crate::support::{chunks, on, pages, without_libqpl};
use flate2::{Decompress, FlushDecompress, Status};
use multifd_qpl::Path;
use proptest::prelude::*;
use qpl_sys::{Flags, Job, Library, Operation};

/// Restores a page of so many bytes from a chunk.
type Decode = Box<dyn FnMut(&[u8], usize) -> Vec<u8>>;

fn decoders() -> Vec<(&'static str, Decode)> {
    let mut decoders: Vec<(_, Decode)> = vec![
        ("libdeflate", Box::new(by_libdeflate)),
        ("zlib-rs", Box::new(by_zlib_rs)),
        (
            "miniz_oxide",
            Box::new(|chunk, _| miniz_oxide::inflate::decompress_to_vec(chunk).unwrap()),
        ),
    ];
    match without_libqpl() {
        None => decoders.push(("libqpl", by_libqpl())),
        Some(reason) => eprintln!("without libqpl: {reason}"),
    }
    decoders
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn every_decoder_takes_what_is_made_without_libqpl((page_size, page) in pages::page()) {
        let chunk = chunks(&on(Path::Portable), page_size, &page).remove(0);
        if chunk.len() < page.len() {
            for (name, mut decode) in decoders() {
                prop_assert!(decode(&chunk, page.len()) == page, "{name}, pages of {page_size}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_page_makes_the_same_chunk_whatever_came_before((page_size, page) in pages::page()) {
        let pages = [&page[..], &text(page.len()), &page].concat();
        let chunks = chunks(&on(Path::Portable), page_size, &pages);
        prop_assert!(chunks[0] == chunks[2], "pages of {page_size}");
    }
}

fn by_libdeflate(chunk: &[u8], page_bytes: usize) -> Vec<u8> {
    let mut page = vec![0; page_bytes];
    let written = libdeflater::Decompressor::new().deflate_decompress(chunk, &mut page).unwrap();
    assert_eq!(written, page_bytes);
    page
}

fn by_zlib_rs(chunk: &[u8], page_bytes: usize) -> Vec<u8> {
    let mut page = Vec::with_capacity(page_bytes + 1);
    let mut inflate = Decompress::new_with_window_bits(false, 12);
    let status = inflate.decompress_vec(chunk, &mut page, FlushDecompress::Finish).unwrap();
    assert_eq!((status, inflate.total_in()), (Status::StreamEnd, chunk.len() as u64));
    page
}

fn by_libqpl() -> Decode {
    let library = Library::open().unwrap();
    Box::new(move |chunk, page_bytes| {
        let bytes = library.job_size(qpl_sys::Path::Software).unwrap();
        let layout = Layout::from_size_align(bytes, Job::ALIGN).unwrap();
        let mut page = vec![0; page_bytes];
        // SAFETY: the size is not 0.
        let job = unsafe { alloc_zeroed(layout) }.cast::<Job>();
        assert!(!job.is_null(), "there is memory for a job");
        // SAFETY: the memory is zeroed, aligned and as large as asked for.
        let status = unsafe { library.init_job(qpl_sys::Path::Software, job) };
        assert_eq!(status, qpl_sys::Status::OK);
        {
            // SAFETY: the job was set up, does not run, and is used here alone.
            let job = unsafe { &mut *job };
            job.op = Operation::Decompress as u32;
            job.flags = Flags::FIRST | Flags::LAST;
            job.next_in_ptr = chunk.as_ptr().cast_mut();
            job.available_in = chunk.len() as u32;
            job.next_out_ptr = page.as_mut_ptr();
            job.available_out = page.len() as u32;
        }
        // SAFETY: the job was set up; input and output are as long as it says, and do not overlap.
        let status = unsafe { library.execute_job(job) };
        // SAFETY: the job does not run.
        let written = unsafe { (*job).total_out };
        // SAFETY: the job was set up, does not run, and is not used again.
        unsafe { library.fini_job(job) };
        // SAFETY: the memory was allocated with that layout, and the job in it has been ended.
        unsafe { dealloc(job.cast(), layout) };
        assert_eq!((status, written as usize), (qpl_sys::Status::OK, page_bytes));
        page
    })
}
