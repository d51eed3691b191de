//! TLS, with the certificates of `multifd tls-init`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::{Ended, Running, command, multifd, names, text};
use crate::scene::Scene;

const FILES: [&str; 6] = [
    "ca-cert.pem",
    "ca-key.pem",
    "client-cert.pem",
    "client-key.pem",
    "server-cert.pem",
    "server-key.pem",
];

impl Scene {
    fn with_certificates() -> Self {
        let scene = Self::new();
        scene.init("tls", &["127.0.0.1", "host.example"]);
        scene
    }

    fn init(&self, name: &str, hosts: &[&str]) -> String {
        let folder = self.path(name);
        let hosts: Vec<_> = hosts.iter().flat_map(|&host| ["--host", host]).collect();
        let ended = multifd(&[&["tls-init", text(&folder)], &hosts[..]].concat());
        ended.succeeded().stdout
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_folder_is_made_with_everything_and_the_lines_for_qemu() {
    let scene = Scene::with_certificates();
    let folder = scene.path("other");
    let said = scene.init("other", &["host.example", "192.0.2.1"]);
    assert_eq!(names(&folder), FILES);
    for name in FILES {
        let expected = if name.ends_with("-key.pem") { 0o600 } else { 0o644 };
        assert_eq!(mode(&folder.join(name)), expected, "{name}");
    }
    for words in [
        &format!("tls-creds-x509,id=tls0,dir={},endpoint=server", folder.display())[..],
        "endpoint=client\n",
        "\n  migrate_set_parameter tls-creds tls0",
        "host.example, 192.0.2.1",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_where_one_file_is_there() {
    let scene = Scene::with_certificates();
    let again = multifd(&["tls-init", text(&scene.path("tls")), "--host", "h"]);
    again.failed_saying(&["ca-cert.pem", "not overwritten"]);
    let folder = scene.path("half");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("client-key.pem"), "mine").unwrap();
    multifd(&["tls-init", text(&folder), "--host", "h"]).failed_saying(&["client-key.pem"]);
    assert_eq!(names(&folder), ["client-key.pem"]);
    assert_eq!(fs::read_to_string(folder.join("client-key.pem")).unwrap(), "mine");
}

#[test]
fn a_host_that_is_none_and_a_time_that_is_none_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("tls");
    for options in [&[][..], &["--host", "a b"], &["--host", "h", "--days", "0"]] {
        let ended = multifd(&[&["tls-init", text(&at)], options].concat());
        assert_eq!(ended.status, Some(2), "{ended:?}");
    }
    assert!(!at.exists());
}

#[test]
fn hosts_of_one_ca_have_folders_of_their_own_and_are_told_apart() {
    let scene = Scene::with_certificates();
    let (ca, other) = (scene.path("ca"), scene.path("other-ca"));
    for ca in [&ca, &other] {
        multifd(&["tls-init", text(ca), "--ca-only"]).succeeded();
        assert_eq!(names(ca), FILES[..2]);
        assert_eq!(mode(&ca.join("ca-key.pem")), 0o600);
    }
    let host = |name: &str, ca: &Path| {
        let folder = scene.path(name);
        let host = ["--host", name, "--host", "127.0.0.1"];
        let made = multifd(&[&["tls-init", text(&folder), "--ca", text(ca)], &host[..]].concat());
        let said = made.succeeded().stdout;
        assert!(said.contains("by the CA in") && !said.contains("ca-key.pem"), "{said}");
        // The CA's key stays where it is.
        assert_eq!(names(&folder), [&FILES[..1], &FILES[2..]].concat());
        folder
    };
    let one = host("host1.example", &ca);
    let two = host("host2.example", &ca);
    let three = host("host3.example", &ca);
    let stranger = host("host1.example.stranger", &other);
    // Of another CA, though it says that it trusts this one.
    fs::copy(ca.join("ca-cert.pem"), stranger.join("ca-cert.pem")).unwrap();
    let creds = |folder: &Path| ["--tls-creds".to_owned(), text(folder).to_owned()];
    let send = |uri: &str, folder: &Path| {
        let creds = creds(folder);
        scene.send(uri, &[&creds[0], &creds[1]])
    };
    let [option, folder] = creds(&two);
    let (recv, uri) = scene.recv(&[&option, &folder, "--tls-allow", "host1.example"]);
    send(&uri, &three).failed_saying(&["allow-list"]);
    send(&uri, &stranger).failed_saying(&["does not know the CA"]);
    send(&uri, &one).succeeded();
    let log = recv.wait().succeeded().stderr;
    for words in ["CN=host3.example", "not of a CA in ca-cert.pem here"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    scene.assert_arrived();
}

#[test]
fn a_ca_that_cannot_issue_is_refused_with_what_to_do_and_nothing_is_made() {
    let scene = Scene::with_certificates();
    let ca = scene.path("ca");
    multifd(&["tls-init", text(&ca), "--ca-only"]).succeeded();
    let host = scene.path("host");
    let fails = |words: &[&str]| {
        let options = ["--ca", text(&ca), "--host", "h"];
        multifd(&[&["tls-init", text(&host)], &options[..]].concat()).failed_saying(words);
        assert!(!host.exists());
    };
    let key = ca.join("ca-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    fails(&[&format!("chmod o= {}", key.display())]);
    // The key of another CA, what is none, and none.
    fs::copy(scene.path("tls").join("ca-key.pem"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fails(&["ca-cert.pem is not the certificate of the key", "ca-key.pem"]);
    fs::write(&key, "no key").unwrap();
    fails(&["ca-key.pem is not a private key"]);
    fs::remove_file(&key).unwrap();
    fails(&["ca-key.pem", "check the path"]);
    for wrong in
        [&["--ca-only", "--host", "h"][..], &["--ca-only", "--ca", text(&ca)], &["--ca", "x"]]
    {
        let ended = multifd(&[&["tls-init", text(&host)], wrong].concat());
        assert_eq!(ended.status, Some(2), "{ended:?}");
    }
    // A server's certificate and key are no CA.
    let tls = scene.path("tls");
    for (from, to) in [("server-cert.pem", "ca-cert.pem"), ("server-key.pem", "ca-key.pem")] {
        fs::copy(tls.join(from), ca.join(to)).unwrap();
    }
    fails(&["is not a CA's that tls-init has made"]);
}

#[test]
fn an_image_arrives_over_tls_and_through_a_relay_with_tls_on_both_sides() {
    let scene = Scene::with_certificates();
    let folder = scene.path("tls");
    let creds = ["--tls-creds", text(&folder)];
    let (recv, uri) = scene.recv(&creds);
    scene.send(&uri, &creds).succeeded();
    recv.wait().succeeded();
    scene.assert_arrived();

    let (recv, uri) = scene.recv(&creds);
    let relay =
        Running::start(command(&["relay", "--listen", "tcp:127.0.0.1:0", "--to", &uri]).args([
            "--from-tls-creds",
            text(&folder),
            "--from-tls-allow",
            "CN=127.0.0.*",
            "--to-tls-creds",
            text(&folder),
            "--to-tls-hostname",
            "host.example",
        ]));
    scene.arrives_by(relay, recv, &creds);
}

/// How often a side has said that the kernel does not do its TLS.
fn fallbacks(ended: &Ended) -> usize {
    ended.stderr.matches("TLS is not done by the kernel, but by this program: ").count()
}

#[test]
fn each_side_that_asks_the_kernel_in_vain_says_so_once_and_the_image_arrives() {
    let scene = Scene::with_certificates();
    let folder = scene.path("tls");
    let creds = ["--tls-creds", text(&folder), "--tls-kernel"];
    // No kernel has TLS for sockets of this kind.
    let unix = |name: &str| format!("unix:{}", scene.path(name).display());
    let (image, at) = (scene.path("vm"), unix("recv.sock"));
    let listening = ["--listen", &at, "--to", text(&image), "--force"];
    let (recv, uri) = Running::recv(&[&listening[..], &creds].concat());
    let relay = ["relay", "--listen", &unix("relay.sock"), "--to", &uri];
    let creds_of_both = [
        "--from-tls-creds",
        text(&folder),
        "--from-tls-kernel",
        "--to-tls-creds",
        text(&folder),
        "--to-tls-hostname",
        "host.example",
        "--to-tls-kernel",
    ];
    let mut relay = Running::start(command(&relay).args(creds_of_both));
    let at = relay.listening();
    let sent = scene.send(&at, &[&creds[..], &["--tls-hostname", "host.example"]].concat());
    assert_eq!(fallbacks(&sent.succeeded()), 1);
    assert_eq!(fallbacks(&relay.wait().succeeded()), 2);
    assert_eq!(fallbacks(&recv.wait().succeeded()), 1);
    scene.assert_arrived();
}

#[test]
fn over_tcp_the_kernel_does_tls_where_it_can_and_the_image_arrives() {
    let scene = Scene::with_certificates();
    let folder = scene.path("tls");
    let creds = ["--tls-creds", text(&folder), "--tls-kernel"];
    let must = std::env::var_os("MULTIFD_KERNEL_TLS").is_some();
    for (to_recv, to_send) in
        [(&creds[..], &creds[..]), (&creds, &creds[..2]), (&creds[..2], &creds)]
    {
        let (recv, uri) = scene.recv(to_recv);
        let sent = scene.send(&uri, to_send).succeeded();
        let received = recv.wait().succeeded();
        for (ended, options) in [(sent, to_send), (received, to_recv)] {
            let most = usize::from(options == creds && !must);
            assert!(fallbacks(&ended) <= most, "{options:?}: {}", ended.stderr);
        }
        scene.assert_arrived();
    }
}

#[test]
fn a_source_that_is_refused_hears_why_and_the_next_one_arrives() {
    let scene = Scene::with_certificates();
    scene.init("other", &["127.0.0.1"]);
    let (folder, other) = (scene.path("tls"), scene.path("other"));
    // Of another CA, which knows this one.
    fs::copy(folder.join("ca-cert.pem"), other.join("ca-cert.pem")).unwrap();
    let creds = ["--tls-creds", text(&folder)];
    let (recv, uri) = scene.recv(&creds);
    scene.send(&uri, &[]).failed_saying(&["speaks TLS", "--tls-creds"]);
    let stranger = ["--tls-creds", text(&other)];
    scene.send(&uri, &stranger).failed_saying(&["does not know the CA"]);
    let wrong = [&creds[..], &["--tls-hostname", "there"]].concat();
    scene.send(&uri, &wrong).failed_saying(&["for 127.0.0.1, host.example, not for there"]);
    scene.send(&uri, &creds).succeeded();
    let log = recv.wait().succeeded().stderr;
    for words in [
        "it does not speak TLS",
        "a migration without TLS: turn TLS on there",
        "its certificate is not of a CA in ca-cert.pem here",
        "the other side refuses this one",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    scene.assert_arrived();
}

#[test]
fn a_source_without_a_certificate_or_an_allowed_name_is_refused_unless_all_are_let_in() {
    let scene = Scene::with_certificates();
    let (folder, bare) = (scene.path("tls"), scene.path("bare"));
    fs::create_dir(&bare).unwrap();
    fs::copy(folder.join("ca-cert.pem"), bare.join("ca-cert.pem")).unwrap();
    let (creds, none) = (["--tls-creds", text(&folder)], ["--tls-creds", text(&bare)]);

    let (recv, uri) = scene.recv(&[&creds[..], &["--tls-allow", "*.example"]].concat());
    let refused = scene.send(&uri, &none);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    for words in ["the destination wants a client certificate", "(alert CertificateRequired)"] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    scene.send(&uri, &creds).succeeded();
    let log = recv.wait().succeeded().stderr;
    assert!(log.contains("it has no client certificate of a CA"), "{log}");

    let (mut recv, uri) = scene.recv(&[&creds[..], &["--tls-allow", "CN=host.example"]].concat());
    scene.send(&uri, &creds).failed_saying(&["allow-list"]);
    // Its other connections, which it closed when it heard that, may be refused before that is logged.
    let names = "none of its names (CN=127.0.0.1; 127.0.0.1; host.example)";
    let logged = (0..10).map(|_| recv.line()).find(|line| line.contains(names) || line.is_empty());
    assert!(logged.is_some_and(|line| !line.is_empty()));
    recv.signal(rustix::process::Signal::TERM);
    recv.wait();

    let (recv, uri) = scene.recv(&[&creds[..], &["--tls-no-client-cert"]].concat());
    scene.send(&uri, &none).succeeded();
    recv.wait().succeeded();
    scene.assert_arrived();
}

#[test]
fn a_source_with_tls_says_that_its_destination_has_none() {
    let scene = Scene::with_certificates();
    let folder = scene.path("tls");
    let (mut recv, uri) = scene.recv(&[]);
    let sent = scene.send(&uri, &["--tls-creds", text(&folder)]);
    sent.failed_saying(&["no TLS with the destination", "it does not speak TLS"]);
    let log = recv.line();
    recv.signal(rustix::process::Signal::TERM);
    recv.wait();
    assert!(log.contains("it is TLS") && log.contains("--tls-creds"), "{log}");
}

#[test]
fn folders_that_cannot_be_used_are_refused_before_anything_is_sent() {
    let scene = Scene::with_certificates();
    let folder = scene.path("tls");
    let nowhere = "tcp:127.0.0.1:1";
    let key = folder.join("client-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let creds = ["--tls-creds", text(&folder)];
    let mending = format!("chmod o= {}", key.display());
    scene.send(nowhere, &creds).failed_saying(&[&mending]);
    fs::remove_file(&key).unwrap();
    scene.send(nowhere, &creds).failed_saying(&["client-key.pem", "multifd tls-init"]);
    let ended = scene.send(nowhere, &["--tls-hostname", "h"]);
    assert_eq!(ended.status, Some(2), "{ended:?}");
}
