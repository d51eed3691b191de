#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

mod case;
pub mod ends;
mod groups;
mod harness;
mod heap;
pub mod made_up;
mod recording;
mod report;
mod suite;

pub use case::{Case, Group, cases, run};
pub use heap::CountedHeap;
pub use recording::{Recording, recordings};
pub use report::{CaseReport, Outcome, Report};

#[doc(hidden)]
pub use multifd_core::MultiFdMethods;
#[doc(hidden)]
pub use suite::prove;
