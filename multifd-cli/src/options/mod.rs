//! Options that several commands have. Nothing here depends on a command.

pub(crate) mod admission;
pub(crate) mod codec;
pub(crate) mod cpu;
pub(crate) mod device_state;
pub(crate) mod limits;
pub(crate) mod store;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod verbosity;
pub(crate) mod zstd;
