//! The software path: the device's own engine, on the thread that calls.

use std::cell::RefCell;

use iaa_sim::engine::Engine;
use iaa_sim::memory::OwnMemory;
use qpl_sys::{Job, Operation, Status};

use crate::buffers::Buffers;
use crate::ending;
use crate::hardware::descriptor;
use crate::job::Request;

thread_local!(static ENGINE: RefCell<Engine> = RefCell::new(Engine::with_largest_transfer(u32::MAX)));

/// Runs a job, and tells it how it ended.
pub(crate) fn run(request: &Request, job: &mut Job) -> Status {
    let descriptor = match request.operation {
        Operation::Compress => descriptor::compress(&request.buffers, None),
        Operation::Decompress => descriptor::decompress(&request.buffers, None),
    };
    let completion = ENGINE.with_borrow_mut(|engine| engine.run(&descriptor, &OwnMemory));
    match request.operation {
        Operation::Compress => ending::compressed(request, &completion, job),
        Operation::Decompress => ending::decompressed(&completion, false, job),
    }
}

/// What an engine makes of a page.
pub(crate) fn stream(page: &[u8]) -> Vec<u8> {
    // No code has more than twice the bits of its byte.
    let mut stream = vec![0; 2 * page.len() + 2];
    let buffers = Buffers {
        input: page.as_ptr(),
        input_bytes: page.len() as u32,
        output: stream.as_mut_ptr(),
        output_bytes: stream.len() as u32,
    };
    let descriptor = descriptor::compress(&buffers, None);
    let completion = ENGINE.with_borrow_mut(|engine| engine.run(&descriptor, &OwnMemory));
    stream.truncate(completion.output_bytes as usize);
    stream
}
