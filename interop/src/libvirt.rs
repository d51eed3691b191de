//! Two hosts with a libvirt each, on this machine, and domains that go from one to the other.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::error::Error;
use crate::firmware::{self, COUNTER};
use crate::wait::wait_until;

/// The name of the domain.
pub const DOMAIN: &str = "guest";

/// The domain's RAM, in MiB.
pub const MIB: u32 = 16;

/// Set where libvirt must be there.
const REQUIRED: &str = "MULTIFD_LIBVIRT";

/// The libvirt of `scripts/libvirt` is not there, or cannot run.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no libvirt that runs here: {why}")]
pub struct Missing {
    why: String,
    /// Whether it must be there, since the environment has `MULTIFD_LIBVIRT`.
    pub required: bool,
}

/// One of the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Where the domain starts.
    Alpha,
    /// Where it goes.
    Beta,
}

impl Host {
    const fn name(self) -> &'static str {
        match self {
            Self::Alpha => "alpha",
            Self::Beta => "beta",
        }
    }
}

/// Both hosts, each with its libvirtd, and one domain with the guest of [`firmware`]. All of it ends
/// when this is dropped.
#[derive(Debug)]
pub struct Hosts {
    // Dropped in this order: what runs has its files in the folder.
    _daemons: [Running; 2],
    folder: TempDir,
}

/// A program of libvirt's, with a host and everything on it. It ends when this is dropped.
#[derive(Debug)]
struct Running {
    child: Child,
}

/// `virsh`, while it runs.
#[derive(Debug)]
pub struct Virsh {
    running: Running,
    output: PathBuf,
}

impl Hosts {
    /// Whether there is a libvirt, and it runs.
    ///
    /// # Errors
    /// It is not there, or an ordinary user can have no namespaces here.
    pub fn available() -> Result<(), Missing> {
        let missing = |why: String| Missing { why, required: env::var_os(REQUIRED).is_some() };
        let folder = tempfile::tempdir().map_err(|error| missing(error.to_string()))?;
        let said = command(folder.path(), "probe", "virsh").arg("--version").output();
        let said = said.map_err(|error| missing(error.to_string()))?;
        if said.status.success() {
            return Ok(());
        }
        Err(missing(String::from_utf8_lossy(&said.stderr).trim().replace('\n', "; ")))
    }

    /// Starts both, and the domain on [`Host::Alpha`].
    ///
    /// # Errors
    /// A program of libvirt's does not run, or refuses the domain.
    pub fn start() -> Result<Self, Error> {
        let folder = tempfile::tempdir().map_err(Error::io("make a folder"))?;
        let daemons = [daemon(folder.path(), Host::Alpha)?, daemon(folder.path(), Host::Beta)?];
        let hosts = Self { _daemons: daemons, folder };
        for host in [Host::Alpha, Host::Beta] {
            let socket = hosts.socket(host);
            wait_until("libvirtd listens", || Ok(socket.exists().then_some(())))?;
        }
        let firmware = hosts.file("firmware");
        fs::write(&firmware, firmware::image()).map_err(Error::io("write the firmware"))?;
        let domain = hosts.file("domain.xml");
        fs::write(&domain, definition(&firmware)).map_err(Error::io("write the domain"))?;
        hosts.virsh(Host::Alpha, &["create", &domain.display().to_string()])?;
        Ok(hosts)
    }

    /// The address that libvirt gives to the domain's host.
    pub fn uri(&self, host: Host) -> String {
        format!("qemu+unix:///session?socket={}", self.socket(host).display())
    }

    /// A file that libvirt, its QEMUs and the test see by the same path.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `virsh` to its end. Gives what it prints.
    ///
    /// # Errors
    /// It fails, with what it says.
    pub fn virsh(&self, host: Host, arguments: &[&str]) -> Result<String, Error> {
        let (success, said) = self.start_virsh(host, arguments)?.wait()?;
        if success { Ok(said) } else { Err(Error::Failed(format!("virsh {arguments:?}: {said}"))) }
    }

    /// Starts `virsh`.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start_virsh(&self, host: Host, arguments: &[&str]) -> Result<Virsh, Error> {
        let (output, path) = tempfile::NamedTempFile::new_in(&self.folder)
            .and_then(|file| Ok(file.keep()?))
            .map_err(Error::io("make a file"))?;
        let errors = output.try_clone().map_err(Error::io("make a file"))?;
        let mut command = command(self.folder.path(), "client", "virsh");
        command.args(["--quiet", "--connect", &self.uri(host)]).args(arguments);
        let running = Running::spawn(command.stdout(output).stderr(errors))?;
        Ok(Virsh { running, output: path })
    }

    /// The state of the domain in libvirt's words, and `absent` where the host has none.
    ///
    /// # Errors
    /// libvirt does not say.
    pub fn state(&self, host: Host) -> Result<String, Error> {
        if self.virsh(host, &["list", "--name"])?.trim() != DOMAIN {
            return Ok("absent".to_owned());
        }
        Ok(self.virsh(host, &["domstate", DOMAIN])?.trim().to_owned())
    }

    /// What libvirt has written down of the domain's QEMU, and what that has said.
    pub fn log(&self, host: Host) -> String {
        let log = self.file(host.name()).join("cache/libvirt/qemu/log").join(DOMAIN);
        fs::read_to_string(log.with_extension("log")).unwrap_or_else(|error| error.to_string())
    }

    /// Waits until the domain's guest has made some rounds more than it has now.
    ///
    /// # Errors
    /// It stands still.
    pub fn goes_on(&self, host: Host) -> Result<(), Error> {
        let before = self.counter(host)?;
        wait_until("the guest goes on", || {
            Ok((self.counter(host)?.wrapping_sub(before) >= 4).then_some(()))
        })
    }

    /// The number of rounds that the guest has made.
    ///
    /// # Errors
    /// QEMU does not say.
    pub fn counter(&self, host: Host) -> Result<u32, Error> {
        let said = self.monitor(host, &format!("xp /1wx {COUNTER:#x}"))?;
        let number = said
            .trim()
            .rsplit_once("0x")
            .and_then(|(_, digits)| u32::from_str_radix(digits, 16).ok());
        number.ok_or_else(|| Error::Protocol(format!("no counter in {said:?}")))
    }

    /// The domain's RAM.
    ///
    /// # Errors
    /// QEMU does not write it.
    pub fn ram(&self, host: Host) -> Result<Vec<u8>, Error> {
        let file = self.file("ram");
        let said =
            self.monitor(host, &format!("pmemsave 0 {:#x} \"{}\"", MIB << 20, file.display()))?;
        fs::read(file).map_err(Error::io(format!("read the RAM that QEMU wrote (it said: {said})")))
    }

    /// Waits until a migration has gone over the dirty pages so often.
    ///
    /// # Errors
    /// It has ended, or takes too long.
    pub fn wait_for_rounds(&self, host: Host, rounds: u64) -> Result<(), Error> {
        wait_until("the migration goes on", || {
            let said = self.virsh(host, &["domjobinfo", DOMAIN])?;
            let line = said.lines().find_map(|line| line.strip_prefix("Iteration:"));
            let made = line.and_then(|line| line.trim().parse::<u64>().ok());
            Ok(made.is_some_and(|made| made >= rounds).then_some(()))
        })
    }

    /// Gives QEMU a command of its own, past libvirt. Gives what it says.
    ///
    /// # Errors
    /// libvirt does not pass it on.
    pub fn monitor(&self, host: Host, command: &str) -> Result<String, Error> {
        self.virsh(host, &["qemu-monitor-command", DOMAIN, "--hmp", command])
    }

    fn socket(&self, host: Host) -> PathBuf {
        self.file(host.name()).join("run/libvirt/libvirt-sock")
    }
}

impl Virsh {
    /// Whether it still runs.
    ///
    /// # Errors
    /// The system does not say.
    pub fn runs(&mut self) -> Result<bool, Error> {
        let ended = self.running.child.try_wait();
        ended.map(|status| status.is_none()).map_err(Error::io("look after virsh"))
    }

    /// Waits for its end: whether it succeeds, and what it says.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(mut self) -> Result<(bool, String), Error> {
        let status = wait_until("virsh ends", || {
            self.running.child.try_wait().map_err(Error::io("look after virsh"))
        })?;
        let said = fs::read_to_string(&self.output).map_err(Error::io("read what virsh says"))?;
        Ok((status.success(), said))
    }
}

impl Running {
    fn spawn(command: &mut Command) -> Result<Self, Error> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self { child: child.map_err(Error::io("run scripts/libvirt"))? })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where it has ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A port that is free at 127.0.0.1 and 127.0.0.2.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16, Error> {
    for _ in 0..100 {
        let one = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 1), 0));
        let port = one.as_ref().ok().and_then(|one| one.local_addr().ok()).map(|at| at.port());
        let port = port.ok_or_else(|| Error::Failed("no free port".to_owned()))?;
        if TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::Failed("no port that is free at 127.0.0.1 and 127.0.0.2".to_owned()))
}

/// A program of libvirt's on a host.
fn command(folder: &Path, host: &str, program: &str) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/libvirt"));
    command.arg("run").arg(folder).args([host, program]);
    command
}

fn daemon(folder: &Path, host: Host) -> Result<Running, Error> {
    let home = folder.join(host.name());
    let config = home.join("config/libvirt");
    for folder in [&config, &home.join("cache"), &home.join("run")] {
        fs::create_dir_all(folder).map_err(Error::io("make a folder"))?;
    }
    // libvirt does not migrate to the host that a domain is on, which it knows by this.
    let number = host as u8;
    let log = home.join("log");
    let daemon = format!(
        "host_uuid = \"5c1b3f2e-6a0d-4d3c-9b7e-00000000000{number}\"\nlog_outputs = \"2:file:{}\"\n",
        log.display()
    );
    // Session daemons have no virtlogd and no security driver here.
    let qemu = "stdio_handler = \"file\"\nsecurity_driver = \"none\"\n";
    for (name, text) in [("libvirtd.conf", daemon.as_str()), ("qemu.conf", qemu)] {
        fs::write(config.join(name), text).map_err(Error::io("write libvirt's configuration"))?;
    }
    let output = File::create(home.join("output")).map_err(Error::io("make a file"))?;
    let errors = output.try_clone().map_err(Error::io("make a file"))?;
    Running::spawn(command(folder, host.name(), "libvirtd").stdout(output).stderr(errors))
}

/// The domain in libvirt's language: RAM and a processor, and as good as no devices.
fn definition(firmware: &Path) -> String {
    format!(
        "<domain type='qemu'>
  <name>{DOMAIN}</name>
  <memory unit='MiB'>{MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <loader type='rom' readonly='yes'>{}</loader>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
",
        firmware.display()
    )
}
