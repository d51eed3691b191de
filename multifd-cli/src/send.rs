//! `multifd send`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use multifd::core::PageSize;
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::wire::BlockName;
use multifd::{PageSet, Source, SourceBuilder};
use serde::Serialize;

use crate::args;
use crate::cancel::Interrupt;
use crate::codecs;
use crate::failure::Failure;
use crate::image::Image;
use crate::mapping::{self, Access};
use crate::output::{self, Output};
use crate::size::Bytes;
use crate::summary::Summary;

#[derive(Serialize)]
struct Sent<'a> {
    to: String,
    codec: &'a str,
    channels: u8,
    #[serde(flatten)]
    summary: Summary,
}

pub(crate) fn run(args: &args::Send, output: &Output) -> Result<(), Failure> {
    let registry = args.qpl.registry()?;
    let codec = codecs::find(&registry, &args.agreed.compression, args.level)?;
    let (image, ram) = match (&args.from, &args.ram) {
        (Some(folder), _) => {
            let image = Image::open(folder)?;
            let ram = Arc::clone(&image.ram);
            (Some(image), ram)
        }
        (None, Some(file)) => (None, Arc::new(bare_ram(file)?)),
        (None, None) => return Err(Failure::usage("neither --from nor --ram is given")),
    };
    if let Some(image) = image.as_ref().filter(|_| args.verify) {
        image.verify(&Interrupt::default(), &output.bar("checking", ram.bytes()))?;
    }
    let mut setup = Source::builder(&registry, Arc::clone(&ram))
        .compression(codec.compression())
        .level(args.level)
        .channels(args.agreed.channels)
        .zero_pages(args.zero_page_detection.into())
        .return_path(!args.no_return_path);
    if let Some(image) = &image {
        setup = as_it_came(setup, image);
    }
    if let Some(uuid) = args.uuid {
        setup = setup.uuid(uuid);
    }
    let state = image.as_ref().and_then(|image| image.device_state.as_deref());
    let summary = send(setup, args, &ram, state, output)?;
    if args.json {
        let to = args.to.to_string();
        let sent = Sent { to, codec: codec.name, channels: args.agreed.channels, summary };
        output::print_json(&sent)
    } else {
        output.say(&format!("sent to {}: {}", args.to, summary.sentence()))
    }
}

/// A RAM file as the only block of a VM.
fn bare_ram(path: &Path) -> Result<Ram, Failure> {
    let (file, bytes) = mapping::open(path)?;
    mapping::check_pages(path, bytes)?;
    let memory = mapping::of_file(path, file, bytes, Access::Read)?;
    Ok(Ram::new(PageSize::Kib4, [RamBlock::new(BlockName::new("pc.ram")?, memory)])?)
}

/// Has the main channel say what it said when the VM came.
fn as_it_came<'a>(setup: SourceBuilder<'a>, image: &Image) -> SourceBuilder<'a> {
    setup
        .uuid(image.uuid)
        .configuration(image.configuration.clone())
        .section_id(image.section_id)
        .sync_form(image.sync_form)
        .footers(image.footers)
}

fn send(
    setup: SourceBuilder<'_>,
    args: &args::Send,
    ram: &Ram,
    device_state: Option<&[u8]>,
    output: &Output,
) -> Result<Summary, Failure> {
    let started = Instant::now();
    let mut source = setup.connect(&args.to)?;
    tracing::debug!(to = %args.to, ram = %Bytes(ram.bytes()), "connected");
    // Only now: until a connection is there, a signal may end the program as it is.
    let interrupt = Interrupt::listen()?;
    let _watch = interrupt.watch(source.cancel_token());
    let page_bytes = ram.page_size().bytes();
    let bar = output.bar("sending", ram.bytes());
    let _follow = bar.follow(source.progress(), page_bytes);
    let sent = source
        .round(&PageSet::all(ram))
        .and_then(|()| source.finish(&PageSet::none(ram), device_state));
    let (stats, codec_stats) = sent.map_err(|error| interrupt.or(error))?;
    Ok(Summary::new(&stats, codec_stats, page_bytes, started.elapsed()))
}
