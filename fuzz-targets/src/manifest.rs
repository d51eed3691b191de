//! `vm.json`: no panic, and what is taken reads as it is written.

// The program is no library.
#[path = "../../multifd-cli/src/image/manifest.rs"]
#[allow(dead_code, reason = "the program uses the rest")]
mod file;

use file::{Manifest, Part};

/// Runs the target on one input.
pub fn manifest(input: &[u8]) {
    let Ok(manifest) = Manifest::parse(input) else { return };
    let written = serde_json::to_vec(&manifest).expect("it can be written");
    assert_eq!(Manifest::parse(&written), Ok(manifest.clone()));
    assert!(manifest.files().count() >= manifest.blocks.len());
    _ = (manifest.uuid(), manifest.page_size());
    let Ok(configuration) = manifest.configuration() else { return };
    let parts = configuration.subsections.iter().map(Part::of).collect::<Result<Vec<_>, _>>();
    let again = parts.expect("what has been read can be written");
    for (part, again) in manifest.stream.configuration.iter().zip(&again) {
        assert_eq!(part.version, again.version);
    }
    assert_eq!(manifest.stream.configuration.len(), again.len());
}
