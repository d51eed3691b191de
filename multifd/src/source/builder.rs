//! How a source is set up.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use multifd_core::Registry;
use multifd_core::ram::{BlockDigest, Ram};
use multifd_core::wire::Uuid;

use super::Source;
use crate::codecs::Codec;
use crate::early_state::EarlyState;
use crate::engine::cancel::CancelToken;
use crate::engine::outgoing::Outgoing;
use crate::engine::session::Terms;
use crate::engine::threads::Threads;
use crate::error::Error;
use crate::stream::{Configuration, PostcopyAdvise, SyncForm};
use crate::transport::{Connection, Introduce, Secure, Uri};

/// Who looks for zero pages, in memory that is not known to be untouched.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroPages {
    /// The channels: QEMU's `zero-page-detection` `multifd`, which a QEMU before 9.0 does not
    /// understand.
    #[default]
    Channels,
    /// The main channel, as every QEMU understands: `legacy`.
    Main,
    /// Nobody; zero pages are sent like others, and memory that was never touched is read for that:
    /// `none`.
    Off,
}

/// How a source is set up. Both sides must agree on compression, channels and UUID.
#[derive(Clone, Debug)]
pub struct SourceBuilder<'a> {
    pub(super) registry: &'a Registry,
    pub(super) ram: Arc<Ram>,
    pub(super) codec: Codec,
    pub(super) level: Option<i32>,
    pub(super) channels: u8,
    pub(super) uuid: Uuid,
    pub(super) configuration: Configuration,
    pub(super) section_id: u32,
    pub(super) early_state: EarlyState,
    pub(super) postcopy_advise: Option<PostcopyAdvise>,
    pub(super) block_page_bytes: Vec<Option<u64>>,
    pub(super) sync_form: SyncForm,
    pub(super) footers: bool,
    pub(super) zero_pages: ZeroPages,
    pub(super) return_path: bool,
    pub(super) connect_timeout: Duration,
    pub(super) terms: Terms,
    pub(super) max_bandwidth: Option<NonZeroU64>,
    pub(super) zero_copy: bool,
    pub(super) digests: bool,
    pub(super) expected_digests: Option<Vec<BlockDigest>>,
    secure: Option<Arc<dyn Secure>>,
    token: Option<Arc<dyn Introduce>>,
}

impl<'a> SourceBuilder<'a> {
    /// A source of `ram` with no compression, 2 channels, no UUID and a return path, in the form
    /// of a QEMU from 9.0 on.
    pub fn new(registry: &'a Registry, ram: Arc<Ram>) -> Self {
        Self {
            registry,
            ram,
            codec: Codec::default(),
            level: None,
            channels: 2,
            uuid: Uuid::default(),
            configuration: Configuration::default(),
            section_id: 2,
            early_state: EarlyState::default(),
            postcopy_advise: None,
            block_page_bytes: Vec::new(),
            sync_form: SyncForm::Flush,
            footers: true,
            zero_pages: ZeroPages::default(),
            return_path: true,
            connect_timeout: Duration::from_secs(10),
            terms: Terms::default(),
            max_bandwidth: None,
            zero_copy: false,
            digests: true,
            expected_digests: None,
            secure: None,
            token: None,
        }
    }

    /// Compresses with a [`Compression`](multifd_core::Compression), which the registry must hold, or
    /// with a codec value.
    #[must_use]
    pub fn compression(self, codec: impl Into<Codec>) -> Self {
        Self { codec: codec.into(), ..self }
    }

    /// Compresses at `level`; `None` is the codec's default.
    #[must_use]
    pub fn level(self, level: Option<i32>) -> Self {
        Self { level, ..self }
    }

    /// Sends over `channels` channels, 1 to 255, with a thread each.
    #[must_use]
    pub fn channels(self, channels: u8) -> Self {
        Self { channels, ..self }
    }

    /// The VM's UUID.
    #[must_use]
    pub fn uuid(self, uuid: Uuid) -> Self {
        Self { uuid, ..self }
    }

    /// What the main channel's CONFIGURATION section says: machine type and subsections. Without
    /// a machine there is no such section.
    #[must_use]
    pub fn configuration(self, configuration: Configuration) -> Self {
        Self { configuration, ..self }
    }

    /// The number of the ram section in the main channel, 2 unless said otherwise. It must not be
    /// that of a section in the device state.
    #[must_use]
    pub fn section_id(self, section_id: u32) -> Self {
        Self { section_id, ..self }
    }

    /// What is sent before the pages: what a destination once received, or a VMM's own from
    /// [`FullSection::to_early_state`](crate::stream::FullSection::to_early_state).
    #[must_use]
    pub fn early_state(self, early_state: impl Into<EarlyState>) -> Self {
        Self { early_state: early_state.into(), ..self }
    }

    /// What is said of postcopy, which this source never starts: a QEMU that has the capability on
    /// expects it. None unless said otherwise.
    #[must_use]
    pub fn postcopy_advise(self, advise: Option<PostcopyAdvise>) -> Self {
        Self { postcopy_advise: advise, ..self }
    }

    /// The sizes of the pages that the blocks of RAM are made of, in bytes, as
    /// [`BlockInfo::page_bytes`](crate::stream::BlockInfo::page_bytes) has them, in the order of the
    /// blocks. Blocks without one are of ordinary pages.
    #[must_use]
    pub fn block_page_bytes(self, page_bytes: impl IntoIterator<Item = Option<u64>>) -> Self {
        Self { block_page_bytes: page_bytes.into_iter().collect(), ..self }
    }

    /// How syncs are told. A destination with a machine type up to 8.0 wants
    /// [`SyncForm::EachSection`].
    #[must_use]
    pub fn sync_form(self, sync_form: SyncForm) -> Self {
        Self { sync_form, ..self }
    }

    /// Whether each section of the main channel ends in a FOOTER, as in all but very old machine
    /// types.
    #[must_use]
    pub fn footers(self, footers: bool) -> Self {
        Self { footers, ..self }
    }

    /// Who looks for zero pages.
    #[must_use]
    pub fn zero_pages(self, zero_pages: ZeroPages) -> Self {
        Self { zero_pages, ..self }
    }

    /// Whether the destination is asked to confirm. Without, nothing tells the source that the
    /// destination failed late.
    #[must_use]
    pub fn return_path(self, return_path: bool) -> Self {
        Self { return_path, ..self }
    }

    /// How long each connection may take to be made, to whichever of a name's addresses. 10 s unless
    /// said otherwise.
    #[must_use]
    pub fn connect_timeout(self, limit: Duration) -> Self {
        Self { connect_timeout: limit, ..self }
    }

    /// How long the destination may be waited for while no byte moves on any connection: 2 minutes
    /// unless said otherwise, any time with `None`. It does not count while the caller does something
    /// else, such as between two rounds, nor while the destination, which has everything, takes its
    /// time to confirm. The destination's own limit does count between two rounds.
    #[must_use]
    pub fn progress_timeout(mut self, limit: Option<Duration>) -> Self {
        self.terms.progress_timeout = limit;
        self
    }

    /// How long the migration may take, from when it begins to connect until the destination has confirmed
    /// it; any time with `None`, as at first. What it fails is judged as any other failure: after the end
    /// of the stream the destination may have the guest.
    #[must_use]
    pub fn time_limit(mut self, limit: Option<Duration>) -> Self {
        self.terms.time_limit = limit;
        self
    }

    /// How the migration's threads are named and what they do first.
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        self.terms.threads = threads;
        self
    }

    /// Has `token` cancel the migration, from the first connection on: also while it is being made.
    /// Only the look-up of a name cannot be interrupted.
    #[must_use]
    pub fn cancelled_by(mut self, token: &CancelToken) -> Self {
        self.terms.cancelled_by = Some(token.clone());
        self
    }

    /// The most that is sent, in bytes a second as they are on the wire, over all channels and the
    /// main channel together; `None`, as at first, for no limit. It holds when the guest has
    /// stopped, too. After a pause 10 ms of it may go out at once; a packet goes out whole.
    #[must_use]
    pub fn max_bandwidth(self, limit: Option<NonZeroU64>) -> Self {
        Self { max_bandwidth: limit, ..self }
    }

    /// Whether the kernel is to send guest memory from where it is (`MSG_ZEROCOPY`, QEMU's
    /// `zero-copy-send`) instead of copying it first. Not unless said otherwise. It is for method none
    /// over TCP without TLS, and for a fast network: over loopback and most virtual devices
    /// the kernel copies all the same, which [`Stats::zero_copy`](crate::Stats::zero_copy) tells, and it is slower than without.
    ///
    /// The memory that is on its way is locked meanwhile, half a MiB for each packet, against a limit that all processes of
    /// the user share (`ulimit -l`): what is above it waits until some has arrived, or is copied. Each SYNC waits until the
    /// destination's kernel has everything before it. There
    /// are no [`digests`](Self::digests) then, which are of the copy: a page may change until it is sent.
    #[must_use]
    pub fn zero_copy(self, zero_copy: bool) -> Self {
        Self { zero_copy, ..self }
    }

    /// Whether the destination is told in the end what the RAM holds, a digest for each block, so that
    /// one of this library notices a bit that has flipped, or a codec's fault, before it confirms. It is
    /// unless said otherwise; a QEMU does not look at it. It costs a hash of each page, and memory: 8
    /// bytes for each page of RAM in use.
    #[must_use]
    pub fn digests(self, digests: bool) -> Self {
        Self { digests, ..self }
    }

    /// What the RAM must hold in the end, a digest for each of its blocks in the order that they have
    /// here, such as [`Vm::digests`](crate::Vm::digests) of when it was stored, which has the
    /// order of [`Vm::blocks`](crate::Vm::blocks). [`Source::finish`] fails with
    /// [`Error::Changed`] otherwise, before anything is handed over; for a block without a digest, too.
    /// Turns [`digests`](Self::digests) on.
    #[must_use]
    pub fn expected_digests(self, digests: impl IntoIterator<Item = BlockDigest>) -> Self {
        let expected_digests = Some(digests.into_iter().collect());
        Self { digests: true, expected_digests, ..self }
    }

    /// Has all connections encrypted, also those that are there already, which must be sockets then.
    /// The handshakes are part of the [`connect_timeout`](Self::connect_timeout).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, tls: crate::tls::ClientTls) -> Self {
        Self { secure: Some(Arc::new(tls)), ..self }
    }

    /// Has all connections prove, inside of TLS where there is TLS, that they are of this migration, and the
    /// destination that it has the same token. Its destination must be one with a token, which no QEMU is.
    /// That is part of the [`connect_timeout`](Self::connect_timeout). It is bound to the TLS of
    /// [`tls`](Self::tls), and not to what a stream of the program's own is encrypted with.
    #[cfg(feature = "token")]
    #[must_use]
    pub fn token(self, token: crate::token::Token) -> Self {
        Self { token: Some(Arc::new(token)), ..self }
    }

    /// Connects all channels to `uri` and announces the RAM.
    ///
    /// # Errors
    /// A codec that is not registered or not available, a level it does not have, a destination
    /// that does not answer or refuses; a [cancellation](Self::cancelled_by).
    pub fn connect(self, uri: &Uri) -> Result<Source, Error> {
        self.connect_to(uri.into())
    }

    /// As [`connect`](Self::connect), over connections that are there already, whose number is the
    /// number of channels. They are shut down when the migration is over.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); no channel, or more than 255.
    pub fn connect_over(
        self,
        main: Connection,
        channels: impl IntoIterator<Item = Connection>,
    ) -> Result<Source, Error> {
        self.connect_to(Outgoing::over(main, channels))
    }

    fn connect_to(self, to: Outgoing) -> Result<Source, Error> {
        let to = to.secured_by(self.secure.clone()).known_by(self.token.clone())?;
        Source::connect(&self, to)
    }
}
