//! What a new VM is made in: a folder or a file with a temporary name, renamed when it is complete.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::{TempDir, TempPath};

use super::{Place, leftover};
use crate::cancel::Interrupt;
use crate::failure::Failure;
use crate::image::{MANIFEST, read_manifest};
use crate::output;

/// A folder or file with a temporary name beside the VM's. It is removed unless the VM is
/// [put](Self::put) and [kept](Placed::keep).
#[derive(Debug)]
pub(crate) struct New {
    path: PathBuf,
    parent: PathBuf,
    made: Made,
    /// Which folder or file that is, under whatever name.
    identity: Identity,
    /// What of this name is replaced; `None` if there is nothing.
    replaces: Option<Replaced>,
    /// Tells other runs that it is in use.
    _mark: Option<File>,
}

/// What a VM is made in.
#[derive(Debug)]
enum Made {
    Folder(TempDir),
    File(TempPath),
}

/// What is replaced.
#[derive(Debug)]
enum Replaced {
    /// A folder with nothing but these files of an image.
    Image(Vec<OsString>),
    File,
}

impl New {
    /// What becomes the VM at `place`. `force` replaces an existing image or an empty folder there, or an existing file where the
    /// VM is to be one. Anything else that exists is refused.
    pub(super) fn create(place: &Place, force: bool) -> Result<Self, Failure> {
        let wants_folder = matches!(place, Place::Image(_));
        Self::at(place.path(), wants_folder, force)
    }

    fn at(path: &Path, wants_folder: bool, force: bool) -> Result<Self, Failure> {
        let replaces = check(path, wants_folder, force)?;
        // A link stays; its target is replaced.
        let path = if replaces.is_some() { path.canonicalize() } else { Ok(path.to_owned()) }
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
        let name = name.to_string_lossy();
        for left in leftover::find(&parent, &name) {
            output::note(&format!("multifd: {}", leftover::describe(&left, &path)));
        }
        // Without the name of what is temporary, which would tell the user nothing.
        let made = Made::make(&parent, &name, wants_folder)
            .map_err(|error| cannot_create(&path, &error.kind().into()))?;
        let identity = Identity::of(made.path()).map_err(|error| cannot_create(&path, &error))?;
        let mark = leftover::mark(made.path());
        Ok(Self { path, parent, made, identity, replaces, _mark: mark })
    }

    /// The folder where the files of an image go, or the empty file that the VM goes into.
    pub(crate) fn path(&self) -> &Path {
        self.made.path()
    }

    /// Gives the image its name. The image that it replaces exists until
    /// [`keep`](Placed::keep).
    pub(crate) fn put(self, interrupt: &Interrupt) -> Result<Placed, Failure> {
        let cannot = |error: &io::Error| cannot_create(&self.path, error);
        sync(self.path()).map_err(|error| cannot(&error))?;
        // Before the names are swapped: from now on, the temporary one may be the old image's.
        let said = leftover::describe_whole(self.path(), &self.path);
        interrupt.putting(self.path(), said);
        if self.replaces.is_some() {
            exchange(self.path(), &self.path).map_err(|error| cannot(&error))?;
        } else {
            rename_to_new(self.path(), &self.path).map_err(|error| cannot(&error))?;
        }
        let placed = Placed { new: Some(self) };
        placed.sync().map_err(|error| placed.cannot(&error))?;
        Ok(placed)
    }

    /// Takes the image's name away again, so that it has the temporary one. An image that it replaced
    /// gets its name back. What another program has put there by now keeps it.
    fn undo(&self) -> Result<(), NotUndone> {
        if !self.is_at(&self.path)? {
            return Err(NotUndone::Taken);
        }
        if self.replaces.is_none() {
            return Ok(fs::rename(&self.path, self.path())?);
        }
        exchange(self.path(), &self.path)?;
        if self.is_at(self.path())? {
            return Ok(());
        }
        // Another one came just then.
        exchange(self.path(), &self.path)?;
        Err(NotUndone::Taken)
    }

    /// Whether the new image is at `path`.
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        match Identity::of(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => Ok(found? == self.identity),
        }
    }
}

/// What tells a folder from all others, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Why an image keeps its name although its migration has failed.
#[derive(Debug, thiserror::Error)]
enum NotUndone {
    #[error("is no longer there; what has its name now is left alone")]
    Taken,
    #[error("is still there and cannot be removed: {0}; remove it")]
    Io(#[from] io::Error),
}

/// A complete image under its name. Dropping it without [`keep`](Self::keep) undoes everything.
#[derive(Debug)]
pub(crate) struct Placed {
    new: Option<New>,
}

impl Placed {
    /// Keeps the image, and removes the one that it replaces.
    pub(crate) fn keep(mut self) {
        if let Some(new) = self.new.take() {
            // Without an old one, the temporary name is no longer in use.
            let old = new.made.keep();
            if let Some(Err(error)) = new.replaces.map(|replaced| replaced.remove(&old)) {
                tracing::warn!(%error, old = %old.display(), "the old VM cannot be removed");
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.new.as_ref().map_or(Ok(()), |new| sync(&new.parent))
    }

    fn cannot(&self, error: &io::Error) -> Failure {
        let path = self.new.as_ref().map_or(Path::new("the VM"), |new| &new.path);
        cannot_create(path, error)
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(new) = self.new.take() {
            let Err(why) = new.undo() else { return };
            // What has the temporary name now is not the image of the failed migration.
            let (path, other) = (new.path.display(), new.made.keep());
            let other = if other.exists() {
                format!(
                    "; the image that was there before may be {}, which is kept",
                    other.display()
                )
            } else {
                String::new()
            };
            output::note(&format!(
                "multifd: the image of the failed migration, {path}, {why}{other}"
            ));
        }
    }
}

impl Made {
    fn make(parent: &Path, name: &str, folder: bool) -> io::Result<Self> {
        let prefix = leftover::prefix(name);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(leftover::PARTIAL);
        // Only the owner may read a guest's memory.
        if folder {
            let folder = builder.permissions(Permissions::from_mode(0o700)).tempdir_in(parent);
            folder.map(Self::Folder)
        } else {
            let file = builder.permissions(Permissions::from_mode(0o600)).tempfile_in(parent);
            file.map(|file| Self::File(file.into_temp_path()))
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder.path(),
            Self::File(file) => file,
        }
    }

    /// Leaves what has the temporary name, and returns that.
    fn keep(self) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.keep(),
            Self::File(file) => {
                let path = file.to_path_buf();
                // It is kept where this fails, too: on this system nothing is to be done for it.
                file.keep().unwrap_or(path)
            }
        }
    }
}

impl Replaced {
    /// Removes it, which has the name `path` now.
    fn remove(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Image(files) => {
                files.iter().try_for_each(|file| fs::remove_file(path.join(file)))?;
                fs::remove_dir(path)
            }
            Self::File => fs::remove_file(path),
        }
    }
}

/// What there is at `path`, which may be replaced; `None` if nothing is there.
fn check(path: &Path, wants_folder: bool, force: bool) -> Result<Option<Replaced>, Failure> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_create(path, &error)),
        Ok(_) if !force => Err(Failure::new(format!(
            "cannot create {shown}: it exists; choose another name or replace it with --force"
        ))),
        Ok(_) => {
            let replaced = match wants_folder {
                true => files_of_image(path).map(Replaced::Image),
                false => match fs::metadata(path) {
                    Ok(metadata) if metadata.is_file() => Ok(Replaced::File),
                    Ok(_) => Err("it is not a file, but a folder, a pipe or a device".to_owned()),
                    Err(error) => Err(error.to_string()),
                },
            };
            replaced.map(Some).map_err(|what| {
                Failure::new(format!(
                    "cannot replace {shown}: {what}; choose another name or remove it first"
                ))
            })
        }
    }
}

/// All files of a folder that has nothing but an image or nothing at all, else what it is.
fn files_of_image(path: &Path) -> Result<Vec<OsString>, String> {
    let entries = fs::read_dir(path).map_err(|error| format!("it is not a VM image: {error}"))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<_> = names.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if names.is_empty() {
        return Ok(names);
    }
    if !names.iter().any(|name| name == MANIFEST) {
        return Err(format!("it is not a VM image (it has no {MANIFEST})"));
    }
    let manifest = read_manifest(&path.join(MANIFEST))
        .map_err(|failure| format!("it is not a VM image ({failure})"))?;
    let is_listed = |name: &OsString| name == MANIFEST || manifest.files().any(|file| name == file);
    match names.iter().find(|name| !is_listed(name)) {
        Some(other) => {
            Err(format!("it has a {} that is not of the VM image", other.to_string_lossy()))
        }
        None => Ok(names),
    }
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

    /// An image of the machine `content`, of which the RAM's file is missing.
    fn image(path: &Path, content: &str) {
        fs::create_dir(path).unwrap();
        write(path, content);
    }

    fn write(folder: &Path, content: &str) {
        let manifest = serde_json::json!({
            "version": 1, "machine": content, "uuid": "", "page_size": 4096,
            "blocks": [{"name": "pc.ram", "bytes": 4096, "file": "pc.ram", "sha256": "00"}],
            "device_state": null, "device_state_sha256": null,
            "stream": {"configuration": [], "ram_section": 2, "sync": "flush", "footers": true}
        });
        fs::write(folder.join(MANIFEST), manifest.to_string()).unwrap();
    }

    fn content(path: &Path) -> String {
        read_manifest(&path.join(MANIFEST)).unwrap().machine.unwrap()
    }

    #[test]
    fn an_image_has_its_name_only_when_it_is_put_and_is_gone_unless_it_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("vm");
        for keep in [false, true] {
            let place = New::at(&path, true, false).unwrap();
            write(place.path(), "new");
            assert!(!path.exists());
            let placed = place.put(&Interrupt::default()).unwrap();
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
            let place = New::at(&path, true, true).unwrap();
            write(place.path(), "new");
            assert_eq!(content(&path), "old");
            let placed = place.put(&Interrupt::default()).unwrap();
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

    /// The contents of all images in a folder, in order.
    fn contents(parent: &Path) -> Vec<String> {
        let mut found: Vec<_> =
            entries(parent).iter().map(|name| content(&parent.join(name))).collect();
        found.sort();
        found
    }

    #[test]
    fn an_image_that_another_run_has_put_in_the_place_of_a_failed_one_stays() {
        for was_there in [false, true] {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("vm");
            if was_there {
                image(&path, "old");
            }
            let failed = New::at(&path, true, true).unwrap();
            write(failed.path(), "failed");
            let failed = failed.put(&Interrupt::default()).unwrap();
            let other = New::at(&path, true, true).unwrap();
            write(other.path(), "other");
            let other = other.put(&Interrupt::default()).unwrap();
            drop(failed);
            assert_eq!(content(&path), "other");
            other.keep();
            assert_eq!(content(&path), "other");
            // The image that was there before is no longer in its place, but not lost.
            let expected: &[&str] = if was_there { &["old", "other"] } else { &["other"] };
            assert_eq!(contents(parent.path()), expected);
        }
    }

    #[test]
    fn an_old_image_is_not_removed_where_it_cannot_have_its_name_back() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("vm");
        image(&path, "old");
        let place = New::at(&path, true, true).unwrap();
        write(place.path(), "new");
        let placed = place.put(&Interrupt::default()).unwrap();
        // Nothing is there that its name could be swapped with.
        fs::rename(&path, parent.path().join("moved")).unwrap();
        drop(placed);
        assert_eq!(contents(parent.path()), ["new", "old"]);
    }

    #[test]
    fn nothing_but_an_image_or_an_empty_folder_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("home");
        fs::create_dir(&path).unwrap();
        assert!(New::at(&path, true, false).is_err());
        assert!(New::at(&path, true, true).is_ok());
        fs::write(path.join("thesis"), "x").unwrap();
        let error = New::at(&path, true, true).unwrap_err().to_string();
        assert!(error.contains("is not a VM image"), "{error}");
        assert!(New::at(&path.join("thesis"), true, true).is_err());
        assert_eq!(entries(&path), ["thesis"]);
        for (manifest, what) in [("{}", "malformed"), ("", "thesis that is not of the VM image")] {
            write(&path, "old");
            if !manifest.is_empty() {
                fs::write(path.join(MANIFEST), manifest).unwrap();
            }
            let error = New::at(&path, true, true).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert_eq!(fs::read(path.join("thesis")).unwrap(), b"x");
    }

    #[test]
    fn a_file_that_comes_into_an_old_image_meanwhile_is_not_removed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("vm");
        image(&path, "old");
        let place = New::at(&path, true, true).unwrap();
        write(place.path(), "new");
        fs::write(path.join("thesis"), "x").unwrap();
        place.put(&Interrupt::default()).unwrap().keep();
        assert_eq!(content(&path), "new");
        let left = leftover::find(parent.path(), "vm").remove(0);
        assert_eq!(fs::read(left.join("thesis")).unwrap(), b"x");
    }

    #[test]
    fn what_a_killed_run_has_left_is_found_and_what_is_in_use_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join(".vm.Ab12Cd.partial");
        for name in [".vm.Ab12Cd.partial", ".vm.2.Ab12Cd.partial", ".vm..partial", "vm.x.partial"] {
            fs::create_dir(parent.path().join(name)).unwrap();
            // Not one that a run has just created.
            let folder = File::open(parent.path().join(name)).unwrap();
            folder.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        let place = New::at(&parent.path().join("vm"), true, false).unwrap();
        assert_eq!(leftover::find(parent.path(), "vm"), std::slice::from_ref(&left));
        let describe = || leftover::describe(&left, Path::new("vm"));
        assert!(describe().contains("remove it"));
        write(&left, "old");
        // It may be the only good one.
        assert!(describe().contains("compare it with vm first") && !describe().contains("remove"));
        drop(place);
        assert_eq!(leftover::find(parent.path(), "vm"), [left]);
    }

    #[test]
    fn a_program_that_ends_when_the_old_image_has_the_temporary_name_does_not_say_to_remove_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("vm");
        image(&path, "old");
        let place = New::at(&path, true, true).unwrap();
        let interrupt = Interrupt::default();
        interrupt.making(place.path());
        assert!(interrupt.leaves().unwrap().contains("remove"));
        write(place.path(), "new");
        let placed = place.put(&interrupt).unwrap();
        let said = interrupt.leaves().unwrap();
        assert!(said.contains("compare it with") && !said.contains("remove"), "{said}");
        placed.keep();
        assert_eq!(interrupt.leaves(), None);
    }

    #[test]
    fn a_name_taken_in_the_meantime_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("vm");
        let place = New::at(&path, true, false).unwrap();
        image(&path, "another");
        assert!(place.put(&Interrupt::default()).is_err());
        assert_eq!(content(&path), "another");
        assert_eq!(entries(parent.path()), ["vm"]);
    }

    #[test]
    fn a_place_without_a_parent_or_a_name_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        assert!(New::at(&parent.path().join("missing/vm"), true, false).is_err());
        assert!(New::at(Path::new("/"), true, true).is_err());
    }
}
