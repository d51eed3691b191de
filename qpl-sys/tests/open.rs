//! What is opened, and what is not.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ffi::OsStr;
use std::fs;

use qpl_sys::{Library, OpenError, Path, Version};

fn refusal(file: &str) -> OpenError {
    // SAFETY: what the tests name is a system library, or nothing that can be loaded.
    unsafe { Library::open_file(OsStr::new(file)) }.expect_err("it is not libqpl")
}

#[test]
fn a_file_that_is_missing_is_named_with_what_to_do() {
    let error = refusal("/nowhere/libqpl.so.1");
    assert!(matches!(error, OpenError::NotLoaded { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("/nowhere/libqpl.so.1 cannot be loaded as libqpl ("), "{text}");
    assert!(text.contains("No such file") && text.contains("correct QPL_LIBRARY"), "{text}");
}

#[test]
fn what_is_no_library_is_refused() {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let text = format!("{folder}/text.so");
    fs::write(&text, "not a library").unwrap();
    let empty = format!("{folder}/empty.so");
    fs::write(&empty, "").unwrap();
    for file in [&text, &empty, folder] {
        let error = refusal(file);
        assert!(matches!(&error, OpenError::NotLoaded { file: named, .. } if named == file));
    }
}

#[test]
fn a_library_that_is_not_libqpl_is_refused() {
    let error = refusal("libc.so.6");
    let OpenError::NotLibqpl { function: "qpl_get_library_version", .. } = error else {
        panic!("{error}")
    };
    assert!(error.to_string().starts_with("libc.so.6 is not libqpl"), "{error}");
}

#[test]
fn libqpl_is_opened_where_it_is_and_missed_in_words_where_it_is_not() {
    let library = match Library::open() {
        Ok(library) => library,
        Err(error) => {
            assert!(Library::named().is_none(), "{error}");
            let text = error.to_string();
            assert!(text.contains("libqpl.so.1") && text.contains("QPL_LIBRARY"), "{text}");
            // Not by eprintln, which is captured: it is to be seen.
            _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("skipped: {text}\n"),
            );
            return;
        }
    };
    assert!(library.version() >= Version::OLDEST);
    let software = library.job_size(Path::Software).unwrap();
    assert!((size_of::<qpl_sys::Job>()..64 << 20).contains(&software), "{software} bytes");
    let hardware = library.job_size(Path::Hardware);
    assert!(hardware.is_ok_and(|bytes| bytes > size_of::<qpl_sys::Job>()), "{hardware:?}");
    println!("{library:?}: a job takes {software} bytes in software");
}
