//! The C headers say the same: sizes, offsets, constants and statuses, as a C compiler sees them.
//!
//! Runs where the headers are: below the folder that `QPL_INCLUDE` names, or as
//! `scripts/qpl-library` unpacks them.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fmt::Write;
use std::mem::{align_of, offset_of};
use std::path::{Path as File, PathBuf};
use std::process::Command;
use std::{env, fs};

use qpl_sys::{AuxData, Flags, Job, Operation, Path, Status};

/// C expressions, each with the value that it has here.
type Facts = Vec<(String, i64)>;

macro_rules! offsets {
    ($facts:ident, $c:literal, $rust:ty: $($field:ident)*) => {
        $($facts.push((
            concat!("(long)offsetof(", $c, ", ", stringify!($field), ")").to_owned(),
            offset_of!($rust, $field) as i64,
        ));)*
    };
}

fn layout() -> Facts {
    let mut facts = vec![
        ("(long)sizeof(qpl_job)".to_owned(), size_of::<Job>() as i64),
        ("(long)_Alignof(qpl_job)".to_owned(), align_of::<Job>() as i64),
        ("(long)sizeof(struct qpl_aux_data)".to_owned(), size_of::<AuxData>() as i64),
        ("(long)sizeof(qpl_status)".to_owned(), size_of::<Status>() as i64),
        ("(long)sizeof(qpl_path_t)".to_owned(), size_of::<u32>() as i64),
    ];
    offsets!(facts, "qpl_job", Job:
        next_in_ptr available_in total_in next_out_ptr available_out total_out op flags crc
        xor_checksum last_bit_offset level statistics_mode huffman_table dictionary
        mini_block_size idx_array idx_max_size idx_num_written decomp_end_processing
        ignore_start_bits ignore_end_bits crc64_poly crc64 next_src2_ptr available_src2
        src1_bit_width src2_bit_width num_input_elements out_bit_width param_low param_high
        drop_initial_bytes initial_output_index parser first_index_min_value
        last_index_max_value sum_value numa_id data_ptr);
    offsets!(facts, "struct qpl_aux_data", AuxData:
        compress_state_ptr decompress_state_ptr analytics_state_ptr middle_layer_buffer_ptr
        hw_state_ptr path);
    facts
}

fn constants() -> Facts {
    let named = [
        ("qpl_path_hardware", Path::Hardware as i64),
        ("qpl_path_software", Path::Software as i64),
        ("qpl_op_decompress", Operation::Decompress as i64),
        ("qpl_op_compress", Operation::Compress as i64),
        ("QPL_FLAG_FIRST", Flags::FIRST.into()),
        ("QPL_FLAG_LAST", Flags::LAST.into()),
        ("QPL_FLAG_DYNAMIC_HUFFMAN", Flags::DYNAMIC_HUFFMAN.into()),
        ("QPL_FLAG_OMIT_VERIFY", Flags::OMIT_VERIFY.into()),
        ("qpl_level_1", Job::LEVEL_1.into()),
        ("qpl_stop_and_check_for_bfinal_eob", 0),
        ("qpl_mblk_size_none", 0),
        ("QPL_DEVICE_NUMA_ID_SOCKET", Job::NUMA_SOCKET.into()),
        ("QPL_DEVICE_NUMA_ID_CURRENT", Job::NUMA_NODE.into()),
        ("QPL_DEVICE_NUMA_ID_ANY", Job::NUMA_ANY.into()),
    ];
    let statuses = Status::NAMED.iter().map(|status| (status.name().unwrap(), status.0.into()));
    let all = named.into_iter().chain(statuses);
    all.map(|(name, value)| (format!("(long){name}"), value)).collect()
}

/// The functions, as their types are here. A C compiler warns of an assignment of another type.
const FUNCTIONS: &str = "
const char *(*version)(void) = qpl_get_library_version;
qpl_status (*job_size)(qpl_path_t, uint32_t *) = qpl_get_job_size;
qpl_status (*init)(qpl_path_t, qpl_job *) = qpl_init_job;
qpl_status (*jobs[])(qpl_job *) = {
    qpl_execute_job, qpl_submit_job, qpl_check_job, qpl_wait_job, qpl_fini_job
};
";

#[test]
fn the_headers_say_the_same() {
    let Some(include) = include() else { return };
    let facts = [layout(), constants()].concat();
    let mut source = format!("#include <stddef.h>\n#include \"qpl/qpl.h\"\n{FUNCTIONS}\n");
    for (expression, value) in &facts {
        writeln!(source, "_Static_assert({expression} == {value}, \"{expression} {value}\");")
            .unwrap();
    }
    let compiled = compile(&include, &source);
    assert!(compiled.is_ok(), "{}", compiled.unwrap_err());
    assert!(facts.len() > 100, "only {} facts were compared", facts.len());
}

#[test]
fn a_difference_would_be_seen() {
    let Some(include) = include() else { return };
    for wrong in [
        "_Static_assert(offsetof(qpl_job, numa_id) == 4, \"\");",
        "qpl_status (*init)(qpl_job *) = qpl_init_job;",
    ] {
        let source = format!("#include <stddef.h>\n#include \"qpl/qpl.h\"\n{wrong}\n");
        assert!(compile(&include, &source).is_err(), "{wrong}");
    }
}

/// The folder that the headers are in.
fn include() -> Option<PathBuf> {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/qpl/root/usr/include");
    let named = env::var_os("QPL_INCLUDE").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| unpacked.into());
    if folder.join("qpl/qpl.h").exists() {
        return Some(folder);
    }
    assert!(named.is_none(), "QPL_INCLUDE names {}, which has no qpl/qpl.h", folder.display());
    // Not by eprintln, which is captured: it is to be seen.
    _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!(
            "skipped: no headers in {}; scripts/qpl-library gets them\n",
            folder.display()
        ),
    );
    None
}

/// Compiles `source` as C and nothing more. The error is what the compiler says.
fn compile(include: &File, source: &str) -> Result<(), String> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let file = File::new(env!("CARGO_TARGET_TMPDIR")).join(format!("header{number}.c"));
    fs::write(&file, source).unwrap();
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let ended = Command::new(compiler)
        .args(["-std=c11", "-fsyntax-only", "-Wall", "-Werror", "-I"])
        .arg(include)
        .arg(&file)
        .output()
        .unwrap();
    if ended.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&ended.stderr).into_owned())
}
