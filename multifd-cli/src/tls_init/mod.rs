//! `multifd tls-init`.

mod authority;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::escape::one_line;
use crate::failure::Failure;
use crate::output::Output;
use authority::Authority;

/// Make a CA and certificates for TLS, ready for multifd and QEMU.
///
/// The folder has the names of QEMU's tls-creds-x509: ca-cert.pem, a certificate with its key for the
/// side that listens (server-cert.pem, server-key.pem) and one for the side that connects
/// (client-cert.pem, client-key.pem), both for the hosts that are given. Nothing is overwritten.
///
/// A folder of its own for each host lets them be told apart (--tls-allow): make the CA alone first
/// (--ca-only), then each host's folder with it (--ca). The CA's own key is ca-key.pem in the CA's
/// folder. No migration needs it, and whoever has it can make a certificate for any name: keep that
/// folder away from the hosts. Without --ca the folder gets a CA of its own, with its ca-key.pem: copy the
/// other files to each host.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples, of a folder for all hosts, and of one for each:
  multifd tls-init tls --host host1.example --host 192.0.2.1

  multifd tls-init ca --ca-only
  multifd tls-init host1 --ca ca --host host1.example
  multifd tls-init host2 --ca ca --host host2.example
  multifd recv --listen tcp::4444 --to vm --tls-creds host2 --tls-allow host1.example
  multifd send --from vm --to tcp:host2.example:4444 --tls-creds host1")]
pub(crate) struct Args {
    /// The folder; it is made if it is not there
    folder: PathBuf,
    /// A DNS name or an IP address of a host that takes part; may be repeated
    #[arg(long, value_name = "NAME", required_unless_present = "ca_only", value_parser = host)]
    host: Vec<String>,
    /// Have the certificates issued by the CA in this folder, whose ca-key.pem is there, in place of a
    /// new one
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Make a CA alone, for --ca
    #[arg(long, conflicts_with_all = ["ca", "host"])]
    ca_only: bool,
    /// For how many days the certificates are valid, but no longer than their CA is
    #[arg(long, value_name = "N", default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
}

/// A file, and whether it is for its owner's eyes alone.
struct File {
    name: &'static str,
    text: String,
    secret: bool,
}

/// How far clocks may be apart.
const SKEW: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let folder = std::path::absolute(&args.folder)
        .map_err(|error| Failure::io(format!("cannot use {}", args.folder.display()), &error))?;
    let failed = |error| Failure::new(format!("cannot make a certificate: {error}"));
    let authority = match &args.ca {
        Some(folder) => Authority::open(folder)?,
        None => Authority::new(args.days).map_err(failed)?,
    };
    let mut files = match &args.ca {
        Some(_) => vec![authority.certificate_file()],
        None => authority.files(),
    };
    if !args.ca_only {
        files.extend(issue(&authority, &args.host, args.days).map_err(failed)?);
    }
    write(&folder, &files)?;
    // A line at a time: a line that is said has no end within it.
    made(args, &folder).lines().try_for_each(|line| output.say(line))
}

/// What has been made, and what is to be done with it.
fn made(args: &Args, folder: &Path) -> String {
    let dir = one_line(&folder.display().to_string());
    let (hosts, days) = (args.host.join(", "), args.days);
    if args.ca_only {
        return format!(
            "\
made in {dir}, valid for {days} days:
  ca-cert.pem   the CA's certificate, which tls-init copies to the folder of each host
  ca-key.pem    for nobody: whoever has it can make certificates; keep this folder away from the hosts
for each host:
  multifd tls-init HOST --ca {dir} --host NAME"
        );
    }
    let valid = match &args.ca {
        Some(ca) => {
            let ca = one_line(&ca.display().to_string());
            format!("by the CA in {ca}, valid for {days} days, or as long as that is")
        }
        None => format!("valid for {days} days"),
    };
    let key = match &args.ca {
        Some(_) => "",
        None => {
            "
  ca-key.pem                        for nobody: whoever has it can make certificates"
        }
    };
    format!(
        "\
made in {dir}, {valid}:
  ca-cert.pem                       for every host
  server-cert.pem, server-key.pem   for the side that listens: {hosts}
  client-cert.pem, client-key.pem   for the side that connects: {hosts}{key}
multifd:
  multifd recv --tls-creds {dir} ...
  multifd send --tls-creds {dir} ...
QEMU, on the side that listens, then on the side that connects:
  -object tls-creds-x509,id=tls0,dir={dir},endpoint=server
  -object tls-creds-x509,id=tls0,dir={dir},endpoint=client
and on both, in its monitor, before migrate_incoming and migrate:
  migrate_set_parameter tls-creds tls0"
    )
}

/// Reads a DNS name, the first label of which may be `*`, or an IP address.
fn host(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = text.strip_prefix("*.").unwrap_or(text);
    if text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && name.split('.').all(is_label)) {
        return Ok(text.to_owned());
    }
    Err(format!("'{text}' is neither a DNS name nor an IP address"))
}

/// What a CA issues for these hosts.
fn issue(authority: &Authority, hosts: &[String], days: u32) -> Result<Vec<File>, rcgen::Error> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

    let mut files = Vec::new();
    for (purpose, certificate, private) in [
        (ServerAuth, "server-cert.pem", "server-key.pem"),
        (ClientAuth, "client-cert.pem", "client-key.pem"),
    ] {
        let mut params = valid(CertificateParams::new(hosts)?, days);
        params.distinguished_name.push(DnType::CommonName, hosts[0].as_str());
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        authority.outlast(&mut params);
        let key = KeyPair::generate()?;
        let issued = params.signed_by(&key, &authority.issuer)?;
        files.push(File { name: certificate, text: issued.pem(), secret: false });
        files.push(File { name: private, text: key.serialize_pem(), secret: true });
    }
    Ok(files)
}

/// Valid from a little before now for so many days.
fn valid(mut params: CertificateParams, days: u32) -> CertificateParams {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + now;
    params.not_before = now - SKEW;
    params.not_after = now + Duration::from_secs(u64::from(days) * 24 * 3600);
    params
}

/// Writes all files, or none.
fn write(folder: &Path, files: &[File]) -> Result<(), Failure> {
    let made = !folder.is_dir();
    if made {
        let created = fs::DirBuilder::new().mode(0o755).create(folder);
        created
            .map_err(|error| Failure::io(format!("cannot make {}", folder.display()), &error))?;
    }
    let paths: Vec<_> = files.iter().map(|file| folder.join(file.name)).collect();
    // None is made where one is there.
    for path in &paths {
        if path.symlink_metadata().is_ok() {
            return Err(not_written(path, &io::ErrorKind::AlreadyExists.into()));
        }
    }
    for (number, (file, path)) in files.iter().zip(&paths).enumerate() {
        if let Err(error) = create(file, path) {
            let began = usize::from(error.kind() != io::ErrorKind::AlreadyExists);
            for path in &paths[..number + began] {
                _ = fs::remove_file(path);
            }
            if made {
                _ = fs::remove_dir(folder);
            }
            return Err(not_written(path, &error));
        }
    }
    Ok(())
}

fn create(file: &File, path: &Path) -> io::Result<()> {
    let mode = if file.secret { 0o600 } else { 0o644 };
    let mut created = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    created.write_all(file.text.as_bytes())?;
    created.sync_all()
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(format!(
            "{} is there already, and is not overwritten: choose another folder, or remove it",
            path.display()
        )),
        _ => Failure::io(format!("cannot write {}", path.display()), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_dns_name_or_an_ip_address() {
        for good in ["host", "host1.example", "*.example", "192.0.2.1", "2001:db8::1", "a_b-c"] {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        for bad in ["", "a b", "tcp:host:1", "host.", "a..b", "*", "a.*.b", "é", &"x".repeat(64)] {
            host(bad).unwrap_err();
        }
    }
}
