//! Recordings of real QEMUs.

use multifd_core::Compression;

/// A migration that a real QEMU sent, as the bytes of each connection. The guest was paused, so
/// that each page is sent once. `recordings/README.md` says how they were made.
#[non_exhaustive]
#[derive(Clone, Copy)]
pub struct Recording {
    /// The name of its folder.
    pub name: &'static str,
    /// The version of the QEMU that sent it.
    pub qemu: &'static str,
    /// The codec of its channels.
    pub compression: Compression,
    /// What was sent on the main channel.
    pub main: &'static [u8],
    /// What was sent on each multifd channel, the initial packet first. The order is that in which
    /// the channels connected.
    pub channels: &'static [&'static [u8]],
    /// The RAM block whose content is known.
    pub ram_block: &'static str,
    /// Its size in bytes.
    pub ram_bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub ram_sha256: &'static str,
}

/// Every recording, the oldest QEMU first. The repository has them all; the package on crates.io
/// has `none` and `zstd`, so as to stay small.
pub fn recordings() -> &'static [Recording] {
    RECORDINGS
}

macro_rules! recording {
    ($name:literal, $qemu:literal, $compression:ident, $channels:tt, $sha256:literal) => {
        Recording {
            name: $name,
            qemu: $qemu,
            compression: Compression::$compression,
            main: include_bytes!(concat!("../recordings/", $name, "/main.bin")),
            channels: recording!(@channels $name $channels),
            ram_block: "pc.ram",
            ram_bytes: 4 << 20,
            ram_sha256: $sha256,
        }
    };
    (@channels $name:literal [$($channel:literal),*]) => {
        &[$(include_bytes!(concat!("../recordings/", $name, "/channel", $channel, ".bin"))),*]
    };
}

static RECORDINGS: &[Recording] = &[
    #[cfg(recording = "qemu-7.2-zlib")]
    recording!(
        "qemu-7.2-zlib",
        "7.2.22",
        Zlib,
        [0, 1],
        "d20790b26de54093b6850be3b51e5de09413088026b7098864031a27192d93be"
    ),
    #[cfg(recording = "qemu-7.2-zstd")]
    recording!(
        "qemu-7.2-zstd",
        "7.2.22",
        Zstd,
        [0, 1],
        "964b5de1093db7c1abb90a6fbd3647ae51f413dff11edc9ecdcb06136689dbc4"
    ),
    #[cfg(recording = "qemu-10.0-machine-8.2")]
    recording!(
        "qemu-10.0-machine-8.2",
        "10.0.2",
        None,
        [0, 1],
        "229dbe50b05a5df403bc01b5cdcbd14a43f4667b8dc27edf479e08532ab28d5f"
    ),
    #[cfg(recording = "none")]
    recording!(
        "none",
        "10.2.2",
        None,
        [0, 1],
        "7fb81497eea8dd35efea7589006ba6f8b5cb352d215334d0ac6200449645a2d0"
    ),
    #[cfg(recording = "zlib")]
    recording!(
        "zlib",
        "10.2.2",
        Zlib,
        [0, 1],
        "facd45fc7f554b71987b5c0e872145509beb76f2ac9d1496432a5fd3fb857cf5"
    ),
    #[cfg(recording = "qpl")]
    recording!(
        "qpl",
        "10.2.2",
        Qpl,
        [0, 1],
        "ddb85bae20fe7d91882aa0df516164fd525d5bf7404817b151225cb55af759fb"
    ),
    #[cfg(recording = "qatzip")]
    recording!(
        "qatzip",
        "10.2.2",
        Qatzip,
        [0, 1],
        "e07133241de578c383b077b1526b72acb450bcc5e42f31127dcd4c1a0c038c42"
    ),
    #[cfg(recording = "zstd")]
    recording!(
        "zstd",
        "10.2.2",
        Zstd,
        [0, 1, 2],
        "b9c57cecf037f4820159b60a17e47643fb5489b8c89ead4ec7f35b263a405784"
    ),
    #[cfg(recording = "zstd-zero-legacy")]
    recording!(
        "zstd-zero-legacy",
        "10.2.2",
        Zstd,
        [0, 1],
        "9ef06fdd0648f2b673c452da502bbf2ed7f433cca27c0f8859b718734198906c"
    ),
    #[cfg(recording = "qemu-11.1-dirty-bitmaps")]
    recording!(
        "qemu-11.1-dirty-bitmaps",
        "11.1.2",
        Zstd,
        [0, 1],
        "6b1b1dba257d5726704d47329ae47186da0fab739e150abdee36cf5c133e02af"
    ),
];

impl Recording {
    /// The VM's RAM blocks with their sizes in bytes, in the order in which they are migrated: the
    /// list at the start of the main channel.
    pub fn blocks(&self) -> Vec<(String, u64)> {
        self.block_list().expect("every recording has been looked at by a test")
    }

    fn block_list(&self) -> Option<Vec<(String, u64)>> {
        /// The section's name, its instance and its version; the list follows.
        const SECTION: &[u8] = b"\x03ram\0\0\0\0\0\0\0\x04";
        /// Behind the list's total size, in the bits that a multiple of the page size leaves.
        const MEM_SIZE: u64 = 0x04;

        let at = self.main.windows(SECTION.len()).position(|bytes| bytes == SECTION)?;
        let mut list = &self.main[at + SECTION.len()..];
        let mut left = take_u64(&mut list)?.checked_sub(MEM_SIZE)?;
        let mut blocks = Vec::new();
        while left > 0 {
            let (&name_bytes, rest) = list.split_first()?;
            let (name, rest) = rest.split_at_checked(name_bytes.into())?;
            list = rest;
            let bytes = take_u64(&mut list)?;
            left = left.checked_sub(bytes)?;
            blocks.push((String::from_utf8(name.to_vec()).ok()?, bytes));
        }
        Some(blocks)
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recording({})", self.name)
    }
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (word, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings")
    }

    #[test]
    fn every_recording_agrees_with_its_description() {
        for recording in recordings() {
            let text = fs::read(folder().join(recording.name).join("capture.json")).unwrap();
            let described: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let qemu = described["qemu"].as_str().unwrap();
            assert!(qemu.starts_with(&format!("QEMU emulator version {}", recording.qemu)));
            assert_eq!(described["compression"], recording.compression.to_string());
            assert_eq!(described["channels"], recording.channels.len());
            assert_eq!(described["ram_block"], recording.ram_block);
            assert_eq!(described["ram_bytes"], recording.ram_bytes);
            assert_eq!(described["ram_sha256"], recording.ram_sha256);
            assert_eq!(described["live"], false, "each page is sent once");
        }
    }

    #[test]
    fn every_folder_is_a_recording() {
        let folders = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
        let folders = folders.filter(|path| path.is_dir()).count();
        assert_eq!(folders, recordings().len());
    }

    #[test]
    fn the_list_of_blocks_has_the_ram() {
        for recording in recordings() {
            let blocks = recording.blocks();
            let ram = (recording.ram_block.to_owned(), recording.ram_bytes);
            assert!(blocks.contains(&ram), "{}: {blocks:?}", recording.name);
            assert!(blocks.len() > 3, "{}: the ROMs are missing", recording.name);
        }
    }
}
