//! Files that hold one value, in sysfs and procfs.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::doctor) enum Unread {
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    #[error("{} cannot be read: {reason}", path.display())]
    Failed { path: PathBuf, reason: String },
    #[error("{} says '{text}', which is not {expected}", path.display())]
    Malformed { path: PathBuf, text: String, expected: &'static str },
}

impl Unread {
    pub(super) fn new(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::Missing(path.to_owned()),
            _ => Self::Failed { path: path.to_owned(), reason: error.to_string() },
        }
    }
}

/// What the text of a file is parsed into.
pub(super) trait Value: Sized {
    /// What the text should be, for an error message.
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Option<Self>;
}

/// The value in the file `name` of `folder`.
pub(super) fn read<T: Value>(folder: &Path, name: &str) -> Result<T, Unread> {
    /// A page: the longest file of sysfs.
    const MOST: u64 = 4096;
    let path = folder.join(name);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MOST).read_to_end(&mut bytes))
        .map_err(|error| Unread::new(&path, &error))?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    let malformed = || Unread::Malformed { path, text: text.to_owned(), expected: T::EXPECTED };
    T::parse(text).ok_or_else(malformed)
}

/// As [`read`]; `None` if there is no such file.
pub(super) fn read_optional<T: Value>(folder: &Path, name: &str) -> Result<Option<T>, Unread> {
    match read(folder, name) {
        Ok(value) => Ok(Some(value)),
        Err(Unread::Missing(_)) => Ok(None),
        Err(unread) => Err(unread),
    }
}

/// The names in `folder`.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, Unread> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| Unread::new(folder, &error))?;
    Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

impl Value for u32 {
    const EXPECTED: &'static str = "a number";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "0 or 1";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

/// A group's or NUMA node's number; -1 stands for none.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberOrNone(pub(super) Option<u32>);

impl Value for NumberOrNone {
    const EXPECTED: &'static str = "a number or -1";

    fn parse(text: &str) -> Option<Self> {
        if text == "-1" { Some(Self(None)) } else { text.parse().ok().map(|n| Self(Some(n))) }
    }
}

/// A PCI identifier, such as `0x8086`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hex(pub(super) u32);

impl Value for Hex {
    const EXPECTED: &'static str = "a number such as 0x8086";

    fn parse(text: &str) -> Option<Self> {
        u32::from_str_radix(text.strip_prefix("0x")?, 16).ok().map(Self)
    }
}
