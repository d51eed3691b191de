//! Machines that are made up: their /sys, /dev and /proc in a folder, and a libqpl that does
//! nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::geteuid;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Ended, PROGRAM, run};

/// A machine with one IAA, iax1, whose eight engines serve its queue wq1.0.
pub(super) struct Machine {
    folder: TempDir,
}

/// Of libqpl, unless a test wants another.
const USUAL_VERSION: &str = "1.9.0";

/// Attributes of a queue that nobody has set up.
const NO_QUEUE: &[(&str, &str)] = &[
    ("state", "disabled"),
    ("type", "none"),
    ("mode", "dedicated"),
    ("group_id", "-1"),
    ("size", "0"),
    ("threshold", "0"),
    ("block_on_fault", "0"),
];

impl Machine {
    /// One on which all is well.
    pub(super) fn well() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Self { folder };
        machine.set("proc/cmdline", "quiet intel_iommu=on,sm_on ro");
        machine.set("proc/sys/kernel/osrelease", "6.8.0-31-generic");
        machine.set("proc/self/status", "Name:\tmultifd\nCapEff:\t000001ffffffffff");
        machine.set_pci("0000:00:00.0", "0x1022", "0x0cfe");
        machine.set_pci("0000:6a:01.0", "0x8086", "0x0b25");
        machine.set_pci("0000:6a:02.0", "0x8086", "0x0cfe");
        // The DSA beside it is none of ours, whatever it looks like.
        machine.set_bus("dsa0/state", "no state");
        machine.set_bus("wq0.0/state", "no state");
        machine.add_device(1);
        machine.set("libraries/libaccel-config.so.1", "");
        machine.install_libqpl(USUAL_VERSION);
        machine
    }

    /// Adds the device iaxN like iax1.
    pub(super) fn add_device(&self, n: u32) {
        let device = [
            ("state", "enabled"),
            ("numa_node", "0"),
            ("pasid_enabled", "1"),
            ("max_work_queues_size", "128"),
        ];
        for (name, value) in device {
            self.set_bus(&format!("iax{n}/{name}"), value);
        }
        for part in 0..8 {
            self.set_bus(&format!("engine{n}.{part}/group_id"), "0");
            for (name, value) in NO_QUEUE {
                self.set_bus(&format!("wq{n}.{part}/{name}"), value);
            }
        }
        let queue = [
            ("state", "enabled"),
            ("type", "user"),
            ("mode", "shared"),
            ("group_id", "0"),
            ("size", "128"),
            ("threshold", "128"),
            ("block_on_fault", "1"),
        ];
        for (name, value) in queue {
            self.set_bus(&format!("wq{n}.0/{name}"), value);
        }
        self.set(&format!("dev/iax/wq{n}.0"), "");
    }

    /// Has nobody set the device up.
    pub(super) fn clear(&self, n: u32) {
        self.set_bus(&format!("iax{n}/state"), "disabled");
        (0..8).for_each(|part| self.set_bus(&format!("engine{n}.{part}/group_id"), "-1"));
        for (name, value) in NO_QUEUE {
            self.set_bus(&format!("wq{n}.0/{name}"), value);
        }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file, as the kernel has it: with a newline at the end.
    pub(super) fn set(&self, path: &str, value: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    }

    /// The same, of the bus that the driver idxd has its devices on.
    pub(super) fn set_bus(&self, path: &str, value: &str) {
        self.set(&format!("sys/bus/dsa/devices/{path}"), value);
    }

    pub(super) fn set_driver(&self, address: &str, driver: &str) {
        let link = self.path(&format!("sys/bus/pci/devices/{address}/driver"));
        symlink(format!("../../../bus/pci/drivers/{driver}"), link).unwrap();
    }

    pub(super) fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    fn set_pci(&self, address: &str, vendor: &str, device: &str) {
        self.set(&format!("sys/bus/pci/devices/{address}/vendor"), vendor);
        self.set(&format!("sys/bus/pci/devices/{address}/device"), device);
    }

    /// Installs a libqpl that says it has `version`, and in which every job succeeds.
    pub(super) fn install_libqpl(&self, version: &str) {
        static USUAL: OnceLock<Vec<u8>> = OnceLock::new();
        let built = match version {
            USUAL_VERSION => USUAL.get_or_init(|| build_libqpl(version)),
            _ => &build_libqpl(version),
        };
        fs::write(self.path("libqpl.so.1"), built).unwrap();
    }

    /// What `multifd doctor` says of it.
    pub(super) fn doctor(&self, args: &[&str]) -> Ended {
        run(&mut self.command(Path::new(PROGRAM), args))
    }

    /// What it says where the simulation is loaded in libaccel-config's place.
    pub(super) fn doctor_with_simulation(&self, args: &[&str]) -> Ended {
        let mut command = self.command(Path::new(PROGRAM), args);
        run(command.env("LD_PRELOAD", iaa_sim::library_file().unwrap()))
    }

    /// What `multifd doctor` says to a user who is not root: root may do everything.
    pub(super) fn doctor_for_another(&self) -> Ended {
        const NOBODY: u32 = 65534;
        if !geteuid().is_root() {
            return self.doctor(&["--json"]);
        }
        // Where it was built, only root may be. Another process copies it: one that this process
        // has open for writing, other tests' children have too, and then it cannot be run.
        let program = self.path("multifd");
        assert!(Command::new("cp").arg(PROGRAM).arg(&program).status().unwrap().success());
        run(self.command(&program, &["--json"]).current_dir("/").uid(NOBODY).gid(NOBODY))
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("doctor").args(args).env_remove("RUST_LOG");
        for root in ["sys", "dev", "proc", "etc"] {
            command.arg(format!("--{root}")).arg(self.path(root));
        }
        command.env("QPL_LIBRARY", self.path("libqpl.so.1"));
        command.env("LD_LIBRARY_PATH", self.path("libraries"));
        command
    }
}

fn build_libqpl(version: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("libqpl.c"), folder.path().join("libqpl.so.1"));
    let jobs = ["execute", "submit", "check", "wait", "fini"]
        .map(|verb| format!("int qpl_{verb}_job(void *job) {{ return 0; }}\n"));
    let code = format!(
        "const char *qpl_get_library_version(void) {{ return \"{version}\"; }}\n\
         int qpl_get_job_size(int path, unsigned *bytes) {{ *bytes = 4096; return 0; }}\n\
         int qpl_init_job(int path, void *job) {{ return 0; }}\n{}",
        jobs.concat()
    );
    fs::write(&source, code).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]);
    assert!(compiler.status().unwrap().success());
    fs::read(library).unwrap()
}

/// What was found, of all levels but ok and note.
pub(super) fn faults(report: &Value) -> Vec<&Value> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["level"] == "problem" || finding["level"] == "warning")
        .collect()
}
