//! The whole suite.

multifd_conformance::suite!(multifd_lz4::DESCRIPTOR);
