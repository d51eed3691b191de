//! Which codecs there are.

use std::fmt;
use std::sync::Arc;

use crate::error::UsageError;
use crate::method::{ChannelConfig, MultiFdMethods};
use crate::page_size::PageSize;
use crate::wire::Compression;

/// The levels of a codec.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The lowest, the fastest.
    pub least: i32,
    /// The highest, the smallest output.
    pub most: i32,
    /// The level where none is asked for.
    pub default: i32,
}

impl Levels {
    /// The levels from `least` to `most`, both included, of which `default` is taken unasked.
    pub const fn new(least: i32, most: i32, default: i32) -> Self {
        Self { least, most, default }
    }
}

/// Whether a codec can work on this machine, in words a person can act on.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It can, by this library or device, with its version.
    Available(String),
    /// It cannot, for this reason.
    Unavailable(String),
}

/// What a codec says of itself.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodDescriptor {
    /// The name by which a user picks the codec: QEMU's name where QEMU has it.
    pub name: &'static str,
    /// What it is, in a few words.
    pub summary: &'static str,
    /// Its levels, if it has any.
    pub levels: Option<Levels>,
    /// The value of the compression field that its packets carry.
    pub compression: Compression,
    /// Whether a page that has been sent with data may come as zero later: see
    /// [`without_zero_after_data`](Self::without_zero_after_data).
    pub zero_after_data: bool,
}

impl MethodDescriptor {
    /// A codec without levels.
    pub const fn new(name: &'static str, summary: &'static str, compression: Compression) -> Self {
        Self { name, summary, levels: None, compression, zero_after_data: true }
    }

    /// The same with `levels`.
    #[must_use]
    pub const fn with_levels(self, levels: Levels) -> Self {
        Self { levels: Some(levels), ..self }
    }

    /// The same for a codec some of whose receivers do not clear a page that they got with data and that
    /// comes as zero later. Sources and relays send such a page with data again, which are zeros.
    #[must_use]
    pub const fn without_zero_after_data(self) -> Self {
        Self { zero_after_data: false, ..self }
    }

    /// Checks a level, or picks the default one.
    ///
    /// # Errors
    /// A level that the codec does not have.
    pub fn level(&self, asked: Option<i32>) -> Result<i32, UsageError> {
        let method = self.compression;
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
}

/// Brings a codec, with its default options, into [`Registry::collected`]. A backend submits one:
///
/// ```standalone_crate
/// use std::sync::Arc;
/// # use multifd_core::none::Plain;
/// multifd_core::inventory::submit! {
///     multifd_core::Registration(|| Arc::new(Plain))
/// }
/// ```
#[allow(clippy::exhaustive_structs, reason = "submitted from a static")]
#[derive(Clone, Copy, Debug)]
pub struct Registration(pub fn() -> Arc<dyn MultiFdMethods>);

inventory::collect!(Registration);

/// A set of codecs in which every name and every value is there once.
#[derive(Clone, Debug)]
pub struct Registry {
    methods: Vec<Arc<dyn MultiFdMethods>>,
}

impl Registry {
    /// The codecs of all crates that are linked into the program. A crate that nothing mentions
    /// is not linked: `use multifd_zstd as _;` mentions it.
    ///
    /// # Errors
    /// Two codecs with one name or one value.
    pub fn collected() -> Result<Self, UsageError> {
        Self::with(inventory::iter::<Registration>.into_iter().map(|registration| registration.0()))
    }

    /// The codecs given, and no others.
    ///
    /// # Errors
    /// Two codecs with one name or one value.
    pub fn with(
        methods: impl IntoIterator<Item = Arc<dyn MultiFdMethods>>,
    ) -> Result<Self, UsageError> {
        let mut methods: Vec<_> = methods.into_iter().collect();
        // The linker decides the order in which codecs are collected.
        methods.sort_by_key(|method| method.compression());
        for (at, method) in methods.iter().enumerate() {
            let (name, compression) = (method.name(), method.compression());
            let same = |other: &Arc<dyn MultiFdMethods>| {
                other.name() == name || other.compression() == compression
            };
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
    pub fn replacing(mut self, method: Arc<dyn MultiFdMethods>) -> Result<Self, UsageError> {
        self.methods.retain(|other| other.compression() != method.compression());
        self.methods.push(method);
        Self::with(self.methods)
    }

    /// All codecs, QEMU's first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn MultiFdMethods>> {
        self.methods.iter()
    }

    /// The codec for `compression`.
    ///
    /// # Errors
    /// It is not registered; the error lists those that are.
    pub fn get(&self, compression: Compression) -> Result<&Arc<dyn MultiFdMethods>, UsageError> {
        self.find(&compression, Some(compression), |method| method.compression() == compression)
    }

    /// The codec called `name`: that of its descriptor, or of its [`Compression`].
    ///
    /// # Errors
    /// It is not registered; the error lists those that are.
    pub fn by_name(&self, name: &str) -> Result<&Arc<dyn MultiFdMethods>, UsageError> {
        let compression = name.parse().ok();
        self.find(&name, compression, |method| {
            method.name() == name || Some(method.compression()) == compression
        })
    }

    fn find(
        &self,
        wanted: &dyn fmt::Display,
        compression: Option<Compression>,
        is: impl Fn(&dyn MultiFdMethods) -> bool,
    ) -> Result<&Arc<dyn MultiFdMethods>, UsageError> {
        self.iter().find(|method| is(&***method)).ok_or_else(|| {
            let names: Vec<_> = self.iter().map(|method| method.name()).collect();
            UsageError::NotRegistered {
                wanted: wanted.to_string(),
                registered: names.join(", "),
                how: how_to_register(compression),
            }
        })
    }
}

/// What to do so that a codec is registered.
fn how_to_register(compression: Option<Compression>) -> &'static str {
    match compression {
        Some(Compression::None) => "`Registry::collected` brings it",
        Some(Compression::Zlib) => {
            "depend on multifd-zlib and mention it: `use multifd_zlib as _;`"
        }
        Some(Compression::Zstd) => {
            "depend on multifd-zstd and mention it: `use multifd_zstd as _;`"
        }
        Some(Compression::Qpl) => "depend on multifd-qpl and mention it: `use multifd_qpl as _;`",
        Some(Compression::Uadk) => {
            "depend on multifd-uadk and mention it: `use multifd_uadk as _;`"
        }
        Some(Compression::Qatzip) => {
            "depend on multifd-qatzip and mention it: `use multifd_qatzip as _;`"
        }
        _ => {
            "a crate that brings it has to be linked: depend on it and mention it by its name, as \
             in `use multifd_mine as _;`"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::method::{RecvMethod, SendMethod};
    use crate::none::Plain;

    /// Method none under another name.
    #[derive(Debug)]
    struct Named(MethodDescriptor);

    #[async_trait::async_trait]
    impl MultiFdMethods for Named {
        fn descriptor(&self) -> MethodDescriptor {
            self.0
        }

        fn probe(&self) -> Availability {
            Availability::Unavailable("it is a test's".to_owned())
        }

        async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
            Plain.send_setup(config).await
        }

        async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
            Plain.recv_setup(config).await
        }
    }

    fn none() -> Arc<dyn MultiFdMethods> {
        Arc::new(Plain)
    }

    fn other() -> Arc<dyn MultiFdMethods> {
        Arc::new(Named(MethodDescriptor::new("other", "a test's", Compression::None)))
    }

    #[test]
    fn none_is_collected_by_itself() {
        let registry = Registry::collected().unwrap();
        assert_eq!(registry.get(Compression::None).unwrap().name(), "none");
        assert_eq!(registry.by_name("none").unwrap().compression(), Compression::None);
    }

    #[test]
    fn a_codec_registered_twice_is_refused() {
        let twice = Registry::with([none(), none()]);
        let error = UsageError::RegisteredTwice { name: "none", compression: Compression::None };
        assert_eq!(twice.unwrap_err(), error);
    }

    #[test]
    fn a_codec_takes_the_place_of_the_one_with_its_value() {
        let registry = Registry::with([none()]).unwrap().replacing(other()).unwrap();
        assert_eq!(registry.iter().map(|method| method.name()).collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn a_codec_that_cannot_work_is_refused_with_its_reason() {
        let error = other().require().unwrap_err().to_string();
        assert_eq!(error, "other is not available: it is a test's");
        none().require().unwrap();
    }

    #[test]
    fn a_look_up_that_fails_lists_what_is_there_and_says_how_to_get_the_codec() {
        let registry = Registry::with([none()]).unwrap();
        for (name, advice) in [
            ("zlib", "use multifd_zlib as _;"),
            ("zstd", "use multifd_zstd as _;"),
            ("qpl", "use multifd_qpl as _;"),
            ("uadk", "use multifd_uadk as _;"),
            ("qatzip", "use multifd_qatzip as _;"),
            ("lz4", "use multifd_mine as _;"),
        ] {
            let text = registry.by_name(name).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains("are: none"), "{text}");
            assert!(text.contains(advice), "{text}");
        }
        let by_value = registry.get(Compression::Zstd).unwrap_err();
        assert_eq!(by_value, registry.by_name("zstd").unwrap_err());
    }

    #[test]
    fn a_level_outside_the_codecs_own_is_refused() {
        let without = MethodDescriptor::new("none", "", Compression::None);
        let method = without.with_levels(Levels::new(0, 9, 1));
        assert_eq!(method.level(None), Ok(1));
        assert_eq!(method.level(Some(9)), Ok(9));
        assert!(method.level(Some(10)).is_err());
        assert!(without.level(Some(1)).is_err());
    }
}
