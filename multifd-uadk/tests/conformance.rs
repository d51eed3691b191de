//! The whole suite.

use multifd_core::codec::PageMethods;
use multifd_uadk::Uadk;

multifd_conformance::suite!(PageMethods::new(Uadk::new()));
