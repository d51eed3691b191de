//! QEMU's main channel: the migration stream that goes beside the multifd channels.
//!
//! A migration is one main channel and N multifd channels. Nearly all pages travel on the latter.
//! The main channel says what is being migrated (machine, RAM blocks), where each round ends, and
//! carries the state of the devices. It is QEMU's own format, so a source that encodes it with
//! [`MainEncoder`] can feed a real QEMU, and a destination that decodes it with [`MainDecoder`] can
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
//! with a COMMAND (`OPEN_RETURN_PATH`, PING, `POSTCOPY_ADVISE`, `SWITCHOVER_START`) between any two sections.
//! Some devices send a FULL section early: directly before START (QEMU 11.1) or behind it (10.0).
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
//! An [`MainEvent::Sync`] is therefore what a destination has to count, never an [`MainEvent::BodyEnd`].
//!
//! # Without IO
//!
//! Nothing here reads or writes, waits or starts a thread: a [`MainDecoder`] and a [`ReturnDecoder`]
//! are given bytes as they come, in pieces of any size, and a [`MainEncoder`] gives bytes that are to
//! be written. Nothing a peer sends panics or allocates by a length that it claims.

mod body;
mod configuration;
mod configuration_decoder;
mod decoder;
mod described_digests;
mod device_state;
mod early;
mod encoder;
mod error;
mod event;
mod full_section;
mod input;
mod mapped_ram;
mod postcopy;
mod ram;
mod return_path;
mod start;
mod wire;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod tests;

pub use configuration::{Configuration, Subsection, SubsectionData};
pub use decoder::MainDecoder;
pub use device_state::split_description;
pub use encoder::MainEncoder;
pub use error::{StreamError, StreamErrorKind};
pub use event::{Limits, MainEvent};
pub use full_section::FullSection;
pub use mapped_ram::MappedBlock;
pub use postcopy::PostcopyAdvise;
pub use ram::{BlockInfo, SyncForm};
pub use return_path::{ReturnDecoder, ReturnMessage};
pub use wire::section;

const AFTER_AN_ERROR: StreamErrorKind =
    StreamErrorKind::Misuse("the stream was read on after an error");
