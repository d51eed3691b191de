//! What a migration goes over.

mod link;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::setting::{Rate, Setting};

use link::Link;

/// Source and destination, and what is between them.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) source: Host,
    pub(crate) destination: Host,
    /// It lasts as long as this.
    _link: Option<Link>,
}

/// Where a program runs.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Its address.
    pub(crate) address: &'static str,
    /// The command that runs a program there, before the program and its arguments. It becomes the
    /// program, so that the process is the program's.
    pub(crate) enter: Vec<String>,
    /// A QEMU that runs there.
    pub(crate) qemu: PathBuf,
}

impl Network {
    /// The network of a setting. In `folder` is put what it needs.
    pub(crate) fn of(setting: Setting, qemu: &Path, folder: &Path) -> Result<Self, Error> {
        match setting {
            Setting::Plain | Setting::Touched | Setting::Tls => Ok(Self::loopback(qemu)),
            Setting::Link(rate) => Self::link(rate, qemu, folder),
        }
    }

    fn loopback(qemu: &Path) -> Self {
        let host = Host { address: "127.0.0.1", enter: Vec::new(), qemu: qemu.to_owned() };
        Self { source: host.clone(), destination: host, _link: None }
    }

    fn link(rate: Rate, qemu: &Path, folder: &Path) -> Result<Self, Error> {
        let link = Link::new(rate)?;
        let host = |address, enter: Vec<String>, side| {
            let program = folder.join(format!("qemu-{side}-{}G", rate.gigabits()));
            write_program(&program, &enter, qemu)?;
            Ok::<_, Error>(Host { address, enter, qemu: program })
        };
        let source = host(link::SOURCE, link.source(), "source")?;
        let destination = host(link::DESTINATION, link.destination(), "destination")?;
        Ok(Self { source, destination, _link: Some(link) })
    }
}

/// Writes a program that runs `qemu` by the command `enter`.
fn write_program(path: &Path, enter: &[String], qemu: &Path) -> Result<(), Error> {
    let shown = path.display();
    let qemu = std::path::absolute(qemu).map_err(Error::io("find QEMU"))?;
    let qemu = qemu.display().to_string().replace('\'', r"'\''");
    let script = format!("#!/bin/sh\nexec {} '{qemu}' \"$@\"\n", enter.join(" "));
    fs::write(path, script).map_err(Error::io(format!("write {shown}")))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(Error::io(format!("make {shown} a program")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_is_run_by_the_command_with_all_its_arguments_and_whatever_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (qemu, program) = (folder.path().join("a 'QEMU'"), folder.path().join("program"));
        fs::write(&qemu, "#!/bin/sh\necho \"$VERSUS,$#,$1\"\n").unwrap();
        fs::set_permissions(&qemu, Permissions::from_mode(0o755)).unwrap();
        let enter = ["env".to_owned(), "VERSUS=here".to_owned()];
        write_program(&program, &enter, &qemu).unwrap();
        // By sh: a file that another thread's child still has open for writing cannot be run itself.
        let output = Command::new("sh").arg(&program).args(["a b", "c"]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "here,2,a b\n");
    }
}
