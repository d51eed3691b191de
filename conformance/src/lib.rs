#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod case;
pub mod ends;
mod groups;
mod harness;
pub mod made_up;
mod recording;
mod report;
mod suite;

pub use case::{Case, Group, cases, run};
pub use recording::{Recording, recordings};
pub use report::{CaseReport, Outcome, Report};

#[doc(hidden)]
pub use multifd_core::MethodDescriptor;
#[doc(hidden)]
pub use suite::prove;
