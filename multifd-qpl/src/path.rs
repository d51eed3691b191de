//! Which engine does the work, as its user may choose.

use std::fmt;
use std::str::FromStr;

/// What compresses and restores pages. What comes out is the same format, and each reads what the
/// others make.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Path {
    /// The best that works here: the first of the others. Where `QPL_LIBRARY` names a library,
    /// with that one or not at all.
    #[default]
    Auto,
    /// libqpl on an In-Memory Analytics Accelerator, and on the CPU for pages that it does not take.
    Hardware,
    /// libqpl, on the CPU.
    Software,
    /// What is built in, on the CPU.
    Portable,
}

impl Path {
    /// Every path.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Hardware, Self::Software, Self::Portable];

    /// The path's name, as the program `multifd` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Hardware => "hardware",
            Self::Software => "software",
            Self::Portable => "portable",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Path {
    type Err = UnknownPath;

    fn from_str(text: &str) -> Result<Self, UnknownPath> {
        let path = Self::ALL.into_iter().find(|path| path.name() == text);
        path.ok_or_else(|| UnknownPath(text.to_owned()))
    }
}

/// A text that is not the name of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPath(String);

impl fmt::Display for UnknownPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not one of auto, hardware, software and portable", self.0)
    }
}

impl std::error::Error for UnknownPath {}
