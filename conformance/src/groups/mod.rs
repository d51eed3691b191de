//! The groups of cases, a module each.

pub(crate) mod changing_pages;
pub(crate) mod channels;
pub(crate) mod cleanup;
pub(crate) mod descriptor;
pub(crate) mod golden;
pub(crate) mod hostile;
pub(crate) mod independent;
pub(crate) mod memory;
pub(crate) mod payload_bounds;
pub(crate) mod round_trip;
pub(crate) mod zero_pages;
