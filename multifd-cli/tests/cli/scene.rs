//! A guest's memory, and migrations of it by the program.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::common::{Ended, Running, memory, multifd, text};

/// A folder with a guest's memory, and room for what else a test needs.
pub(crate) struct Scene {
    folder: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(scene.path("guest.ram"), memory(300)).unwrap();
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn recv(&self, options: &[&str]) -> (Running, String) {
        let image = self.path("vm");
        let at = ["--listen", "tcp:127.0.0.1:0", "--to", text(&image), "--force"];
        Running::recv(&[&at[..], options].concat())
    }

    pub(crate) fn send(&self, to: &str, options: &[&str]) -> Ended {
        let ram = self.path("guest.ram");
        multifd(&[&["send", "--ram", text(&ram), "--to", to], options].concat())
    }

    pub(crate) fn assert_arrived(&self) {
        let arrived = fs::read(self.path("vm").join("pc.ram")).unwrap();
        assert!(arrived == fs::read(self.path("guest.ram")).unwrap());
    }

    /// Sends the guest to a relay, behind which it arrives.
    pub(crate) fn arrives_by(&self, mut relay: Running, recv: Running, options: &[&str]) {
        let at = relay.listening();
        self.send(&at, options).succeeded();
        relay.wait().succeeded();
        recv.wait().succeeded();
        self.assert_arrived();
    }
}
