//! One channel's loop, over any stream.
//!
//! ```text
//! source                                     destination
//! SendChannel::open ──── initial packet ───→ read_initial, RecvChannel::new
//! send_pages ─────────── packet, payload ──→ next → Received::Pages
//! send_sync ──────────── SYNC packet ──────→ next → Received::Sync: wait for the main channel
//! finish, close ─────── end of stream ─────→ next → Received::End
//! ```
//!
//! A relay stands between the two and holds no RAM: it receives with `next_into` a [`PacketBuffer`]
//! and sends with `send_buffer`.

mod buffer;
mod recv;
mod send;
mod stats;

pub use buffer::PacketBuffer;
pub use recv::{Received, RecvChannel, read_initial};
pub use send::{SendChannel, SendConfig};
pub use stats::{ChannelCounters, ChannelStats};
