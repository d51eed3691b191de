//! What does the work: what a path comes down to on this machine.

use std::fmt;

use qpl_sys::Library;

use crate::hardware;
use crate::job::Job;
use crate::options::Options;
use crate::path::Path;

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

impl Engine {
    /// What the options come down to.
    ///
    /// # Errors
    /// What is missing, or which option cannot be honoured, and what to do.
    pub(crate) fn of(options: &Options) -> Result<Self, String> {
        let path = options.path;
        if path == Path::Portable {
            return Ok(Self::Portable { without: None });
        }
        let library = match library() {
            Ok(library) => library,
            Err(reason) if path == Path::Auto && Library::named().is_none() => {
                return Ok(Self::Portable { without: Some(reason) });
            }
            Err(reason) => return Err(reason),
        };
        if path == Path::Software {
            return Ok(Self::Software { library, without: None });
        }
        match hardware::probe(&library) {
            Ok(()) => {}
            Err(reason) if path == Path::Auto => {
                return Ok(Self::Software { library, without: Some(reason) });
            }
            Err(reason) => return Err(reason),
        }
        options.numa.check(library.version())?;
        Ok(Self::Hardware(library))
    }
}

/// libqpl, if it works on the CPU at least.
fn library() -> Result<Library, String> {
    let library = Library::open().map_err(|error| error.to_string())?;
    match Job::new(&library, qpl_sys::Path::Software) {
        Ok(_) => Ok(library),
        Err(status) => Err(format!("libqpl ({}) cannot set up a job: {status}", library.origin())),
    }
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
