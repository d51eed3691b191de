//! Which engine does the work.

use std::fmt;
use std::str::FromStr;

use multifd_core::MethodDescriptor;
use qpl_sys::Library;

use crate::hardware;
use crate::job::Job;
use crate::options::Options;

/// What compresses and restores pages. What comes out is the same format, and each reads what the
/// others make.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Path {
    /// The best that works here: the first of the others. Where `QPL_LIBRARY` names a library,
    /// with that one or not at all.
    #[default]
    Auto,
    /// libqpl on an In-Memory Analytics Accelerator, and on the CPU for what that does not take.
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

    /// The codec on this path, with the [defaults](Options::new) otherwise.
    pub const fn descriptor(self) -> MethodDescriptor {
        const AUTO: &Options = &Options::new(Path::Auto);
        const HARDWARE: &Options = &Options::new(Path::Hardware);
        const SOFTWARE: &Options = &Options::new(Path::Software);
        const PORTABLE: &Options = &Options::new(Path::Portable);
        match self {
            Self::Auto => AUTO.descriptor(),
            Self::Hardware => HARDWARE.descriptor(),
            Self::Software => SOFTWARE.descriptor(),
            Self::Portable => PORTABLE.descriptor(),
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
        let library = match Library::open() {
            Ok(library) => library,
            Err(error) if self == Self::Auto && Library::named().is_none() => {
                return Ok(Engine::Portable { without: Some(error.to_string()) });
            }
            Err(error) => return Err(error.to_string()),
        };
        if let Err(status) = Job::new(&library, qpl_sys::Path::Software) {
            let reason = format!("libqpl ({}) cannot set up a job: {status}", library.origin());
            if self == Self::Auto && Library::named().is_none() {
                return Ok(Engine::Portable { without: Some(reason) });
            }
            return Err(reason);
        }
        if self == Self::Software {
            return Ok(Engine::Software { library, without: None });
        }
        match hardware::probe(&library) {
            Ok(()) => Ok(Engine::Hardware(library)),
            Err(reason) if self == Self::Auto => {
                Ok(Engine::Software { library, without: Some(reason) })
            }
            Err(reason) => Err(reason),
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

/// A text that is no [`Path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPath(String);

impl fmt::Display for UnknownPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no path: there are auto, hardware, software and portable", self.0)
    }
}

impl std::error::Error for UnknownPath {}

/// What a path comes down to.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    Hardware(Library),
    Software {
        library: Library,
        /// Why it is not the hardware, where that would have been better.
        without: Option<String>,
    },
    Portable {
        /// Why it is not libqpl, where that would have been better.
        without: Option<String>,
    },
}

/// What it is, for people.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, library, without) = match self {
            Self::Hardware(library) => (Path::Hardware, Some(library), &None),
            Self::Software { library, without } => (Path::Software, Some(library), without),
            Self::Portable { without } => (Path::Portable, None, without),
        };
        match library {
            Some(it) => write!(f, "{name}: libqpl {} ({})", it.version(), it.origin())?,
            None => write!(f, "{name}: built in")?,
        }
        match without {
            Some(reason) => write!(f, "; {reason}"),
            None => Ok(()),
        }
    }
}
