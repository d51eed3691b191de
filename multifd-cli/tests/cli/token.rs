//! Migrations whose connections prove by a token that they are of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{Running, command, multifd, text};
use crate::scene::Scene;

impl Scene {
    fn with_tokens() -> Self {
        let scene = Self::new();
        scene.write("token", "the secret of both sides, of 32 bytes or more\n");
        scene.write("other", "another secret, of somebody else, as long\n");
        scene
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
        self.mode(name, 0o600);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn an_image_arrives_with_a_token_and_through_a_relay_with_one_on_each_side() {
    let scene = Scene::with_tokens();
    let (token, other) = (scene.path("token"), scene.path("other"));
    let (token, other) = (["--token-file", text(&token)], ["--token-file", text(&other)]);
    let (recv, uri) = scene.recv(&token);
    scene.send(&uri, &token).succeeded();
    recv.wait().succeeded();
    scene.assert_arrived();

    let (recv, uri) = scene.recv(&other);
    let relay = ["relay", "--listen", "tcp:127.0.0.1:0", "--to", &uri];
    let tokens = ["--from-token-file", token[1], "--to-token-file", other[1]];
    scene.arrives_by(Running::start(command(&relay).args(tokens)), recv, &token);
}

#[test]
fn each_combination_that_does_not_fit_ends_at_once_with_what_to_do_and_the_next_arrives() {
    let scene = Scene::with_tokens();
    let (token, other) = (scene.path("token"), scene.path("other"));
    let (token, other) = (["--token-file", text(&token)], ["--token-file", text(&other)]);
    let (recv, uri) = scene.recv(&token);
    scene.send(&uri, &[]).failed_saying(&["the destination wants a token", "--token-file"]);
    scene.send(&uri, &other).failed_saying(&["its token is another one", "--token-file"]);
    scene.send(&uri, &token).succeeded();
    let log = recv.wait().succeeded().stderr;
    for words in [
        "it is a migration without a token: give its source the same file as here (--token-file)",
        "its token is another one: give both sides the same file (--token-file;",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    scene.assert_arrived();

    let (recv, uri) = scene.recv(&[]);
    scene.send(&uri, &token).failed_saying(&["it has no token", "--token-file"]);
    scene.send(&uri, &[]).succeeded();
    let log = recv.wait().succeeded().stderr;
    assert!(log.contains("its source has a token, and this side has none"), "{log}");
    scene.assert_arrived();
}

#[test]
fn files_that_cannot_be_tokens_are_refused_before_anything_is_sent() {
    let scene = Scene::with_tokens();
    let nowhere = "tcp:127.0.0.1:1";
    let token = scene.path("token");
    let options = ["--token-file", text(&token)];
    scene.mode("token", 0o644);
    let mending = format!("chmod o= {}", token.display());
    scene.send(nowhere, &options).failed_saying(&[&mending]);
    let image = scene.path("vm");
    let listen = ["--listen", "tcp:127.0.0.1:0"];
    multifd(&[&["recv", "--to", text(&image)], &listen[..], &options].concat())
        .failed_saying(&[&mending]);
    for side in ["--from-token-file", "--to-token-file"] {
        let relay = ["relay", "--to", nowhere, side, text(&token)];
        multifd(&[&relay[..], &listen].concat()).failed_saying(&[&mending]);
    }
    scene.write("token", "too short\n");
    scene.send(nowhere, &options).failed_saying(&["has 9 bytes", "/dev/urandom"]);
    fs::remove_file(&token).unwrap();
    scene.send(nowhere, &options).failed_saying(&["there is no token in", "/dev/urandom"]);
}

#[test]
fn listening_on_the_network_without_tls_is_warned_of_with_what_a_token_does_not_do() {
    let scene = Scene::with_tokens();
    let (token, image) = (scene.path("token"), scene.path("vm"));
    let recv = ["recv", "--to", text(&image), "--token-file", text(&token)];
    let relay = ["relay", "--to", "tcp:127.0.0.1:1", "--from-token-file", text(&token)];
    for args in [&recv, &relay] {
        let mut running = Running::start(command(args).args(["--listen", "tcp::0"]));
        running.listening();
        let line = running.line();
        running.signal(rustix::process::Signal::TERM);
        running.wait();
        let words = "not encrypted, and the token says who connects, not what they send then";
        assert!(line.contains(words) && line.contains("tls-creds"), "{line}");
    }
}
