//! What a completion record makes of a job: the status that its caller is told, and the counts.

use iaa_sim::completion::Completion;
use iaa_sim::status as device;
use qpl_sys::{Job, Status};

use crate::buffers::crc;
use crate::job::Request;

/// What a completion record says.
const SUCCESS: u8 = device::Status::Success as u8;
const OUTPUT_OVERFLOW: u8 = device::Status::OutputOverflow as u8;
const READ_PAGE_FAULT: u8 = device::Status::ReadPageFault as u8;
const WRITE_PAGE_FAULT: u8 = device::Status::WritePageFault as u8;
/// The error code of a destination that is too small.
const OUTPUT_TOO_SMALL: u8 = device::DataError::OutputTooSmall as u8;

/// What libqpl's statuses begin with that come from an error code, and from a status, of a completion record.
const ERROR_BASE: u32 = 200;
const STATUS_BASE: u32 = 300;

/// Most bytes of a stored block, RFC 1951, 3.2.4.
const STORED_BYTES: usize = 0xffff;
const STORED_HEADER_BYTES: usize = 5;

/// Whether memory was missing, and if so, whether to write.
pub(crate) fn page_fault(completion: &Completion) -> Option<bool> {
    match completion.status {
        READ_PAGE_FAULT => Some(false),
        WRITE_PAGE_FAULT => Some(true),
        _ => None,
    }
}

/// What libqpl makes of a completion that is no success.
pub(crate) fn status(completion: &Completion) -> Status {
    match *completion {
        Completion { error, .. } if error != 0 => Status(ERROR_BASE + u32::from(error)),
        Completion { status: SUCCESS, .. } => Status::OK,
        Completion { status, .. } => Status(STATUS_BASE + u32::from(status)),
    }
}

/// The end of a compression. Where a device says that the output is too small, it is stored blocks, if there
/// is room for them.
pub(crate) fn compressed(request: &Request, completion: &Completion, job: &mut Job) -> Status {
    let (written, crc, xor) = if completion.error == OUTPUT_TOO_SMALL {
        let Some((written, crc)) = request.on_buffers(store) else {
            return Status::MORE_OUTPUT_NEEDED;
        };
        (written, crc, xor(request))
    } else {
        match status(completion) {
            Status::OK => {}
            status => return status,
        }
        (completion.output_bytes, completion.crc, u32::from(completion.xor_checksum))
    };
    (job.crc, job.xor_checksum) = (crc, xor);
    job.last_bit_offset = match completion.error {
        0 => u32::from(completion.output_bits),
        _ => 0,
    };
    move_output(job, written);
    move_input(job, job.available_in);
    Status::OK
}

/// The end of a decompression. A device is said to have used up all of the input, whatever it has.
pub(crate) fn decompressed(completion: &Completion, on_device: bool, job: &mut Job) -> Status {
    let is_full = match (completion.status, completion.error) {
        (SUCCESS, 0) => false,
        (OUTPUT_OVERFLOW, 0) => true,
        (_, OUTPUT_TOO_SMALL) if !on_device => true,
        _ => return status(completion),
    };
    let used = if on_device && !is_full { job.available_in } else { completion.bytes_completed };
    (job.crc, job.xor_checksum) = (completion.crc, u32::from(completion.xor_checksum));
    job.last_bit_offset = u32::from(completion.output_bits);
    move_output(job, completion.output_bytes);
    move_input(job, used);
    match (is_full, completion.output_bytes) {
        (false, _) => Status::OK,
        (true, 0) => Status::DST_IS_SHORT,
        (true, _) => Status::MORE_OUTPUT_NEEDED,
    }
}

/// The end of a verification.
pub(crate) fn verified(completion: &Completion, crc: u32) -> Status {
    match status(completion) {
        Status::OK if completion.crc != crc => Status::VERIFY,
        status => status,
    }
}

// A device may say any size: libqpl adds it up as it is.
fn move_output(job: &mut Job, bytes: u32) {
    job.next_out_ptr = job.next_out_ptr.wrapping_add(bytes as usize);
    job.available_out = job.available_out.wrapping_sub(bytes);
    job.total_out = job.total_out.wrapping_add(bytes);
}

fn move_input(job: &mut Job, bytes: u32) {
    job.next_in_ptr = job.next_in_ptr.wrapping_add(bytes as usize);
    job.available_in = job.available_in.wrapping_sub(bytes);
    job.total_in = job.total_in.wrapping_add(bytes);
}

/// Writes stored blocks, and says how many bytes and the CRC of the input; nothing where there is no room.
fn store(input: &[u8], output: &mut [u8]) -> Option<(u32, u32)> {
    let bytes = input.len() + STORED_HEADER_BYTES * input.len().div_ceil(STORED_BYTES);
    let mut output = output.get_mut(..bytes)?;
    let mut left = input;
    while !left.is_empty() {
        let (block, rest) = left.split_at(left.len().min(STORED_BYTES));
        let (to, more) = output.split_at_mut(STORED_HEADER_BYTES + block.len());
        let length = block.len() as u16;
        to[0] = u8::from(rest.is_empty());
        to[1..3].copy_from_slice(&length.to_le_bytes());
        to[3..5].copy_from_slice(&(!length).to_le_bytes());
        to[STORED_HEADER_BYTES..].copy_from_slice(block);
        (left, output) = (rest, more);
    }
    Some((bytes as u32, crc(input)))
}

/// The sum of the input's words of 16 bits, without carry.
fn xor(request: &Request) -> u32 {
    request.on_buffers(|input, _| {
        let word = |pair: &[u8]| u32::from(pair[0]) | u32::from(*pair.get(1).unwrap_or(&0)) << 8;
        input.chunks(2).map(word).fold(0, |sum, word| sum ^ word)
    })
}
