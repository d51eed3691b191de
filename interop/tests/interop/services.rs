//! Relays and a receiver that serve, with guests of QEMU that go through them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use multifd_interop::program::{Multifd, Signal};
use multifd_interop::qemu::{Qemu, Settings, Version};
use serde_json::json;
use tempfile::TempDir;

use crate::common::{
    MIB, Tested, check, check_equal, image_ram, migrate, source, to_listen, trial,
};

const VMS: [&str; 2] =
    ["0a0b0c0d-0000-4000-8000-000000000001", "0a0b0c0d-0000-4000-8000-000000000002"];

pub(crate) fn trials() -> Vec<Trial> {
    let newest = Version::Newest;
    let whole_way =
        "services::a_guest_saved_into_a_file_goes_through_two_relays_into_another_and_goes_on";
    let proxy =
        "services::two_guests_at_once_go_by_unix_sockets_and_tls_between_as_by_kubevirts_proxies";
    vec![
        trial(whole_way.to_owned(), vec![newest], move || saved_to_saved(newest)),
        trial(proxy.to_owned(), vec![newest], move || by_unix_sockets(newest)),
    ]
}

/// A folder with certificates and a token.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Tested<Self> {
        let site = Self { folder: tempfile::tempdir()? };
        Multifd::run(["tls-init", &site.text("tls"), "--host", "127.0.0.1"])?;
        fs::write(site.path("token"), "the secret of both sides, of 32 bytes or more\n")?;
        fs::set_permissions(site.path("token"), fs::Permissions::from_mode(0o600))?;
        Ok(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A relay that serves, and where.
    fn relay(
        &self,
        listen: &str,
        to: &str,
        sides: [Side; 2],
        channels: &str,
    ) -> Tested<(Multifd, String)> {
        let (tls, token) = (self.text("tls"), self.text("token"));
        let channels = ["--from-channels", channels, "--to-channels", channels];
        let mut arguments = vec!["relay", "--serve", "--listen", listen, "--to", to];
        arguments.extend(channels);
        for (side, names) in sides.into_iter().zip([
            ["--from-tls-creds", "--from-token-file", "--from-compression"],
            ["--to-tls-creds", "--to-token-file", "--to-compression"],
        ]) {
            if matches!(side, Side::Network) {
                arguments.extend([names[0], &tls, names[1], &token, names[2], "zstd"]);
            }
        }
        let mut relay = Multifd::start(arguments)?;
        let uri = relay.listening()?;
        Ok((relay, uri))
    }
}

/// What is on one side of a relay.
#[derive(Clone, Copy)]
enum Side {
    /// The same host: no TLS and no codec.
    Host,
    /// The network: TLS, a token, and zstd.
    Network,
}

/// A service stops when it is told to, with success.
fn stop(service: Multifd) -> Tested {
    service.signal(Signal::TERM)?;
    service.succeed()?;
    Ok(())
}

fn saved_to_saved(version: Version) -> Tested {
    let site = Site::new()?;
    let settings =
        Settings { return_path: false, capabilities: &["mapped-ram"], ..Settings::default() };
    let mut qemu = source(version, version.machine())?;
    qemu.set_up(&settings)?;
    migrate(&mut qemu, &format!("file:{}", site.text("saved")), &settings, true)?;
    qemu.complete_migration()?;
    let (ram, counter) = (qemu.ram()?, qemu.counter()?);
    drop(qemu);
    Multifd::run([
        "convert",
        "--from",
        &format!("qemu-file:{}", site.text("saved")),
        "--to",
        &site.text("vm"),
    ])?;
    check_equal(&ram, &image_ram(&site.path("vm"))?)?;

    let to = format!("qemu-file:{}", site.text("{uuid}"));
    let mut recv = Multifd::start(["recv", "--serve", "--listen", "tcp:127.0.0.1:0", "--to", &to])?;
    let uri = recv.listening()?;
    let (second, uri) = site.relay("tcp:127.0.0.1:0", &uri, [Side::Network, Side::Host], "2")?;
    let (first, uri) = site.relay("tcp:127.0.0.1:0", &uri, [Side::Host, Side::Network], "2")?;
    // The file has no UUID.
    Multifd::run(["send", "--from", &site.text("vm"), "--to", &uri, "--uuid", VMS[0]])?;
    for service in [first, second, recv] {
        stop(service)?;
    }

    let mut next = to_listen(version, version.machine(), &settings)?;
    next.execute("migrate-incoming", &json!({ "uri": format!("file:{}", site.text(VMS[0])) }))?;
    next.complete_migration()?;
    check_equal(&ram, &next.ram()?)?;
    let after = next.counter()?;
    check(after == counter, || format!("the guest counts {after}, and not {counter}"))?;
    next.cont()?;
    Ok(next.goes_on()?)
}

/// A QEMU with this VM, which may wait for it.
fn vm(version: Version, uuid: &str, more: &[&str]) -> Tested<Qemu> {
    let memory = format!("{MIB}M");
    let arguments = ["-machine", version.machine(), "-m", &memory, "-uuid", uuid];
    let arguments: Vec<_> = arguments.iter().chain(more).map(|&word| word.to_owned()).collect();
    Ok(Qemu::start(&version.program()?, MIB, &arguments)?)
}

/// A QEMU that waits for this VM on a socket with its name.
fn waits(version: Version, uuid: &str, folder: &Path, settings: &Settings) -> Tested<Qemu> {
    let mut qemu = vm(version, uuid, &["-incoming", "defer"])?;
    qemu.set_up(settings)?;
    let uri = format!("unix:{}", folder.join(uuid).display());
    qemu.execute("migrate-incoming", &json!({ "uri": uri }))?;
    Ok(qemu)
}

fn by_unix_sockets(version: Version) -> Tested {
    let (site, settings) = (Site::new()?, Settings { channels: 8, ..Settings::default() });
    fs::create_dir(site.path("there"))?;
    let to = format!("unix:{}/{{uuid}}", site.text("there"));
    let (there, uri) = site.relay("tcp:127.0.0.1:0", &to, [Side::Network, Side::Host], "8")?;
    let listen = format!("unix:{}", site.text("here"));
    let (here, listen) = site.relay(&listen, &uri, [Side::Host, Side::Network], "8")?;
    let mut pairs = Vec::new();
    for uuid in VMS {
        let mut source = vm(version, uuid, &[])?;
        source.cont()?;
        source.goes_on()?;
        source.set_up(&settings)?;
        pairs.push((source, waits(version, uuid, &site.path("there"), &settings)?));
    }
    // At once.
    for (source, _) in &mut pairs {
        source.stop()?;
        source.migrate(&listen)?;
    }
    for (source, destination) in &mut pairs {
        source.complete_migration()?;
        destination.complete_migration()?;
        check_equal(&source.ram()?, &destination.ram()?)?;
        destination.cont()?;
        destination.goes_on()?;
    }
    stop(here)?;
    stop(there)
}
