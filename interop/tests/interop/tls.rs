//! TLS, with the certificates of `multifd tls-init`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libtest_mimic::Trial;
use multifd_interop::program::Multifd;
use multifd_interop::qemu::{Qemu, Settings, Version};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{
    MIB, Tested, UUID, check, check_equal, check_says, image, image_ram, receive, send, source,
    trial,
};
use crate::failures::{failed_saying, runs_on};

use Version::{Newest, V7_2, V10_0};

/// The name that the certificates are for, beside 127.0.0.1.
const NAME: &str = "migration.example";

type Test = fn(Version) -> Tested;

const FAILURES: [(&str, Test); 10] = [
    ("a_qemu_refuses_a_receiver_of_another_ca", recv_of_another_ca),
    ("a_qemu_refuses_a_receiver_of_another_name", recv_of_another_name),
    ("a_qemu_refuses_a_receiver_that_has_expired", recv_that_has_expired),
    ("a_receiver_refuses_a_qemu_without_a_certificate", qemu_without_certificate),
    ("a_receiver_with_tls_refuses_a_qemu_without", plain_qemu_to_recv),
    ("a_qemu_with_tls_says_that_its_receiver_has_none", qemu_to_plain_recv),
    ("a_sender_refuses_a_qemu_of_another_ca_or_name", send_to_another_qemu),
    ("a_qemu_refuses_a_sender_without_a_certificate", send_without_certificate),
    ("a_qemu_with_tls_refuses_a_sender_without_and_says_why", plain_send_to_qemu),
    ("a_sender_with_tls_says_that_its_qemu_has_none", send_to_plain_qemu),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    // Debian builds no QEMU with qpl.
    for (version, codec) in [(V7_2, "zlib"), (V10_0, "none"), (Newest, "zstd")] {
        let name = format!("tls::from_qemu_{version}::{codec}::a_guest_arrives");
        trials.push(trial(name, vec![version], move || arrives(version, codec)));
    }
    for (version, codec) in [(V7_2, "zstd"), (V10_0, "zlib"), (Newest, "none")] {
        let name = format!("tls::to_qemu_{version}::{codec}::a_guest_goes_on_there");
        trials.push(trial(name, vec![version], move || goes_on(version, codec)));
    }
    for (version, codecs) in
        [(V7_2, ["zstd", "none"]), (V10_0, ["zlib", "zstd"]), (Newest, ["none", "zlib"])]
    {
        let legs = codecs.join("_to_");
        let name = format!("tls::relay::qemu_{version}::{legs}::a_guest_goes_on_there");
        trials.push(trial(name, vec![version], move || is_relayed(version, codecs)));
    }
    for version in Version::ALL {
        for (name, test) in FAILURES {
            let name = format!("tls::qemu_{version}::{name}");
            // This version says nothing, and the limit is 10 s.
            let slow = version == V7_2 && name.contains("its_qemu_has_none");
            let test = trial(name, vec![version], move || test(version));
            trials.push(test.with_ignored_flag(slow));
        }
    }
    trials
}

// ------------------------------------------------------------- certificates

/// A folder that `multifd tls-init` has made for the host.
fn init(hosts: &[&str]) -> Tested<TempDir> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("tls").display().to_string();
    let hosts = hosts.iter().flat_map(|host| ["--host", host]);
    Multifd::run(["tls-init", &dir].into_iter().chain(hosts))?;
    Ok(folder)
}

/// The folder that all sides have.
fn shared() -> Tested<PathBuf> {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    if FOLDER.get().is_none() {
        _ = FOLDER.set(init(&["127.0.0.1", NAME])?);
    }
    let folder = FOLDER.get().ok_or("no certificates")?;
    Ok(folder.path().join("tls"))
}

/// The shared folder without these files.
fn without(names: &[&str]) -> Tested<TempDir> {
    let (from, folder) = (shared()?, tempfile::tempdir()?);
    fs::create_dir(folder.path().join("tls"))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if names.iter().all(|name| entry.file_name() != *name) {
            fs::copy(entry.path(), folder.path().join("tls").join(entry.file_name()))?;
        }
    }
    Ok(folder)
}

/// A CA whose server's certificate has expired.
fn expired() -> Tested<TempDir> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("tls");
    fs::create_dir(&dir)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a test's CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(dir.join("ca-cert.pem"), authority.pem())?;
    for (role, until) in [("server", 2021), ("client", 2099)] {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), NAME.to_owned()])?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        fs::write(dir.join(format!("{role}-cert.pem")), certificate.pem())?;
        let private = dir.join(format!("{role}-key.pem"));
        fs::write(&private, key.serialize_pem())?;
        fs::set_permissions(private, fs::Permissions::from_mode(0o600))?;
    }
    Ok(folder)
}

fn dir(folder: &TempDir) -> PathBuf {
    folder.path().join("tls")
}

// -------------------------------------------------------------------- sides

/// Has a QEMU use TLS.
fn use_tls(qemu: &mut Qemu, endpoint: &str, dir: &Path, hostname: &str) -> Tested {
    let object = json!({
        "qom-type": "tls-creds-x509", "id": "tls0", "dir": dir, "endpoint": endpoint,
    });
    qemu.execute("object-add", &object)?;
    qemu.set_parameters(&json!({ "tls-creds": "tls0", "tls-hostname": hostname }))?;
    Ok(())
}

/// A QEMU that waits for a migration over TLS, and where.
fn waiting(version: Version, settings: &Settings, dir: &Path) -> Tested<(Qemu, String)> {
    let memory = format!("{MIB}M");
    let machine = version.machine();
    let arguments = ["-machine", machine, "-m", &memory, "-uuid", UUID, "-incoming", "defer"];
    let mut qemu = Qemu::start(&version.program()?, MIB, &arguments.map(str::to_owned))?;
    qemu.set_up(settings)?;
    use_tls(&mut qemu, "server", dir, "")?;
    let uri = qemu.listen()?;
    Ok((qemu, uri))
}

/// A QEMU whose paused guest is to go over TLS.
fn ready(version: Version, settings: &Settings, dir: &Path) -> Tested<Qemu> {
    let mut source = source(version, version.machine())?;
    source.set_up(settings)?;
    use_tls(&mut source, "client", dir, "")?;
    source.stop()?;
    Ok(source)
}

/// What `send` is told for this version.
fn sent(version: Version, compression: &'static str) -> Settings {
    let zero_pages = if version.has_zero_pages_in_packets() { "multifd" } else { "legacy" };
    Settings { compression, zero_pages: Some(zero_pages), ..Settings::default() }
}

fn with(compression: &'static str) -> Settings {
    Settings { compression, ..Settings::default() }
}

// ---------------------------------------------------------------- that goes

fn arrives(version: Version, codec: &'static str) -> Tested {
    let (dir, folder) = (shared()?, tempfile::tempdir()?);
    let to = folder.path().join("vm");
    let mut source = ready(version, &with(codec), &dir)?;
    let creds = dir.display().to_string();
    // The client's certificate is for the same hosts.
    let options = ["--tls-creds", &creds, "--tls-allow", "*.example"];
    let (recv, uri) = receive(&to, &with(codec), &options)?;
    source.migrate(&uri)?;
    source.complete_migration()?;
    recv.succeed()?;
    check_equal(&source.ram()?, &image_ram(&to)?)
}

fn goes_on(version: Version, codec: &'static str) -> Tested {
    let (dir, image) = (shared()?, image(version, false)?);
    let (mut destination, uri) = waiting(version, &with(codec), &dir)?;
    let creds = dir.display().to_string();
    let options = ["--tls-creds", &creds, "--tls-hostname", NAME];
    send(&image.path(), &uri, &sent(version, codec), &options)?.succeed()?;
    destination.complete_migration()?;
    check_equal(&image_ram(&image.path())?, &destination.ram()?)?;
    destination.cont()?;
    Ok(destination.goes_on()?)
}

fn is_relayed(version: Version, [from, to]: [&'static str; 2]) -> Tested {
    let dir = shared()?;
    let (mut destination, uri) = waiting(version, &with(to), &dir)?;
    let mut source = ready(version, &with(from), &dir)?;
    let creds = dir.display().to_string();
    let ends = ["relay", "--listen", "tcp:127.0.0.1:0", "--to", &uri, "--json"];
    let codecs = ["--from-compression", from, "--to-compression", to];
    let tls = ["--from-tls-creds", &creds, "--to-tls-creds", &creds, "--to-tls-hostname", NAME];
    let mut relay = Multifd::start(ends.iter().chain(&codecs).chain(&tls))?;
    source.migrate(&relay.listening()?)?;
    source.complete_migration()?;
    destination.complete_migration()?;
    let report: Value = serde_json::from_str(&relay.succeed()?)?;
    check(report["confirmed"] == true, || format!("the relay says {report}"))?;
    check_equal(&source.ram()?, &destination.ram()?)?;
    destination.cont()?;
    Ok(destination.goes_on()?)
}

// ---------------------------------------------------- that fails, from QEMU

/// A migration from a QEMU with `has` to a receiver with these options fails at once, and the receiver
/// logs why. The guest runs on.
fn fails_at_recv(
    version: Version,
    has: Option<&Path>,
    options: &[&str],
    recv_says: &str,
) -> Tested {
    let folder = tempfile::tempdir()?;
    let mut source = source(version, version.machine())?;
    source.set_up(&Settings::default())?;
    if let Some(dir) = has {
        use_tls(&mut source, "client", dir, "")?;
    }
    let (mut recv, uri) = receive(&folder.path().join("vm"), &Settings::default(), options)?;
    source.migrate(&uri)?;
    runs_on(&mut source)?;
    recv.says(recv_says)?;
    Ok(())
}

fn recv_of_another_ca(version: Version) -> Tested {
    let other = init(&["127.0.0.1"])?;
    let creds = dir(&other).display().to_string();
    // GnuTLS sends none that the other side has not asked for.
    let says = "no client certificate of a CA in ca-cert.pem here";
    fails_at_recv(version, Some(&shared()?), &["--tls-creds", &creds], says)
}

fn recv_of_another_name(version: Version) -> Tested {
    let other = init(&["elsewhere.example"])?;
    let creds = dir(&other).display().to_string();
    let says = "left right behind the TLS handshake";
    fails_at_recv(version, Some(&dir(&other)), &["--tls-creds", &creds], says)
}

fn recv_that_has_expired(version: Version) -> Tested {
    let expired = expired()?;
    let creds = dir(&expired).display().to_string();
    let says = "left right behind the TLS handshake";
    fails_at_recv(version, Some(&dir(&expired)), &["--tls-creds", &creds], says)
}

fn qemu_without_certificate(version: Version) -> Tested {
    let none = without(&["client-cert.pem", "client-key.pem"])?;
    let creds = shared()?.display().to_string();
    let says = "it has no client certificate of a CA";
    fails_at_recv(version, Some(&dir(&none)), &["--tls-creds", &creds], says)
}

fn plain_qemu_to_recv(version: Version) -> Tested {
    let creds = shared()?.display().to_string();
    let says = "it is a migration without TLS";
    fails_at_recv(version, None, &["--tls-creds", &creds], says)
}

fn qemu_to_plain_recv(version: Version) -> Tested {
    fails_at_recv(version, Some(&shared()?), &[], "it is TLS")
}

// ------------------------------------------------------ that fails, to QEMU

/// A migration of `send` with these options to a QEMU with `has` fails at once, and says these words.
/// Returns what QEMU says.
fn fails_at_send(version: Version, has: &Path, options: &[&str], words: &[&str]) -> Tested<String> {
    let image = image(version, false)?;
    let (mut destination, uri) = waiting(version, &Settings::default(), has)?;
    let send = send(&image.path(), &uri, &sent(version, "none"), options)?;
    let ended = send.wait()?;
    check(!ended.success, || format!("it succeeded: {}", ended.stdout))?;
    check_says(&ended.stderr, words)?;
    destination.kill();
    Ok(destination.stderr())
}

fn send_to_another_qemu(version: Version) -> Tested {
    let creds = shared()?.display().to_string();
    let other = init(&[NAME])?;
    let options = ["--tls-creds", &creds, "--tls-hostname", NAME];
    fails_at_send(version, &dir(&other), &options, &["not of a CA in ca-cert.pem"])?;
    let options = ["--tls-creds", &creds, "--tls-hostname", "elsewhere"];
    let words = ["for 127.0.0.1, migration.example, not for elsewhere"];
    fails_at_send(version, &shared()?, &options, &words).map(drop)
}

fn send_without_certificate(version: Version) -> Tested {
    let none = without(&["client-cert.pem", "client-key.pem"])?;
    let creds = dir(&none).display().to_string();
    let options = ["--tls-creds", &creds, "--tls-hostname", NAME];
    let words = ["wants a client certificate", "client-cert.pem"];
    fails_at_send(version, &shared()?, &options, &words).map(drop)
}

fn plain_send_to_qemu(version: Version) -> Tested {
    // It only closes the connection, and has the cause in its own messages.
    let said =
        fails_at_send(version, &shared()?, &[], &["the destination closed", "its own messages"])?;
    check_says(&said, &["TLS handshake failed"])
}

fn send_to_plain_qemu(version: Version) -> Tested {
    let image = image(version, false)?;
    let (mut destination, uri) =
        crate::common::waiting(version, version.machine(), &Settings::default())?;
    let creds = shared()?.display().to_string();
    let options = ["--tls-creds", &creds, "--tls-hostname", NAME];
    let send = send(&image.path(), &uri, &sent(version, "none"), &options)?;
    failed_saying(&send.wait()?, &["not speak TLS"])?;
    destination.kill();
    Ok(())
}
