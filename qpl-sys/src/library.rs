//! The library, opened at run time.

use std::env;
use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::fmt;
use std::mem::ManuallyDrop;

use libloading::os::unix as loader;

use crate::job::{Job, Path};
use crate::status::Status;
use crate::version::Version;

/// An opened libqpl: its eight functions, its version, and where it came from.
///
/// It stays loaded until the process ends: it has state of its threads, which could not be freed
/// behind its back.
#[derive(Clone)]
pub struct Library {
    origin: String,
    version: Version,
    get_job_size: unsafe extern "C" fn(path: u32, bytes: *mut u32) -> Status,
    init_job: unsafe extern "C" fn(path: u32, job: *mut Job) -> Status,
    execute_job: unsafe extern "C" fn(job: *mut Job) -> Status,
    submit_job: unsafe extern "C" fn(job: *mut Job) -> Status,
    check_job: unsafe extern "C" fn(job: *mut Job) -> Status,
    wait_job: unsafe extern "C" fn(job: *mut Job) -> Status,
    fini_job: unsafe extern "C" fn(job: *mut Job) -> Status,
}

/// Why libqpl cannot be used, and what to do.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No library is named, and none is where the loader looks.
    #[error(
        "libqpl cannot be loaded ({reason}); install libqpl 1.5 or later, or name the file in {}",
        Library::VARIABLE
    )]
    NotFound {
        /// What the loader says.
        reason: String,
    },
    /// The library that is named cannot be loaded.
    #[error(
        "{file} cannot be loaded as libqpl ({reason}); correct {} or unset it",
        Library::VARIABLE
    )]
    NotLoaded {
        /// The file that is named.
        file: String,
        /// What the loader says.
        reason: String,
    },
    /// It can be loaded, but lacks a function.
    #[error(
        "{file} is not libqpl, or too old: it has no function {function}; 1.5 or later is needed"
    )]
    NotLibqpl {
        /// The file.
        file: String,
        /// The function that is missing.
        function: &'static str,
    },
    /// A version whose ABI is not known.
    #[error("{file} is version {version} of libqpl; 1.5 or later is needed, and below 2")]
    Version {
        /// The file.
        file: String,
        /// What it says of itself.
        version: String,
    },
}

impl Library {
    /// The environment variable that names the library.
    pub const VARIABLE: &str = "QPL_LIBRARY";

    /// Where the library is looked for when none is named. The second is there where its
    /// development files are.
    pub const NAMES: [&str; 2] = ["libqpl.so.1", "libqpl.so"];

    /// Opens the library that `QPL_LIBRARY` names, if that is set and not empty; otherwise the
    /// first of [`NAMES`](Self::NAMES) that the loader finds.
    ///
    /// # Errors
    /// It is missing, cannot be loaded, is something else, or is a version that is not supported.
    pub fn open() -> Result<Self, OpenError> {
        match Self::named() {
            // SAFETY: whoever runs the program names the file, and is trusted as the program is.
            Some(file) => unsafe { Self::open_file(&file) },
            None => Self::find(),
        }
    }

    /// The library that `QPL_LIBRARY` names, if it is set and not empty.
    pub fn named() -> Option<OsString> {
        env::var_os(Self::VARIABLE).filter(|file| !file.is_empty())
    }

    /// Opens `file`: a path, or a name that the loader looks for.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Safety
    /// What is run when the file is loaded does no harm, and where it has libqpl's functions and says
    /// that it is a version that is supported, these are libqpl's.
    pub unsafe fn open_file(file: &OsStr) -> Result<Self, OpenError> {
        let origin = file.to_string_lossy().into_owned();
        match load(file) {
            Ok(library) => Self::of(library, origin),
            Err(reason) => Err(OpenError::NotLoaded { file: origin, reason }),
        }
    }

    fn find() -> Result<Self, OpenError> {
        let [first, second] = Self::NAMES;
        match load(first.as_ref()) {
            Ok(library) => Self::of(library, first.to_owned()),
            // What the loader says of the first is what counts: the second is a link to it.
            Err(reason) => match load(second.as_ref()) {
                Ok(library) => Self::of(library, second.to_owned()),
                Err(_) => Err(OpenError::NotFound { reason }),
            },
        }
    }

    fn of(library: loader::Library, file: String) -> Result<Self, OpenError> {
        // Never closed: what it holds for its threads could not be freed behind their backs.
        let library = &*ManuallyDrop::new(library);
        let version = version(library, &file)?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: in a library that says it is libqpl 1.x, a function of that name has the
                // type of the field that it goes to: `tests/header.rs` compares the two.
                unsafe { symbol(library, $name, &file)? }
            };
        }
        Ok(Self {
            version,
            get_job_size: function!("qpl_get_job_size"),
            init_job: function!("qpl_init_job"),
            execute_job: function!("qpl_execute_job"),
            submit_job: function!("qpl_submit_job"),
            check_job: function!("qpl_check_job"),
            wait_job: function!("qpl_wait_job"),
            fini_job: function!("qpl_fini_job"),
            origin: file,
        })
    }

    /// What was opened: a path, or a name that the loader found.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The library's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Bytes that a job for `path` takes, [`Job`] included: `qpl_get_job_size`.
    ///
    /// # Errors
    /// The status, where it is not [`Status::OK`].
    pub fn job_size(&self, path: Path) -> Result<usize, Status> {
        let mut bytes = 0;
        // SAFETY: the pointer is to a `u32` that may be written.
        let status = unsafe { (self.get_job_size)(path as u32, &raw mut bytes) };
        if status == Status::OK { Ok(bytes as usize) } else { Err(status) }
    }

    /// `qpl_init_job`: makes a job of zeroed memory.
    ///
    /// # Safety
    /// `job` points to [`job_size`](Self::job_size) bytes for the same path, all zero, aligned to
    /// [`Job::ALIGN`], that nothing else uses. They stay where they are, allocated, until
    /// [`fini_job`](Self::fini_job) if this succeeds.
    pub unsafe fn init_job(&self, path: Path, job: *mut Job) -> Status {
        // SAFETY: as the caller promises.
        unsafe { (self.init_job)(path as u32, job) }
    }

    /// `qpl_execute_job`: runs a job and waits for it.
    ///
    /// # Safety
    /// [`init_job`](Self::init_job) has succeeded for `job`, which is not running and which nothing
    /// else uses meanwhile. Its input may be read and its output written, as many bytes as
    /// [`Job::available_in`] and [`Job::available_out`] say; its other pointers are null.
    pub unsafe fn execute_job(&self, job: *mut Job) -> Status {
        // SAFETY: as the caller promises.
        unsafe { (self.execute_job)(job) }
    }

    /// `qpl_submit_job`: has a job run.
    ///
    /// # Safety
    /// As for [`execute_job`](Self::execute_job); and job, input and output belong to the device
    /// until [`check_job`](Self::check_job) answers anything but
    /// [`Status::BEING_PROCESSED`], or [`wait_job`](Self::wait_job) returns.
    pub unsafe fn submit_job(&self, job: *mut Job) -> Status {
        // SAFETY: as the caller promises.
        unsafe { (self.submit_job)(job) }
    }

    /// `qpl_check_job`: says whether a job that was submitted is done, and how it ended.
    ///
    /// # Safety
    /// `job` was submitted, and nothing else uses it meanwhile.
    pub unsafe fn check_job(&self, job: *mut Job) -> Status {
        // SAFETY: as the caller promises.
        unsafe { (self.check_job)(job) }
    }

    /// `qpl_wait_job`: blocks until a job that was submitted is done.
    ///
    /// # Safety
    /// As for [`check_job`](Self::check_job).
    pub unsafe fn wait_job(&self, job: *mut Job) -> Status {
        // SAFETY: as the caller promises.
        unsafe { (self.wait_job)(job) }
    }

    /// `qpl_fini_job`: ends a job. Its memory is the caller's again.
    ///
    /// # Safety
    /// [`init_job`](Self::init_job) has succeeded for `job`, which is not running, and which is not
    /// used again.
    pub unsafe fn fini_job(&self, job: *mut Job) -> Status {
        // SAFETY: as the caller promises.
        unsafe { (self.fini_job)(job) }
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Library({} {})", self.origin, self.version)
    }
}

/// The version of the simulated IAA `multifd-iaa-sim`, if that is what libqpl has found its devices by, and
/// not libaccel-config. libqpl opens either when a first job for [`Path::Hardware`] is initialised; before
/// that, there is none.
pub fn simulated_iaa() -> Option<String> {
    type Version = unsafe extern "C" fn() -> *const c_char;
    const LOADED_ALREADY: c_int = 4; // RTLD_NOLOAD of Linux
    if !cfg!(target_os = "linux") {
        return None;
    }
    let flags = loader::RTLD_LAZY | LOADED_ALREADY;
    // SAFETY: nothing is loaded, and so nothing runs, that is not there.
    let library = unsafe { loader::Library::open(Some("libaccel-config.so.1"), flags) }.ok()?;
    // SAFETY: only the simulation has a function of that name, and there it has this type.
    let version = unsafe { library.get::<Version>(b"iaa_sim_version\0") }.ok()?;
    // SAFETY: it may be called at any time.
    let version = unsafe { version() };
    // SAFETY: it is a text that ends in a NUL and stays, since the simulation is never unloaded.
    let version = unsafe { CStr::from_ptr(version) };
    Some(version.to_string_lossy().into_owned())
}

/// Loads `file`. The handle must be kept for as long as anything out of it is used.
fn load(file: &OsStr) -> Result<loader::Library, String> {
    // Not lazily: a library that lacks something is refused now, not when a page is half done.
    let flags = loader::RTLD_NOW | loader::RTLD_LOCAL;
    // SAFETY: this runs what the library runs when it is loaded, and that is trusted as the
    // program is: whoever runs it names the file, or it is installed where libraries are.
    let library = unsafe { loader::Library::open(Some(file), flags) };
    library.map_err(|error| match std::error::Error::source(&error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    })
}

/// Asks the library what it is, before anything else is taken from it.
fn version(library: &loader::Library, file: &str) -> Result<Version, OpenError> {
    type GetVersion = unsafe extern "C" fn() -> *const c_char;
    // SAFETY: no library but libqpl has a function of that name, and there it has that type.
    let get_version: GetVersion = unsafe { symbol(library, "qpl_get_library_version", file)? };
    // SAFETY: it takes nothing and can be called at any time.
    let text = unsafe { get_version() };
    let unknown =
        |version: &str| OpenError::Version { file: file.to_owned(), version: version.to_owned() };
    if text.is_null() {
        return Err(unknown("(none)"));
    }
    // SAFETY: what it returns is a string literal of the library's, which stays loaded.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    match Version::parse(&text) {
        Some(version) if version.is_supported() => Ok(version),
        _ => Err(unknown(&text)),
    }
}

/// The function called `name`.
///
/// # Safety
/// The function has the type `F`, a function pointer.
unsafe fn symbol<F: Copy>(
    library: &loader::Library,
    name: &'static str,
    file: &str,
) -> Result<F, OpenError> {
    // SAFETY: as the caller promises.
    let found = unsafe { library.get::<F>(name.as_bytes()) };
    let missing = |_| OpenError::NotLibqpl { file: file.to_owned(), function: name };
    found.map(|function| *function).map_err(missing)
}
