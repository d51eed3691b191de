//! Inspecting a VM image.

use multifd::inspect::{DeviceState, FindingKind, Severity};
use serde::Serialize;

use super::Args;
use super::json::{self, Devices};
use crate::cancel::Interrupt;
use crate::escape::one_line;
use crate::failure::Failure;
use crate::image::{BlockSurvey, Image};
use crate::mapping;
use crate::output::{self, Output};
use crate::size::Bytes;
use crate::table::Table;

/// What is known of an image.
struct Survey {
    image: Image,
    blocks: Vec<BlockSurvey>,
    devices: Option<DeviceState>,
    /// What is unusual or wrong with the device state, with its byte in the file.
    found: Vec<(u64, FindingKind)>,
}

/// Inspects the image; whether nothing is wrong with it.
pub(super) fn run(args: &Args, output: &Output) -> Result<bool, Failure> {
    let interrupt = Interrupt::listen()?;
    let image = Image::open(&args.folder, &args.device_state_limit)?;
    let bar = output.bar("inspecting", image.ram.bytes());
    let blocks = image.survey(&interrupt, &bar)?;
    drop(bar);
    mapping::check_files()?;
    let parsed = image
        .device_state
        .as_deref()
        .map(|bytes| DeviceState::parse(bytes, 0, image.ram.page_size(), image.footers));
    let (devices, found) = parsed.map_or((None, Vec::new()), |(state, found)| (Some(state), found));
    let survey = Survey { image, blocks, devices, found };
    if args.json {
        output::print_json(&survey.json())?;
    } else if args.json_lines {
        output::print(&(json::line(&survey.json()) + "\n"))?;
    } else {
        output::print(&survey.text())?;
    }
    Ok(survey.is_good())
}

impl Survey {
    fn is_good(&self) -> bool {
        let errors = self.found.iter().filter(|(_, kind)| is_error(kind));
        errors.count() == 0 && self.blocks.iter().all(|block| block.is_intact)
    }

    fn text(&self) -> String {
        let machine = self.image.configuration.machine.as_deref();
        let machine = machine.unwrap_or("RAM without a machine");
        let page_size = self.image.ram.page_size();
        let mut text = format!("{machine}: pages of {page_size}, VM {}", self.image.uuid);
        text = format!("{}\n\n{}", one_line(&text), self.block_table());
        if let Some(state) = &self.devices {
            text += &format!("\n{}", device_table(state));
        }
        text.push('\n');
        for (offset, kind) in &self.found {
            let line = format!("{}: device state, byte {offset}: {kind}", kind.severity());
            text += &(one_line(&line) + "\n");
        }
        let verdict = if self.is_good() { "nothing is wrong" } else { "the image is damaged" };
        text + verdict + "\n"
    }

    fn block_table(&self) -> Table {
        let mut table =
            Table::new(&["block", "size", "pages", "zero", "zero %", "<SHA-256", "<file"]);
        for block in &self.blocks {
            let share = block.zero_pages as f64 * 100.0 / block.pages as f64;
            table.row([
                one_line(&block.name),
                Bytes(block.bytes).to_string(),
                block.pages.to_string(),
                block.zero_pages.to_string(),
                format!("{share:.0}"),
                if block.is_intact { "right" } else { "WRONG" }.to_owned(),
                one_line(&block.file),
            ]);
        }
        table
    }

    fn json(&self) -> Json<'_> {
        Json {
            kind: "image",
            machine: self.image.configuration.machine.as_deref(),
            uuid: self.image.uuid.to_string(),
            page_size: self.image.ram.page_size().bytes(),
            blocks: self.blocks.iter().map(Block::new).collect(),
            device_state: self.devices.as_ref().map(Devices::new),
            findings: self.found.iter().map(|(offset, kind)| Found::new(*offset, kind)).collect(),
            is_good: self.is_good(),
        }
    }
}

fn device_table(state: &DeviceState) -> Table {
    let mut table = Table::new(&["device", "instance", "version", "byte", "bytes"]);
    for section in &state.sections {
        table.row([
            one_line(&section.name),
            section.instance_id.to_string(),
            section.version.to_string(),
            section.offset.to_string(),
            section.bytes.to_string(),
        ]);
    }
    table
}

fn is_error(kind: &FindingKind) -> bool {
    kind.severity() == Severity::Error
}

#[derive(Serialize)]
struct Json<'a> {
    kind: &'static str,
    machine: Option<&'a str>,
    uuid: String,
    page_size: usize,
    blocks: Vec<Block<'a>>,
    device_state: Option<Devices<'a>>,
    findings: Vec<Found>,
    is_good: bool,
}

#[derive(Serialize)]
struct Block<'a> {
    name: &'a str,
    file: &'a str,
    bytes: u64,
    pages: u64,
    zero_pages: u64,
    is_intact: bool,
}

impl<'a> Block<'a> {
    fn new(block: &'a BlockSurvey) -> Self {
        Self {
            name: &block.name,
            file: &block.file,
            bytes: block.bytes,
            pages: block.pages,
            zero_pages: block.zero_pages,
            is_intact: block.is_intact,
        }
    }
}

/// Something in the device state.
#[derive(Serialize)]
struct Found {
    severity: String,
    code: &'static str,
    offset: u64,
    text: String,
}

impl Found {
    fn new(offset: u64, kind: &FindingKind) -> Self {
        let severity = kind.severity().to_string();
        Self { severity, code: kind.code(), offset, text: kind.to_string() }
    }
}
