//! The whole suite, on every path.

mod auto {
    multifd_conformance::suite!(multifd_qpl::DESCRIPTOR);
}

mod portable {
    multifd_conformance::suite!(multifd_qpl::Path::Portable.descriptor());
}

mod software {
    use crate::support::without_libqpl;

    multifd_conformance::suite!(
        multifd_qpl::Path::Software.descriptor(),
        skip: without_libqpl()
    );
}

mod hardware {
    use crate::support::{IMPATIENT, without_hardware};

    multifd_conformance::suite!(IMPATIENT.descriptor(), skip: without_hardware());
}
