//! Which engine does the work.

use multifd_core::{Availability, MethodDescriptor};
use qpl_sys::Library;

use crate::codec::descriptor;

/// What compresses pages. What comes out is the same format, and each decodes what the others make.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Path {
    /// The best that works here: libqpl where it is, else what is built in. Where `QPL_LIBRARY`
    /// names a library, that one or none.
    #[default]
    Auto,
    /// libqpl, on the CPU.
    Software,
    /// What is built in: libdeflate for pages of 4 KiB, zlib-rs for larger ones.
    Portable,
}

impl Path {
    /// Every path.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Software, Self::Portable];

    /// The codec on this path, for a [`Registry::with`](multifd_core::Registry::with). It has the
    /// name and the value of the one that registers itself, which is on the path
    /// [`Auto`](Self::Auto): one registry holds only one of them.
    pub const fn descriptor(self) -> MethodDescriptor {
        match self {
            Self::Auto => descriptor::<Auto>(),
            Self::Software => descriptor::<Software>(),
            Self::Portable => descriptor::<Portable>(),
        }
    }

    /// What the path comes down to on this machine.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(crate) fn engine(self) -> Result<Engine, String> {
        if self == Self::Portable {
            return Ok(Engine::Portable { without: None });
        }
        match Library::open() {
            Ok(library) => Ok(Engine::Software(library)),
            Err(error) if self == Self::Auto && Library::named().is_none() => {
                Ok(Engine::Portable { without: Some(error.to_string()) })
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What a path comes down to.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    Software(Library),
    Portable {
        /// Why it is not libqpl, where that would have been better.
        without: Option<String>,
    },
}

impl Engine {
    /// What it is, for people.
    fn describe(&self) -> String {
        const BUILT_IN: &str = "portable: libdeflate and zlib-rs, built in";
        match self {
            Self::Software(library) => {
                format!("software: libqpl {} ({})", library.version(), library.origin())
            }
            Self::Portable { without: None } => BUILT_IN.to_owned(),
            Self::Portable { without: Some(reason) } => format!("{BUILT_IN}; {reason}"),
        }
    }
}

/// A path as a type, since a method table has no state.
pub(crate) trait OnPath: 'static {
    const PATH: Path;
    const SUMMARY: &'static str;

    fn probe() -> Availability {
        match Self::PATH.engine() {
            Ok(engine) => Availability::Available(engine.describe()),
            Err(reason) => Availability::Unavailable(reason),
        }
    }
}

enum Auto {}
enum Software {}
enum Portable {}

impl OnPath for Auto {
    const PATH: Path = Path::Auto;
    const SUMMARY: &'static str = "a DEFLATE stream a page, by libqpl or what is built in";
}

impl OnPath for Software {
    const PATH: Path = Path::Software;
    const SUMMARY: &'static str = "a DEFLATE stream a page, by libqpl in software";
}

impl OnPath for Portable {
    const PATH: Path = Path::Portable;
    const SUMMARY: &'static str = "a DEFLATE stream a page, by libdeflate and zlib-rs";
}
