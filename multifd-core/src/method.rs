//! What a codec is to the rest of the framework.

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;

use crate::compression::Compression;
use crate::error::Error;
use crate::io::ChannelReader;
use crate::page_size::PageSize;
use crate::payload::Payload;
use crate::ram::{GuestPages, NormalPages};
use crate::wire::RamPacket;

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
}

impl ChannelConfig {
    /// The set-up of the channel `channel`. A descriptor's [`config`](crate::MethodDescriptor::config)
    /// checks the level first.
    pub fn new(channel: u8, page_size: PageSize, level: i32) -> Self {
        Self { channel, page_size, level }
    }
}

/// The method table of one codec: shared, stateless. The state of a channel is what the two
/// set-ups hand out, so that nothing can be called out of order.
///
/// An ordinary codec need not implement this: see [`PacketCodec`](crate::codec::PacketCodec) and
/// [`PageCodec`](crate::codec::PageCodec).
#[async_trait]
pub trait MultiFdMethods: Debug + Send + Sync {
    /// The value of the compression field that the codec's packets carry.
    fn compression(&self) -> Compression;

    /// Sets up the compressing side of one channel.
    async fn send_setup(&self, config: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error>;

    /// Sets up the decompressing side of one channel.
    async fn recv_setup(&self, config: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error>;
}

/// How a method wants to read the pages that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageAccess {
    /// From private copies, which do not change: any method that looks at the content.
    PrivateCopy,
    /// Not at all: the pages are written from guest memory as they are.
    InPlace,
}

/// The compressing side of one channel.
///
/// After an error the channel is only cleaned up or dropped.
#[async_trait]
pub trait SendMethod: Send {
    /// How the method reads pages.
    fn access(&self) -> PageAccess {
        PageAccess::PrivateCopy
    }

    /// Makes the payload of one packet from its normal pages, of which there is at least one.
    ///
    /// The payload comes empty; its length must in the end be within
    /// [`Compression::payload_bounds`]. May block for CPU time; an accelerator is awaited.
    async fn send_prepare(
        &mut self,
        pages: &NormalPages<'_>,
        payload: &mut Payload,
    ) -> Result<(), Error>;

    /// Ends the channel: frees what it holds and says what was counted. Dropping frees, too.
    async fn send_cleanup(self: Box<Self>) -> Result<MethodStats, Error>;
}

/// The decompressing side of one channel.
///
/// After an error the channel is only cleaned up or dropped.
#[async_trait]
pub trait RecvMethod: Send {
    /// Reads the payload of one packet, exactly [`RamPacket::payload_bytes`], and writes each of
    /// its normal `pages`, of which there is at least one.
    ///
    /// The payload is the peer's: anything but exactly the packet's pages is an error
    /// ([`Error::payload`]), never a panic and never memory by a length that it claims.
    async fn recv(
        &mut self,
        packet: &RamPacket<'_>,
        reader: &mut dyn ChannelReader,
        pages: GuestPages<'_>,
    ) -> Result<(), Error>;

    /// Ends the channel: frees what it holds and says what was counted. Dropping frees, too.
    async fn recv_cleanup(self: Box<Self>) -> Result<MethodStats, Error>;
}

/// What a method has counted on one channel, by name: `raw pages`, for example. Empty for a
/// method that has nothing to say beyond what the channel counts.
pub type MethodStats = BTreeMap<&'static str, u64>;
