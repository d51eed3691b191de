//! Says which recordings are there. The repository has all of them, the published package those
//! that `Cargo.toml` does not exclude: a package is to stay small.

use std::{fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=recordings");
    println!("cargo::rustc-check-cfg=cfg(recording, values(any()))");
    for entry in fs::read_dir("recordings")? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            println!("cargo::rustc-cfg=recording={:?}", entry.file_name());
        }
    }
    Ok(())
}
