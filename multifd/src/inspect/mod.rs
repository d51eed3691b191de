//! What a migration consists of, and how it violates the format.
//!
//! An [`Inspector`] is given the bytes of a migration's connections and counts packets, rounds,
//! blocks, and pages that come more than once. Each violation of `docs/wire-format.md` and
//! `docs/migration-stream.md` becomes a [`Finding`] with the byte where it is. Nothing is
//! decompressed, and no packet is kept.
//!
//! [`recording()`] inspects a recorded migration. A running migration is inspected by whoever relays
//! it, as the bytes of each connection come, in pieces of any size:
//!
//! ```
//! use std::time::Duration;
//! use multifd::inspect::Inspector;
//!
//! # fn example(main: [&[u8]; 2], channel: &[u8]) {
//! let mut inspector = Inspector::new();
//! let number = inspector.connect();
//! let [mut setup, mut rest] = main;
//! // The list of RAM blocks is in it. Only after it come packets, with pages of those blocks.
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
