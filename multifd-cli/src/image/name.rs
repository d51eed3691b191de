//! The files of an image, and names for those of RAM blocks.

use std::path::{Component, Path};

/// The file that makes a folder an image.
pub(crate) const MANIFEST: &str = "vm.json";

/// The file with the state of all devices.
pub(super) const DEVICE_STATE: &str = "device-state.bin";

/// The files with the state that devices sent before the pages: before the list of RAM blocks, and
/// behind it.
pub(super) const EARLY_STATE: &str = "early-state.bin";
pub(super) const EARLY_STATE_BEHIND_START: &str = "early-state-behind-start.bin";

/// The files that are no RAM block's.
const OWN: [&str; 4] = [MANIFEST, DEVICE_STATE, EARLY_STATE, EARLY_STATE_BEHIND_START];

/// The most bytes of a name that are kept. File systems allow 255.
const LONGEST: usize = 100;

/// A file name for each of `blocks`, which a peer has named. No name leads out of the folder or is
/// hidden, and no two are equal, even where the file system ignores case.
pub(super) fn file_names<'a>(blocks: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken = OWN.map(str::to_owned).to_vec();
    let is_taken =
        |taken: &[String], name: &str| taken.iter().any(|other| other.eq_ignore_ascii_case(name));
    for block in blocks {
        let plain = plain(block);
        let mut name = plain.clone();
        let mut number = 1;
        while is_taken(&taken, &name) {
            number += 1;
            name = format!("{plain}.{number}");
        }
        taken.push(name);
    }
    taken.split_off(OWN.len())
}

/// `block` with nothing but letters, digits and `.`, `-`, `_`: `rom_etc_acpi_tables` for
/// `/rom@etc/acpi/tables`.
fn plain(block: &str) -> String {
    let mut name = String::new();
    for c in block.chars() {
        let harmless = c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // A run of other characters becomes one `_`. A name starts with neither `_` nor a dot.
        match (harmless, name.chars().last()) {
            (true, None) if c == '.' => {}
            (true, _) => name.push(c),
            (false, None | Some('_')) => {}
            (false, _) => name.push('_'),
        }
    }
    name.truncate(LONGEST);
    if name.is_empty() { "block".to_owned() } else { name }
}

/// Whether `file`, from a manifest, names a file of the folder itself.
pub(super) fn is_inside(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_block_names_become_readable_file_names() {
        let blocks = ["pc.ram", "/rom@etc/acpi/tables", "0000:00:02.0/vga.vram"];
        let names = ["pc.ram", "rom_etc_acpi_tables", "0000_00_02.0_vga.vram"];
        assert_eq!(file_names(blocks), names);
    }

    #[test]
    fn no_name_leads_out_of_the_folder_or_hides() {
        let long = "x".repeat(255);
        let blocks =
            ["..", ".", "../../etc/passwd", "/", "...a", "a/../..", "\u{1b}[2J", "ü", &long];
        for name in file_names(blocks) {
            assert!(is_inside(&name) && !name.starts_with('.') && name.len() < 200, "{name}");
        }
    }

    #[test]
    fn no_two_files_have_one_name() {
        let blocks = ["vm.json", "early-state.bin", "a/b", "a@b", "A_B", "a_b.2"];
        let names = file_names(blocks);
        assert_eq!(names, ["vm.json.2", "early-state.bin.2", "a_b", "a_b.2", "A_B.3", "a_b.2.2"]);
    }

    #[test]
    fn a_path_is_not_a_file_of_the_folder() {
        for path in ["", ".", "..", "/etc/passwd", "../vm.json", "a/b", "a/", "./a", "a/.."] {
            assert!(!is_inside(path), "{path}");
        }
        assert!(is_inside("pc.ram"));
    }
}
