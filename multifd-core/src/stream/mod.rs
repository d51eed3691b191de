//! QEMU's main channel: the migration stream that goes beside the multifd channels.
//!
//! A migration is one main channel and N multifd channels. Nearly all pages travel on the latter.
//! The main channel says what is being migrated (machine, RAM blocks), where each round ends, and
//! carries the state of the devices. It is QEMU's own format, so a source that writes it with
//! [`MainWriter`] can feed a real QEMU, and a destination that reads it with [`MainReader`] can
//! take a VM from one. `docs/migration-stream.md` describes the format; in short:
//!
//! ```text
//! header  CONFIGURATION                         "QEVM", version 3, the machine type
//! START ram: block list [FLUSH] EOS  FOOTER     what will come
//! PART  ram: … [FLUSH] … EOS         FOOTER     any number
//! END   ram: … [FLUSH] EOS           FOOTER     the guest has stopped: its last pages
//! FULL …  EOF  VMDESCRIPTION                    the device state, kept byte for byte
//! ```
//!
//! with a COMMAND (`OPEN_RETURN_PATH`, PING, `SWITCHOVER_START`) between any two sections.
//!
//! # Rounds, sections and syncs
//!
//! What frames what differs by machine type. In recordings of QEMU 7.2 to 11.1:
//!
//! - [`SyncForm::Flush`] (machine types from 8.1): START carries one `MULTIFD_FLUSH`, and so does
//!   the end of every round. A PART is a slice of time and not a round: a slow round runs over
//!   PARTs with no flush at all, and many a PART, and END, have two flushes with nothing between
//!   them, one of them for a round without any page. On every channel there are as many SYNC
//!   packets as there are `MULTIFD_FLUSH` words.
//! - [`SyncForm::EachSection`] (older): no `MULTIFD_FLUSH`. START, every PART and END end in an EOS
//!   that is the sync, so the channels carry one SYNC for each of those sections.
//!
//! An [`Event::Sync`] is therefore what a destination has to count, never an [`Event::BodyEnd`].
//!
//! Nothing here starts a thread or knows what a socket is: everything works over [`std::io::Read`]
//! and [`std::io::Write`]. Nothing a peer sends panics or allocates by a length that it claims.

mod configuration;
pub(crate) mod device_state;
mod error;
mod event;
mod full_section;
mod input;
mod output;
mod ram;
mod reader;
mod return_path;
pub(crate) mod wire;
mod writer;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod tests;

pub use configuration::{Configuration, Subsection, SubsectionData};
pub use error::{StreamError, StreamErrorKind};
pub use event::{Event, Limits};
pub use full_section::FullSection;
pub use ram::{BlockInfo, SyncForm};
pub use reader::MainReader;
pub use return_path::{ReturnMessage, ReturnReader};
pub use writer::MainWriter;
