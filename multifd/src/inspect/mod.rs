//! What a migration is made of, and what in it is against the format.
//!
//! An [`Inspector`] is told what goes over a migration's connections and keeps count: packets,
//! rounds, blocks, pages that come more than once. Whatever is not as `docs/wire-format.md` and
//! `docs/migration-stream.md` want it becomes a [`Finding`], with the byte where it is. Nothing is
//! decompressed, and no packet is kept: memory grows by 8 bytes a page that is sent and some
//! hundred bytes a round, whatever a peer claims.
//!
//! [`recording()`] inspects a migration that has been recorded. One that is going on is inspected by
//! whoever relays it: a [`ChannelParser`] for each channel turns bytes, in pieces of any size, into
//! [`ChannelEvent`]s, a [`MainDecoder`](crate::stream::MainDecoder) the main channel's into its own.
//!
//! ```
//! use std::time::Duration;
//! use multifd::inspect::Inspector;
//! use multifd::stream::{Limits, MainDecoder};
//!
//! # fn example(mut main: &[u8], channel: &[u8]) -> Result<(), multifd::stream::StreamError> {
//! let mut inspector = Inspector::new();
//! let mut decoder = MainDecoder::new(Limits::default());
//! while !inspector.knows_ram() {
//!     let Some(event) = decoder.next(&mut main)? else { break };
//!     inspector.main(&decoder, Ok(&event));
//! }
//! // Only now: a channel's pages are in the RAM blocks that the main channel has listed.
//! let mut parser = inspector.connect();
//! for mut piece in channel.chunks(1000) {
//!     while let Some(event) = parser.next(&mut piece) {
//!         inspector.channel(&event, Some(Duration::from_millis(1)));
//!     }
//! }
//! inspector.channel(&parser.end(), None);
//! while let Some(event) = decoder.next(&mut main)? {
//!     inspector.main(&decoder, Ok(&event));
//! }
//! if let Some(event) = decoder.finish()? {
//!     inspector.main(&decoder, Ok(&event));
//! }
//! let report = inspector.finish();
//! println!("{} errors", report.findings.errors());
//! # Ok(())
//! # }
//! # let recordings = multifd_conformance::recordings();
//! # example(recordings[0].main, recordings[0].channels[0]).unwrap();
//! ```

mod blocks;
mod channel;
mod chunks;
mod conclusion;
mod device_state;
mod finding;
mod findings;
mod inspector;
mod main_channel;
mod numbers;
mod pages;
mod parser;
mod recording;
mod report;
mod trace;

#[cfg(test)]
mod parser_tests;

pub use channel::PacketRecord;
pub use chunks::Chunks;
pub use device_state::{DeviceSection, DeviceState};
pub use finding::{Connection, Finding, FindingKind, Place, Severity};
pub use findings::Findings;
pub use inspector::Inspector;
pub use parser::{ChannelEvent, ChannelParser, Content, Cut};
pub use recording::recording;
pub use report::{BlockReport, ChannelReport, Counts, MainReport, Report, RoundReport};
pub use trace::{Trace, TracePoint};
