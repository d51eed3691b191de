//! Inspecting a VM that is stored.

use multifd::inspect::{DeviceState, FindingKind, Severity};
use serde::Serialize;

use super::Args;
use super::json::{self, Devices};
use crate::cancel::Interrupt;
use crate::escape::one_line;
use crate::failure::Failure;
use crate::image::BlockSurvey;
use crate::mapping;
use crate::output::{self, Output};
use crate::place::{Place, Reading, Saved};
use crate::size::Bytes;
use crate::table::Table;

/// What is known of a VM.
struct Survey {
    saved: Saved,
    blocks: Vec<BlockSurvey>,
    devices: Option<DeviceState>,
    /// What is unusual or wrong with the device state, with its byte in the file.
    found: Vec<(u64, FindingKind)>,
}

/// Inspects the VM at `place`; whether nothing is wrong with it.
pub(super) fn run(place: &Place, args: &Args, output: &Output) -> Result<bool, Failure> {
    let interrupt = Interrupt::listen()?;
    place.expect_stored()?;
    let device_state_limit = &args.device_state_limit;
    let reading = Reading { device_state_limit, allow_missing_pages: true, patience: None };
    let saved = Saved::open(place, reading, output)?;
    let bar = output.bar("inspecting", saved.ram().bytes());
    let blocks = saved.survey(&interrupt, &bar)?;
    drop(bar);
    mapping::check_files()?;
    let vm = saved.vm();
    let state = Some(&vm.device_state[..]).filter(|state| !state.is_empty());
    let parsed =
        state.map(|bytes| DeviceState::parse(bytes, 0, saved.ram().page_size(), vm.footers));
    let (devices, found) = parsed.map_or((None, Vec::new()), |(state, found)| (Some(state), found));
    let survey = Survey { saved, blocks, devices, found };
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
        errors.count() == 0
            && self.blocks.iter().all(|block| block.file.as_ref().is_none_or(|file| file.is_intact))
    }

    fn text(&self) -> String {
        let machine = self.saved.vm().configuration.machine.as_deref();
        let machine = machine.unwrap_or("RAM without a machine");
        let (page_size, uuid) = (self.saved.ram().page_size(), self.saved.vm().uuid);
        let mut text = format!("{machine}: pages of {page_size}, VM {uuid}");
        text = format!("{}\n\n{}", one_line(&text), self.block_table());
        if let Some(state) = &self.devices {
            text += &format!("\n{}", device_table(state));
        }
        text.push('\n');
        for (offset, kind) in &self.found {
            let line = format!("{}: device state, byte {offset}: {kind}", kind.severity());
            text += &(one_line(&line) + "\n");
        }
        let verdict = if self.is_good() { "nothing is wrong" } else { "it is damaged" };
        text + verdict + "\n"
    }

    fn block_table(&self) -> Table {
        let heads = ["block", "size", "pages", "zero", "zero %", "<SHA-256", "<file"];
        let has_files = matches!(self.saved, Saved::Image(_));
        let mut table = Table::new(if has_files { &heads } else { &heads[..5] });
        for block in &self.blocks {
            let share = block.zero_pages as f64 * 100.0 / block.pages as f64;
            let mut row = vec![
                one_line(&block.name),
                Bytes(block.bytes).to_string(),
                block.pages.to_string(),
                block.zero_pages.to_string(),
                format!("{share:.0}"),
            ];
            if let Some(file) = &block.file {
                row.push(if file.is_intact { "right" } else { "WRONG" }.to_owned());
                row.push(one_line(&file.name));
            }
            table.row(row);
        }
        table
    }

    fn json(&self) -> Json<'_> {
        Json {
            kind: if matches!(self.saved, Saved::Image(_)) { "image" } else { "file" },
            machine: self.saved.vm().configuration.machine.as_deref(),
            uuid: self.saved.vm().uuid.to_string(),
            page_size: self.saved.ram().page_size().bytes(),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    bytes: u64,
    pages: u64,
    zero_pages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_intact: Option<bool>,
}

impl<'a> Block<'a> {
    fn new(block: &'a BlockSurvey) -> Self {
        Self {
            name: &block.name,
            file: block.file.as_ref().map(|file| &*file.name),
            bytes: block.bytes,
            pages: block.pages,
            zero_pages: block.zero_pages,
            is_intact: block.file.as_ref().map(|file| file.is_intact),
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
