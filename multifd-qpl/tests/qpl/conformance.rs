//! The whole suite, on every path.

mod auto {
    use crate::support::{EXCEPT, without_hardware};

    #[global_allocator]
    static HEAP: multifd_conformance::CountedHeap = multifd_conformance::CountedHeap::new();

    multifd_conformance::suite!(
        multifd_qpl::Qpl::default(),
        skip: None,
        except: if without_hardware().is_some() { &[] } else { &EXCEPT },
        heap: elsewhere
    );
}

mod portable {
    use crate::support::on;

    multifd_conformance::suite!(on(multifd_qpl::Path::Portable), heap: elsewhere);
}

mod portable_fast {
    use multifd_qpl::Level;

    multifd_conformance::suite!(crate::support::at(Level::Fast), heap: elsewhere);
}

mod portable_balanced {
    use multifd_qpl::Level;

    multifd_conformance::suite!(crate::support::at(Level::Balanced), heap: elsewhere);
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
    use crate::support::{EXCEPT, IMPATIENT, without_hardware};

    multifd_conformance::suite!(
        multifd_qpl::Qpl::new(IMPATIENT),
        skip: without_hardware(),
        except: &EXCEPT,
        heap: elsewhere
    );
}
