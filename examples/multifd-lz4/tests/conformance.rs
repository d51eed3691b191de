//! The whole suite.

use multifd_core::codec::PageMethods;
use multifd_lz4::Lz4;

multifd_conformance::suite!(PageMethods::new(Lz4::new()));
