//! One channel's two sides as machines: no IO, no clock, no thread.
//!
//! A machine says what it needs next, is told what has happened, and says what has come of it.
//! Whoever owns the connection moves the bytes, as many at a time as it likes.
//!
//! ```text
//! source                                     destination
//! SendMachine::new ───── initial packet ───→ Opening → Opened::Channel, RecvMachine::new
//! pages, encode ──────── packet, payload ──→ Admit → place → Received::Pages
//! sync ───────────────── SYNC packet ──────→ Received::Sync: wait for the main channel
//! finish, close ──────── end of stream ────→ Received::End
//! ```
//!
//! [`Framing`] is the receiving side's packets alone, for whoever only looks at them. A relay stands
//! between a destination's side and a source's and holds no RAM: pages pass through a
//! [`PacketBuffer`]. [`memory`] drives both machines over bytes in memory.

mod buffer;
mod framing;
pub mod memory;
mod opening;
mod recv;
mod send;
mod stats;

pub use buffer::PacketBuffer;
pub use framing::{Frame, Framing, Wanted};
pub use opening::{MAIN_MAGIC, Opened, Opening};
pub use recv::{Received, RecvMachine, RecvNext, Target};
pub use send::{Part, Parts, SendConfig, SendMachine, SendNext};
pub use stats::{ChannelCounters, ChannelStats};
