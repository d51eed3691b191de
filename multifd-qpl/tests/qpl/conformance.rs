//! The whole suite, on every path.

mod auto {
    multifd_conformance::suite!(multifd_qpl::Qpl::default());
}

mod portable {
    use crate::support::on;

    multifd_conformance::suite!(on(multifd_qpl::Path::Portable), heap: elsewhere);
}

mod software {
    use crate::support::{on, without_libqpl};

    multifd_conformance::suite!(
        on(multifd_qpl::Path::Software),
        skip: without_libqpl(),
        heap: elsewhere
    );
}

mod hardware {
    use crate::support::{IMPATIENT, without_hardware};

    multifd_conformance::suite!(
        multifd_qpl::Qpl::new(IMPATIENT),
        skip: without_hardware(),
        heap: elsewhere
    );
}
