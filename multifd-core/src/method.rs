//! What a codec is to the rest of the framework.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::codec::Payload;
use crate::counters::MethodCounters;
use crate::error::{Error, UsageError};
use crate::page_size::PageSize;
use crate::ram::{GuestPages, NormalPages};
use crate::registry::{Availability, MethodDescriptor};
use crate::wire::Compression;

/// What a codec needs to know to set up one side of one channel.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The channel's number.
    pub channel: u8,
    /// The size of a page.
    pub page_size: PageSize,
    /// The level to compress with, within the codec's [`Levels`](crate::Levels); 0 for a codec without levels.
    /// A receiver need not know it.
    pub level: i32,
    /// For tests: the byte that a method fills its output memory with before it is used. `None`,
    /// the default, leaves the memory as it is. With two different values, a codec that passes on
    /// bytes it has not written gives two different results.
    pub scratch_fill: Option<u8>,
}

impl ChannelConfig {
    /// The set-up of the channel `channel`. A descriptor's [`config`](MethodDescriptor::config)
    /// checks the level first.
    pub const fn new(channel: u8, page_size: PageSize, level: i32) -> Self {
        Self { channel, page_size, level, scratch_fill: None }
    }

    /// The same set-up with a [`scratch_fill`](Self::scratch_fill).
    #[must_use]
    pub const fn with_scratch_fill(self, byte: u8) -> Self {
        Self { scratch_fill: Some(byte), ..self }
    }

    /// Prepares `scratch`, which a packet is about to be decoded into.
    pub fn fill_scratch(&self, scratch: &mut [u8]) {
        if let Some(byte) = self.scratch_fill {
            scratch.fill(byte);
        }
    }
}

/// A codec with its options. All channels share it; the state of one side of one channel is in the
/// [`SendMethod`] or [`RecvMethod`] that a set-up returns, so that nothing can be called out of
/// order.
///
/// An ordinary codec need not implement this: see [`PacketCodec`](crate::codec::PacketCodec) and
/// [`PageCodec`](crate::codec::PageCodec).
///
/// # What an implementor may rely on
///
/// - [`probe`](Self::probe) is asked before a migration connects; no set-up follows where it says
///   that the codec is not available.
/// - A side of a channel is set up once and used from one task or thread at a time, packet after
///   packet in the order of the channel. After an error it is only cleaned up or dropped.
/// - Pages and payloads have been checked against the format: one page at least, sizes within
///   [`Compression::payload_bounds`]. What a payload holds is the peer's and has not been checked.
/// - A future may be dropped at any of its awaits. The same call with the same arguments follows,
///   or none at all but the drop. A method that never awaits is never interrupted.
/// - Cleaning up follows only on a channel's orderly end; dropping has to free everything, too.
#[async_trait]
pub trait MultiFdMethods: Debug + Send + Sync {
    /// The codec's name, levels and place on the wire. Always the same.
    fn descriptor(&self) -> MethodDescriptor;

    /// Looks whether the codec can work here with its options.
    fn probe(&self) -> Availability;

    /// Sets up the compressing side of one channel.
    ///
    /// # Errors
    /// Where the library or device fails.
    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error>;

    /// Sets up the decompressing side of one channel.
    ///
    /// # Errors
    /// Where the library or device fails.
    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error>;
}

#[async_trait]
impl<M: MultiFdMethods + ?Sized> MultiFdMethods for Arc<M> {
    fn descriptor(&self) -> MethodDescriptor {
        (**self).descriptor()
    }

    fn probe(&self) -> Availability {
        (**self).probe()
    }

    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        (**self).send_setup(config).await
    }

    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        (**self).recv_setup(config).await
    }
}

impl dyn MultiFdMethods + '_ {
    /// The name by which a user picks the codec.
    pub fn name(&self) -> &'static str {
        self.descriptor().name
    }

    /// The value of the compression field that the codec's packets carry.
    pub fn compression(&self) -> Compression {
        self.descriptor().compression
    }

    /// Fails, with the reason, where the codec cannot work here.
    ///
    /// # Errors
    /// The codec is not available.
    pub fn require(&self) -> Result<(), UsageError> {
        match self.probe() {
            Availability::Available(_) => Ok(()),
            Availability::Unavailable(reason) => {
                Err(UsageError::NotAvailable { name: self.name(), reason })
            }
        }
    }
}

/// How a method gets at the pages of a packet.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageAccess {
    /// By memory of ours: a sender reads private copies, which do not change, and a receiver
    /// decodes the payload. Any method that looks at the content.
    PrivateCopy,
    /// Not at all: the pages go from and into guest memory as they are.
    InPlace,
}

/// The compressing side of one channel.
#[async_trait]
pub trait SendMethod: Send {
    /// How the method reads pages.
    fn access(&self) -> PageAccess {
        PageAccess::PrivateCopy
    }

    /// What the method counts on this channel. Asked for once, after the set-up.
    fn counters(&self) -> MethodCounters {
        MethodCounters::default()
    }

    /// Makes the payload of one packet from its normal pages: at least one.
    ///
    /// The payload comes empty; its length must in the end be within
    /// [`Compression::payload_bounds`]. May block for CPU time; an accelerator is awaited.
    ///
    /// # Errors
    /// Where the library or device fails.
    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error>;

    /// Ends the channel.
    ///
    /// # Errors
    /// Where the library or device fails.
    async fn send_cleanup(self: Box<Self>) -> Result<(), Error>;
}

/// The decompressing side of one channel.
#[async_trait]
pub trait RecvMethod: Send {
    /// How the method writes pages. Where it is [`PageAccess::InPlace`] a payload is the pages, and
    /// a channel may read them straight into the guest instead of calling [`recv`](Self::recv).
    fn access(&self) -> PageAccess {
        PageAccess::PrivateCopy
    }

    /// What the method counts on this channel. Asked for once, after the set-up.
    fn counters(&self) -> MethodCounters {
        MethodCounters::default()
    }

    /// Restores a packet's normal `pages`, at least one, from its whole `payload`, and writes each
    /// of them.
    ///
    /// The payload is the peer's: anything but exactly the packet's pages is an error
    /// ([`Error::payload`]), never a panic and never memory by a length that it claims.
    ///
    /// # Errors
    /// A payload that is not the pages'; where the library or device fails.
    async fn recv(&mut self, payload: &[u8], pages: GuestPages<'_>) -> Result<(), Error>;

    /// Ends the channel.
    ///
    /// # Errors
    /// Where the library or device fails.
    async fn recv_cleanup(self: Box<Self>) -> Result<(), Error>;
}
