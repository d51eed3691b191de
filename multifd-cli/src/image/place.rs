//! The place of a new image: created under a temporary name, renamed when it is complete.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use super::name::MANIFEST;
use crate::failure::Failure;

/// A folder with a temporary name beside the image's. It is removed unless the image is
/// [put](Self::put) and [kept](Placed::keep).
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    parent: PathBuf,
    folder: TempDir,
    /// Whether there is an image of this name, which is replaced.
    replaces: bool,
}

impl Place {
    /// A place for the image at `path`. `force` replaces an existing image or an empty folder there.
    /// Anything else that exists is refused.
    pub(crate) fn new(path: &Path, force: bool) -> Result<Self, Failure> {
        let replaces = check(path, force)?;
        // A link stays; its target is replaced.
        let path = if replaces { path.canonicalize() } else { Ok(path.to_owned()) }
            .map_err(|error| cannot_create(path, &error))?;
        let Some(name) = path.file_name() else {
            let path = path.display();
            return Err(Failure::new(format!(
                "cannot create {path}: it does not end in a name; add one"
            )));
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        if !parent.is_dir() {
            let (path, parent) = (path.display(), parent.display());
            return Err(Failure::new(format!(
                "cannot create {path}: there is no folder {parent}; create it first"
            )));
        }
        let prefix = format!(".{}.", name.to_string_lossy());
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".partial")
            // Only the owner may read a guest's memory.
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent);
        let folder = folder.map_err(|error| {
            // Without the name of the temporary folder, which would tell the user nothing.
            cannot_create(&path, &error.kind().into())
        })?;
        Ok(Self { path, parent, folder, replaces })
    }

    /// Where the files of the image go.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the image its name. The image that it replaces exists until
    /// [`keep`](Placed::keep).
    pub(crate) fn put(self) -> Result<Placed, Failure> {
        let cannot = |error: &io::Error| cannot_create(&self.path, error);
        sync(self.folder()).map_err(|error| cannot(&error))?;
        if self.replaces {
            exchange(self.folder(), &self.path).map_err(|error| cannot(&error))?;
        } else {
            rename_to_new(self.folder(), &self.path).map_err(|error| cannot(&error))?;
        }
        let placed = Placed { place: Some(self) };
        placed.sync().map_err(|error| placed.cannot(&error))?;
        Ok(placed)
    }

    /// Takes the image's name away again. An image that it replaced gets it back.
    fn undo(&self) -> io::Result<()> {
        if self.replaces {
            exchange(self.folder(), &self.path)
        } else {
            fs::rename(&self.path, self.folder())
        }
    }
}

/// A complete image under its name. Dropping it without [`keep`](Self::keep) undoes everything.
#[derive(Debug)]
pub(crate) struct Placed {
    place: Option<Place>,
}

impl Placed {
    /// Keeps the image, and removes the one that it replaces.
    pub(crate) fn keep(mut self) {
        if let Some(place) = self.place.take() {
            if place.replaces {
                let old = place.folder.path().to_owned();
                if let Err(error) = place.folder.close() {
                    tracing::warn!(%error, old = %old.display(), "the old image cannot be removed");
                }
            } else {
                // The temporary name is no longer in use.
                _ = place.folder.keep();
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.place.as_ref().map_or(Ok(()), |place| sync(&place.parent))
    }

    fn cannot(&self, error: &io::Error) -> Failure {
        let path = self.place.as_ref().map_or(Path::new("the image"), |place| &place.path);
        cannot_create(path, error)
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            if let Err(error) = place.undo() {
                let path = place.path.display();
                tracing::error!(%error, %path, "the image of a failed migration cannot be removed");
            }
        }
    }
}

/// Whether there is something at `path` that may be replaced.
fn check(path: &Path, force: bool) -> Result<bool, Failure> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(cannot_create(path, &error)),
        Ok(_) if !force => {
            return Err(Failure::new(format!(
                "cannot create {shown}: it exists; choose another name or replace it with --force"
            )));
        }
        Ok(_) => {}
    }
    let is_empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if path.join(MANIFEST).is_file() || is_empty() {
        return Ok(true);
    }
    Err(Failure::new(format!(
        "cannot replace {shown}: it is not a VM image (it has no {MANIFEST}); choose another name or \
         remove it first"
    )))
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    Failure::io(format!("cannot create {}", path.display()), error)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Renames a folder to an unused name.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system supports that. Here a file or an empty folder that gets this name in
        // the meantime is lost.
        Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(to).is_err() => {
            fs::rename(from, to)
        }
        Err(Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

/// Swaps the names of two folders.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        // Not every file system supports that. Here neither has its name for a moment.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let aside = one.with_extension("aside");
            fs::rename(other, &aside)?;
            fs::rename(one, other).inspect_err(|_| _ = fs::rename(&aside, other))?;
            fs::rename(&aside, one)
        }
        swapped => Ok(swapped?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn image(path: &Path, content: &str) {
        fs::create_dir(path).unwrap();
        fs::write(path.join(MANIFEST), content).unwrap();
    }

    fn content(path: &Path) -> String {
        fs::read_to_string(path.join(MANIFEST)).unwrap()
    }

    #[test]
    fn an_image_has_its_name_only_when_it_is_put_and_is_gone_unless_it_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("vm");
        for keep in [false, true] {
            let place = Place::new(&path, false).unwrap();
            fs::write(place.folder().join(MANIFEST), "new").unwrap();
            assert!(!path.exists());
            let placed = place.put().unwrap();
            assert_eq!(content(&path), "new");
            if keep {
                placed.keep();
            } else {
                drop(placed);
            }
            assert_eq!(entries(parent.path()).len(), usize::from(keep));
        }
        assert_eq!(content(&path), "new");
    }

    #[test]
    fn an_old_image_is_there_until_the_new_one_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("vm");
        image(&path, "old");
        for (keep, then) in [(false, "old"), (true, "new")] {
            let place = Place::new(&path, true).unwrap();
            fs::write(place.folder().join(MANIFEST), "new").unwrap();
            assert_eq!(content(&path), "old");
            let placed = place.put().unwrap();
            assert_eq!(content(&path), "new");
            if keep {
                placed.keep();
            } else {
                drop(placed);
            }
            assert_eq!(content(&path), then);
            assert_eq!(entries(parent.path()), ["vm"]);
        }
    }

    #[test]
    fn nothing_but_an_image_or_an_empty_folder_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("home");
        fs::create_dir(&path).unwrap();
        assert!(Place::new(&path, false).is_err());
        assert!(Place::new(&path, true).is_ok());
        fs::write(path.join("thesis"), "x").unwrap();
        let error = Place::new(&path, true).unwrap_err().to_string();
        assert!(error.contains("is not a VM image"), "{error}");
        assert!(Place::new(&path.join("thesis"), true).is_err());
        assert_eq!(entries(&path), ["thesis"]);
    }

    #[test]
    fn a_name_taken_in_the_meantime_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("vm");
        let place = Place::new(&path, false).unwrap();
        image(&path, "another");
        assert!(place.put().is_err());
        assert_eq!(content(&path), "another");
        assert_eq!(entries(parent.path()), ["vm"]);
    }

    #[test]
    fn a_place_without_a_parent_or_a_name_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        assert!(Place::new(&parent.path().join("missing/vm"), false).is_err());
        assert!(Place::new(Path::new("/"), true).is_err());
    }
}
