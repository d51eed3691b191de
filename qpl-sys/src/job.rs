//! What a job is made of: `qpl_job` and the constants that go into it.
//!
//! C enums are `u32` here: a Rust enum made from a foreign value would be unsound.

use std::ffi::c_void;

/// Where a job runs: `qpl_path_t`. The library's own choice, 0, is left out: it cannot say what it
/// has chosen.
#[allow(clippy::exhaustive_enums, reason = "libqpl has no others")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Path {
    /// On an In-Memory Analytics Accelerator.
    Hardware = 1,
    /// On the CPU that calls.
    Software = 2,
}

/// What a job does: values of [`Job::op`].
#[allow(clippy::exhaustive_enums, reason = "those that a caller submits here")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Operation {
    /// `qpl_op_decompress`.
    Decompress = 0,
    /// `qpl_op_compress`.
    Compress = 1,
}

/// Bits of [`Job::flags`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Flags;

impl Flags {
    /// `QPL_FLAG_FIRST`: the job starts a stream.
    pub const FIRST: u32 = 0x0001;
    /// `QPL_FLAG_LAST`: the job ends the stream.
    pub const LAST: u32 = 0x0002;
    /// `QPL_FLAG_DYNAMIC_HUFFMAN`: one dynamic block, in two passes; without it, a fixed one in one.
    pub const DYNAMIC_HUFFMAN: u32 = 0x2000;
    /// `QPL_FLAG_OMIT_VERIFY`: what was compressed is not decompressed again to see that it can be.
    pub const OMIT_VERIFY: u32 = 0x4000;
}

/// The head of a job: `qpl_job`. The library's own state follows behind it, as many bytes as
/// [`Library::job_size`](crate::Library::job_size) says altogether; so a value of this type alone is
/// never handed to it. All bytes zero is what it wants before
/// [`init_job`](crate::Library::init_job).
#[allow(clippy::exhaustive_structs, reason = "the layout is the C ABI's")]
#[derive(Debug)]
#[repr(C)]
pub struct Job {
    /// The next byte of input. It is only read.
    pub next_in_ptr: *mut u8,
    /// Bytes of input there.
    pub available_in: u32,
    /// Bytes of input used up.
    pub total_in: u32,
    /// Where the next byte of output goes.
    pub next_out_ptr: *mut u8,
    /// Bytes of room there.
    pub available_out: u32,
    /// Bytes of output written.
    pub total_out: u32,
    /// `qpl_operation`; see [`Operation`].
    pub op: u32,
    /// See [`Flags`].
    pub flags: u32,
    /// CRC-32 of the data that went through.
    pub crc: u32,
    /// Its plain checksum.
    pub xor_checksum: u32,
    /// Bits used of the last byte.
    pub last_bit_offset: u32,
    /// `qpl_compression_levels`: 1; or 3, which the hardware refuses.
    pub level: u32,
    /// `qpl_statistics_mode`: 0.
    pub statistics_mode: u32,
    /// `qpl_huffman_table_t`: none.
    pub huffman_table: *mut c_void,
    /// `qpl_dictionary`: none.
    pub dictionary: *mut c_void,
    /// `qpl_mini_block_size`: 0 for no index.
    pub mini_block_size: u32,
    /// The index: none.
    pub idx_array: *mut u64,
    /// Room in the index.
    pub idx_max_size: u32,
    /// Entries written to the index.
    pub idx_num_written: u32,
    /// `qpl_decomp_end_proc`: 0, to stop at the end of the final block and insist on it.
    pub decomp_end_processing: u8,
    /// Bits to skip at the start of the input.
    pub ignore_start_bits: u8,
    /// Bits to skip at its end.
    pub ignore_end_bits: u8,
    /// For CRC-64 alone.
    pub crc64_poly: u64,
    /// For CRC-64 alone.
    pub crc64: u64,
    /// For analytics alone, as all that follows up to [`numa_id`](Self::numa_id).
    pub next_src2_ptr: *mut u8,
    /// For analytics.
    pub available_src2: u32,
    /// For analytics.
    pub src1_bit_width: u32,
    /// For analytics.
    pub src2_bit_width: u32,
    /// For analytics.
    pub num_input_elements: u32,
    /// For analytics.
    pub out_bit_width: u32,
    /// For analytics.
    pub param_low: u32,
    /// For analytics.
    pub param_high: u32,
    /// For analytics.
    pub drop_initial_bytes: u32,
    /// For analytics.
    pub initial_output_index: u32,
    /// For analytics.
    pub parser: u32,
    /// For analytics.
    pub first_index_min_value: u32,
    /// For analytics.
    pub last_index_max_value: u32,
    /// For analytics.
    pub sum_value: u32,
    /// Whose devices a hardware job may use: a NUMA node's number, or one of the constants of this
    /// type.
    pub numa_id: i32,
    /// The library's own.
    pub data_ptr: AuxData,
}

impl Job {
    /// The alignment, in bytes, of the memory that a job lies in.
    pub const ALIGN: usize = 64;
    /// `qpl_level_1`, the only level on every path.
    pub const LEVEL_1: u32 = 1;
    /// `QPL_DEVICE_NUMA_ID_SOCKET`: devices of the socket that calls.
    pub const NUMA_SOCKET: i32 = -1;
    /// `QPL_DEVICE_NUMA_ID_CURRENT`: devices of the NUMA node that calls.
    pub const NUMA_NODE: i32 = -2;
    /// `QPL_DEVICE_NUMA_ID_ANY`: any device.
    pub const NUMA_ANY: i32 = -3;
}

/// The library's own part of [`Job`]: `qpl_aux_data`.
#[allow(clippy::exhaustive_structs, reason = "the layout is the C ABI's")]
#[derive(Debug)]
#[repr(C)]
pub struct AuxData {
    /// State of compression.
    pub compress_state_ptr: *mut u8,
    /// State of decompression.
    pub decompress_state_ptr: *mut u8,
    /// State of analytics.
    pub analytics_state_ptr: *mut u8,
    /// A buffer.
    pub middle_layer_buffer_ptr: *mut u8,
    /// State of the device.
    pub hw_state_ptr: *mut u8,
    /// `qpl_path_t`.
    pub path: u32,
}
