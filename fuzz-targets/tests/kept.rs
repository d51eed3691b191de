//! What was found once is not found again.

use std::fs;
use std::path::Path;

use multifd_fuzz_targets::TARGETS;

#[test]
fn every_input_that_is_kept_is_taken_as_it_must_be() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("kept");
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(kept.join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "no input is kept of {name}");
    }
}
