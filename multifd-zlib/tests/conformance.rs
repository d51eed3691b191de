//! The whole suite.

use multifd_core::codec::PacketMethods;
use multifd_zlib::Zlib;

multifd_conformance::suite!(PacketMethods::new(Zlib::new()));
