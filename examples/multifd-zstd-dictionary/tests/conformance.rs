//! The whole suite.

use multifd_core::codec::PageMethods;
use multifd_zstd_dictionary::ZstdDictionary;

multifd_conformance::suite!(PageMethods::new(ZstdDictionary::new(
    *b"the kernel's page of memory at "
)));
