//! Which codecs there are.

use std::fmt;

use crate::compression::Compression;
use crate::error::UsageError;
use crate::method::{ChannelConfig, MultiFdMethods};
use crate::page_size::PageSize;

/// The levels of a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The lowest, the fastest.
    pub least: i32,
    /// The highest, the smallest output.
    pub most: i32,
    /// The level where none is asked for.
    pub default: i32,
}

/// Whether a codec can work on this machine, in words a person can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It can, by this library or device, with its version.
    Available(String),
    /// It cannot, for this reason.
    Unavailable(String),
}

/// All that the framework knows about a codec. A backend exports one, and submits it:
///
/// ```standalone_crate
/// # use multifd_core::{MethodDescriptor, none};
/// # const DESCRIPTOR: MethodDescriptor = none::DESCRIPTOR;
/// multifd_core::inventory::submit! { DESCRIPTOR }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MethodDescriptor {
    /// The name by which a user picks the codec: QEMU's name where QEMU has it.
    pub name: &'static str,
    /// What it is, in a few words.
    pub summary: &'static str,
    /// Its levels, if it has any.
    pub levels: Option<Levels>,
    /// Looks whether it can work here.
    pub probe: fn() -> Availability,
    /// Its method table.
    pub methods: &'static dyn MultiFdMethods,
}

inventory::collect!(MethodDescriptor);

impl MethodDescriptor {
    /// The value of the compression field that the codec's packets carry.
    pub fn compression(&self) -> Compression {
        self.methods.compression()
    }

    /// Checks a level, or picks the default one.
    ///
    /// # Errors
    /// A level that the codec does not have.
    pub fn level(&self, asked: Option<i32>) -> Result<i32, UsageError> {
        let method = self.compression();
        match (self.levels, asked) {
            (None, None) => Ok(0),
            (None, Some(level)) => Err(UsageError::NoLevels { method, level }),
            (Some(levels), None) => Ok(levels.default),
            (Some(Levels { least, most, .. }), Some(level)) => {
                if (least..=most).contains(&level) {
                    Ok(level)
                } else {
                    Err(UsageError::Level { method, level, least, most })
                }
            }
        }
    }

    /// The set-up of one channel of this codec, with the level checked.
    ///
    /// # Errors
    /// A level that the codec does not have.
    pub fn config(
        &self,
        channel: u8,
        page_size: PageSize,
        level: Option<i32>,
    ) -> Result<ChannelConfig, UsageError> {
        Ok(ChannelConfig::new(channel, page_size, self.level(level)?))
    }

    /// Fails, with the reason, where the codec cannot work here.
    ///
    /// # Errors
    /// The codec is not available.
    pub fn require(&self) -> Result<(), UsageError> {
        match (self.probe)() {
            Availability::Available(_) => Ok(()),
            Availability::Unavailable(reason) => {
                Err(UsageError::NotAvailable { name: self.name, reason })
            }
        }
    }
}

/// A set of codecs in which every name and every value is there once.
#[derive(Clone, Debug)]
pub struct Registry {
    methods: Vec<MethodDescriptor>,
}

impl Registry {
    /// The codecs of all crates that are linked into the program. A crate that nothing mentions
    /// is not linked: `use multifd_zstd as _;` mentions it.
    ///
    /// # Errors
    /// Two codecs with one name or one value.
    pub fn collected() -> Result<Self, UsageError> {
        Self::with(inventory::iter::<MethodDescriptor>.into_iter().copied())
    }

    /// The codecs given, and no others.
    ///
    /// # Errors
    /// Two codecs with one name or one value.
    pub fn with(methods: impl IntoIterator<Item = MethodDescriptor>) -> Result<Self, UsageError> {
        let mut methods: Vec<_> = methods.into_iter().collect();
        // The linker decides the order in which codecs are collected.
        methods.sort_by_key(MethodDescriptor::compression);
        for (at, method) in methods.iter().enumerate() {
            let (name, compression) = (method.name, method.compression());
            let same =
                |other: &MethodDescriptor| other.name == name || other.compression() == compression;
            if methods[..at].iter().any(same) {
                return Err(UsageError::RegisteredTwice { name, compression });
            }
        }
        Ok(Self { methods })
    }

    /// These codecs, with `method` in place of the one that has its value, if there is one: the
    /// same codec with other options, say.
    ///
    /// # Errors
    /// Another codec has its name.
    pub fn replacing(self, method: MethodDescriptor) -> Result<Self, UsageError> {
        let others = self.methods.into_iter();
        let others = others.filter(|other| other.compression() != method.compression());
        Self::with(others.chain([method]))
    }

    /// All codecs, QEMU's first.
    pub fn iter(&self) -> impl Iterator<Item = &MethodDescriptor> {
        self.methods.iter()
    }

    /// The codec for `compression`.
    ///
    /// # Errors
    /// It is not registered; the error lists those that are.
    pub fn get(&self, compression: Compression) -> Result<&MethodDescriptor, UsageError> {
        self.find(&compression, |method| method.compression() == compression)
    }

    /// The codec called `name`: that of its descriptor, or of its [`Compression`].
    ///
    /// # Errors
    /// It is not registered; the error lists those that are.
    pub fn by_name(&self, name: &str) -> Result<&MethodDescriptor, UsageError> {
        let compression = name.parse().ok();
        self.find(&name, |method| method.name == name || Some(method.compression()) == compression)
    }

    fn find(
        &self,
        wanted: &dyn fmt::Display,
        is: impl Fn(&MethodDescriptor) -> bool,
    ) -> Result<&MethodDescriptor, UsageError> {
        self.iter().find(|method| is(method)).ok_or_else(|| {
            let names: Vec<_> = self.iter().map(|method| method.name).collect();
            UsageError::NotRegistered { wanted: wanted.to_string(), registered: names.join(", ") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::none;

    #[test]
    fn none_is_collected_by_itself() {
        let registry = Registry::collected().unwrap();
        assert_eq!(registry.get(Compression::None).unwrap().name, "none");
        assert_eq!(registry.by_name("none").unwrap().compression(), Compression::None);
    }

    #[test]
    fn a_codec_registered_twice_is_refused() {
        let twice = Registry::with([none::DESCRIPTOR, none::DESCRIPTOR]);
        let error = UsageError::RegisteredTwice { name: "none", compression: Compression::None };
        assert_eq!(twice.unwrap_err(), error);
    }

    #[test]
    fn a_codec_takes_the_place_of_the_one_with_its_value() {
        let registry = Registry::with([none::DESCRIPTOR]).unwrap();
        let other = MethodDescriptor { name: "other", ..none::DESCRIPTOR };
        let registry = registry.replacing(other).unwrap();
        assert_eq!(registry.iter().map(|method| method.name).collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn a_look_up_that_fails_lists_what_is_there() {
        let registry = Registry::with([none::DESCRIPTOR]).unwrap();
        let text = registry.get(Compression::Zstd).unwrap_err().to_string();
        assert!(text.contains("'zstd'") && text.contains("are: none"), "{text}");
        assert!(text.contains("use multifd_zstd as _;"), "{text}");
        assert!(registry.by_name("lz4").is_err());
    }

    #[test]
    fn a_level_outside_the_codecs_own_is_refused() {
        let levels = Levels { least: 0, most: 9, default: 1 };
        let method = MethodDescriptor { levels: Some(levels), ..none::DESCRIPTOR };
        assert_eq!(method.level(None), Ok(1));
        assert_eq!(method.level(Some(9)), Ok(9));
        assert!(method.level(Some(10)).is_err());
        assert!(none::DESCRIPTOR.level(Some(1)).is_err());
    }
}
