//! What a migration is made of, and what in it is against the format.
//!
//! An [`Inspector`] is told what goes over a migration's connections and keeps count: packets,
//! rounds, blocks, pages that come more than once. Whatever is not as `docs/wire-format.md` and
//! `docs/migration-stream.md` want it becomes a [`Finding`], with the byte where it is. Nothing is
//! decompressed, and no packet is kept: memory grows by 8 bytes a page that is sent and some
//! hundred bytes a round, whatever a peer claims.
//!
//! [`recording()`] inspects a migration that has been recorded. A migration that is going on is
//! inspected by whoever relays it: an inspector takes the bytes of each connection as they come, in
//! pieces of any size.
//!
//! ```
//! use std::time::Duration;
//! use multifd::inspect::Inspector;
//!
//! # fn example(main: [&[u8]; 2], channel: &[u8]) {
//! let mut inspector = Inspector::new();
//! let number = inspector.connect();
//! let [mut setup, mut rest] = main;
//! // The list of RAM blocks is in it: only then packets, whose pages are in those blocks.
//! while let Some(event) = inspector.main_bytes(&mut setup) {
//!     println!("{event:?}");
//! }
//! for mut piece in channel.chunks(1000) {
//!     while let Some(packet) =
//!         inspector.channel_bytes(number, &mut piece, Some(Duration::from_millis(1)))
//!     {
//!         println!("{} pages", packet.counts.normal_pages);
//!     }
//! }
//! while inspector.main_bytes(&mut rest).is_some() {}
//! let report = inspector.finish();
//! println!("{} errors", report.findings.errors());
//! # assert_eq!(report.total().packets, report.channels[0].counts.packets);
//! # }
//! # let recording = multifd_conformance::recordings()[0];
//! # let (setup, rest) = recording.main.split_at(1000);
//! # example([setup, rest], recording.channels[0]);
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
mod tally;
mod trace;

#[cfg(test)]
mod parser_tests;

pub use channel::PacketRecord;
pub use device_state::{DeviceSection, DeviceState};
pub use finding::{Connection, Finding, FindingKind, Place, Severity};
pub use findings::Findings;
pub use inspector::Inspector;
pub use recording::recording;
pub use report::{BlockReport, ChannelReport, Counts, MainReport, Report, RoundReport};
pub use trace::{Trace, TracePoint};
