//! What the descriptor says of the codec.

use multifd_core::{Compression, Levels};

use crate::harness::{Stop, Subject, Verdict, ensure};

pub(crate) fn the_default_level_is_one_of_the_levels(subject: &Subject) -> Verdict {
    let Some(Levels { least, most, default, .. }) = subject.descriptor.levels else {
        return Err(Stop::not_applicable("the codec has no levels"));
    };
    ensure!(
        (least..=most).contains(&default),
        "the default level is {default}, the levels are {least} to {most}"
    );
    Ok(())
}

pub(crate) fn a_codec_of_qemus_bears_qemus_name(subject: &Subject) -> Verdict {
    let (name, compression) = (subject.descriptor.name, subject.compression());
    if let Compression::Private(_) = compression {
        let taken = Compression::QEMU.iter().any(|method| method.to_string() == name);
        ensure!(
            !taken,
            "the name {name} is that of a method of QEMU's, the value is {compression}"
        );
    } else {
        ensure!(name == compression.to_string(), "QEMU calls {compression} what is called {name}");
    }
    Ok(())
}
