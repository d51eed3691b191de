//! The whole suite.

use multifd_core::codec::PacketMethods;
use multifd_zstd::Zstd;

multifd_conformance::suite!(PacketMethods::new(Zstd::new()));
