//! A QEMU that can receive an image.

use multifd::Uri;
use multifd::stream::PostcopyAdvise;
use serde::Serialize;
use serde_json::{Value, json};

use crate::options::codec::Agreed;

/// A RAM block.
#[derive(Debug, Serialize)]
pub(super) struct ShownBlock {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// How to start a QEMU for an image, and how to set it up.
#[derive(Debug, Serialize)]
pub(super) struct Destination {
    program: &'static str,
    arguments: Vec<String>,
    /// The QMP commands, in order.
    qmp: [Value; 3],
}

impl Destination {
    pub(super) fn new(
        machine: &str,
        blocks: &[ShownBlock],
        uuid: Option<&str>,
        advise: Option<PostcopyAdvise>,
        agreed: &Agreed,
        listen: &Uri,
    ) -> Self {
        let mut arguments = ram_arguments(machine, blocks);
        if let Some(uuid) = uuid {
            arguments.extend(["-uuid".to_owned(), uuid.to_owned()]);
        }
        arguments.extend(["-incoming", "defer"].map(str::to_owned));
        let capabilities = ["multifd"].into_iter().chain(advise.map(capability));
        let capabilities = capabilities.map(|name| json!({ "capability": name, "state": true }));
        let capabilities = json!({ "capabilities": capabilities.collect::<Vec<_>>() });
        let parameters = json!({
            "multifd-channels": agreed.channels,
            "multifd-compression": agreed.compression,
        });
        let qmp = [
            json!({ "execute": "migrate-set-capabilities", "arguments": capabilities }),
            json!({ "execute": "migrate-set-parameters", "arguments": parameters }),
            json!({ "execute": "migrate-incoming", "arguments": { "uri": listen.to_string() } }),
        ];
        Self { program: program(machine), arguments, qmp }
    }

    pub(super) fn command_line(&self) -> String {
        let words = [self.program.to_owned()].into_iter().chain(self.arguments.iter().cloned());
        command_line(&words.collect::<Vec<_>>())
    }

    /// The commands as the human monitor takes them.
    pub(super) fn monitor_commands(&self) -> Vec<String> {
        let [capabilities, parameters, incoming] = &self.qmp;
        let capabilities =
            capabilities["arguments"]["capabilities"].as_array().into_iter().flatten();
        let capabilities = capabilities.filter_map(|one| one["capability"].as_str());
        let parameter = |name: &str| {
            let value = &parameters["arguments"][name];
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("migrate_set_parameter {name} {value}")
        };
        let uri = incoming["arguments"]["uri"].as_str().unwrap_or_default();
        let capabilities = capabilities.map(|name| format!("migrate_set_capability {name} on"));
        let parameters = ["multifd-channels", "multifd-compression"].map(parameter);
        let incoming = format!("migrate_incoming {uri}");
        capabilities.chain(parameters).chain([incoming]).collect()
    }
}

/// The capability that has a QEMU expect what was said of postcopy.
fn capability(advise: PostcopyAdvise) -> &'static str {
    match advise {
        PostcopyAdvise::DirtyBitmaps => "dirty-bitmaps",
        _ => "postcopy-ram",
    }
}

/// The machine with its memory. A machine type calls its own memory `pc.ram`, `mach-virt.ram` and
/// the like; memory of another name is a backend from the source's command line.
fn ram_arguments(machine: &str, blocks: &[ShownBlock]) -> Vec<String> {
    let machine = escaped(machine);
    let own = blocks.iter().find(|block| block.name.ends_with(".ram"));
    let mut arguments = vec!["-machine".to_owned(), machine];
    if let Some(ram) = own.or_else(|| blocks.first()) {
        let size = qemu_size(ram.bytes);
        if own.is_none() {
            let id = escaped(&ram.name);
            arguments[1] += &format!(",memory-backend={id}");
            let backend = format!("memory-backend-ram,id={id},size={size}");
            arguments.extend(["-object".to_owned(), backend]);
        }
        arguments.extend(["-m".to_owned(), size]);
    }
    arguments
}

/// The value with its commas doubled, so that they do not end it.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

fn qemu_size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes % MIB == 0 { format!("{}M", bytes / MIB) } else { format!("{}K", bytes >> 10) }
}

fn program(machine: &str) -> &'static str {
    let programs = [
        ("pc", "qemu-system-x86_64"),
        ("virt", "qemu-system-aarch64"),
        ("pseries", "qemu-system-ppc64"),
        ("s390", "qemu-system-s390x"),
    ];
    let known = programs.iter().find(|(start, _)| machine.starts_with(start));
    known.map_or("qemu-system-x86_64", |(_, program)| program)
}

/// Whether the machine type is older than QEMU 9.0. One without a version may be.
pub(super) fn older_than_9(machine: &str) -> bool {
    let version = machine.rsplit('-').next().and_then(|version| version.split_once('.'));
    version.and_then(|(major, _)| major.parse::<u32>().ok()).is_none_or(|major| major < 9)
}

/// A line for a shell.
pub(super) fn command_line(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(machine: &str, name: &str, bytes: u64) -> String {
        let rom = ShownBlock { name: "pc.bios".to_owned(), bytes: 65536 };
        command_line(&ram_arguments(machine, &[ShownBlock { name: name.to_owned(), bytes }, rom]))
    }

    #[test]
    fn memory_of_the_machine_type_is_given_by_its_size_alone() {
        let found = arguments("pc-i440fx-10.0", "pc.ram", 16 << 20);
        assert_eq!(found, "-machine pc-i440fx-10.0 -m 16M");
    }

    #[test]
    fn memory_of_another_name_is_a_backend_of_that_name() {
        let found = arguments("pc-q35-10.0", "ram0", (16 << 20) + 4096);
        let backend = "-object memory-backend-ram,id=ram0,size=16388K -m 16388K";
        assert_eq!(found, format!("-machine pc-q35-10.0,memory-backend=ram0 {backend}"));
    }

    #[test]
    fn a_name_from_the_source_ends_neither_its_option_nor_its_word() {
        let found = arguments("pc,usb=on; rm 'x'", "pc.ram", 1 << 20);
        assert_eq!(found, r"-machine 'pc,,usb=on; rm '\''x'\''' -m 1M");
    }

    #[test]
    fn machine_types_from_9_0_on_are_told_from_older_ones() {
        for (machine, older) in [
            ("pc-i440fx-8.2", true),
            ("pc-q35-9.0", false),
            ("virt-10.0", false),
            ("microvm", true),
        ] {
            assert_eq!(older_than_9(machine), older, "{machine}");
        }
    }
}
