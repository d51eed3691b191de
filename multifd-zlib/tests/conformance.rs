//! The whole suite.

multifd_conformance::suite!(multifd_zlib::DESCRIPTOR);
