//! The whole suite.

use multifd_core::codec::PacketMethods;
use multifd_qatzip::Qatzip;

multifd_conformance::suite!(PacketMethods::new(Qatzip::new()));
