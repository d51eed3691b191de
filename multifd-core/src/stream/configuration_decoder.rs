//! Decoding CONFIGURATION.

use std::mem;

use super::configuration::{Kind, capability_count, machine_length};
use super::input::{Input, Stop, name};
use super::wire::section;
use super::{Configuration, StreamErrorKind, Subsection, SubsectionData};
use crate::PageSize;
use crate::wire::Uuid;

/// Takes in what follows the header: CONFIGURATION with its subsections, or nothing.
#[derive(Debug, Default)]
pub(super) struct ConfigurationDecoder {
    configuration: Configuration,
    state: State,
}

/// What comes next.
#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    MachineLength,
    Machine {
        length: u8,
    },
    /// Another subsection, or whatever comes after the last one.
    Subsection,
    Name,
    Version(Kind),
    Data {
        version: u32,
        kind: Kind,
    },
    /// The names of `left` more capabilities.
    Capabilities {
        version: u32,
        left: u32,
        names: Vec<String>,
    },
}

impl ConfigurationDecoder {
    /// Takes in as much as there is. Gives the configuration once the byte behind it has come, which
    /// is left where it is.
    pub(super) fn next(
        &mut self,
        input: &mut Input,
        bytes: &mut &[u8],
    ) -> Result<Configuration, Stop> {
        const WHAT: &str = "a subsection of CONFIGURATION";
        loop {
            self.state = match &mut self.state {
                State::Start => {
                    if input.peek(bytes, "CONFIGURATION")? != section::CONFIGURATION {
                        return Ok(Configuration::default());
                    }
                    input.skip(bytes, 1);
                    State::MachineLength
                }
                State::MachineLength => {
                    let length = input.u32(bytes, "the machine type")?;
                    State::Machine { length: machine_length(length.into())? }
                }
                State::Machine { length } => {
                    let what = "the machine type";
                    let machine = name(input.exact(bytes, (*length).into(), what)?, what)?;
                    self.configuration.machine = Some(machine.to_owned());
                    State::Subsection
                }
                State::Subsection => {
                    if input.peek(bytes, "a section")? != section::SUBSECTION {
                        return Ok(mem::take(&mut self.configuration));
                    }
                    input.begin_item();
                    input.skip(bytes, 1);
                    State::Name
                }
                State::Name => State::Version(self.configuration.expect(input.name(bytes, WHAT)?)?),
                State::Version(kind) => {
                    State::Data { version: input.u32(bytes, WHAT)?, kind: *kind }
                }
                &mut State::Data { version, kind } => match kind {
                    Kind::PageSize => {
                        let bits = input.u32(bytes, WHAT)?;
                        let size = PageSize::from_bits(bits);
                        let size = size.ok_or(StreamErrorKind::PageBits(bits))?;
                        self.configuration.push(version, SubsectionData::PageSize(size))
                    }
                    Kind::Uuid => {
                        let uuid = Uuid(input.array(bytes, WHAT)?);
                        self.configuration.push(version, SubsectionData::Uuid(uuid))
                    }
                    Kind::Capabilities => {
                        let left = capability_count(input.u32(bytes, CAPABILITIES)?)?;
                        State::Capabilities { version, left, names: Vec::new() }
                    }
                },
                State::Capabilities { version, left: 0, names } => {
                    let data = SubsectionData::Capabilities(mem::take(names));
                    self.configuration.push(*version, data)
                }
                State::Capabilities { left, names, .. } => {
                    names.push(input.name(bytes, CAPABILITIES)?.to_owned());
                    *left -= 1;
                    continue;
                }
            };
        }
    }
}

const CAPABILITIES: &str = "the list of capabilities";

impl Configuration {
    /// Which subsection `name` is; an error unless it may come next.
    fn expect(&self, name: &str) -> Result<Kind, StreamErrorKind> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| StreamErrorKind::UnknownSubsection(name.to_owned()))?;
        if self.data().any(|data| data.kind() == kind) {
            return Err(StreamErrorKind::RepeatedSubsection(kind.name()));
        }
        Ok(kind)
    }

    fn push(&mut self, version: u32, data: SubsectionData) -> State {
        self.subsections.push(Subsection { version, data });
        State::Subsection
    }
}
