//! Codecs that are right pass, and what the suite makes of them is what its list says.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use multifd_conformance::{Case, CaseReport, Outcome, cases};
use multifd_core::none::Plain;
use multifd_core::{
    Availability, ChannelConfig, Compression, Error, MethodDescriptor, MultiFdMethods, RecvMethod,
    SendMethod, async_trait,
};

use crate::{rle, zlib};

mod none {
    multifd_conformance::suite!(multifd_core::none::Plain);
}

mod right_rle {
    multifd_conformance::suite!(crate::rle::rle(crate::rle::Fault::None), heap: elsewhere);
}

mod right_zlib {
    multifd_conformance::suite!(crate::zlib::RIGHT.methods(), heap: elsewhere);
}

mod right_qpl {
    multifd_conformance::suite!(crate::qpl::RIGHT.methods(), heap: elsewhere);
}

mod right_zstd {
    multifd_conformance::suite!(crate::zstd::RIGHT.methods(), heap: elsewhere);
}

#[test]
fn every_case_is_a_test_and_every_test_a_case() {
    let listed = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for codec in ["none", "right_qpl", "right_rle", "right_zlib", "right_zstd"] {
        let prefix = format!("conforming::{codec}::");
        let tests: BTreeSet<_> = listed
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix)?.strip_suffix(": test"))
            .map(str::to_owned)
            .collect();
        let table: BTreeSet<_> = cases().iter().map(|case| format!("{case:?}")).collect();
        assert_eq!(tests, table);
    }
}

#[test]
fn a_report_holds_every_case_and_the_observer_sees_each() {
    let mut seen = Vec::new();
    let none: Arc<dyn MultiFdMethods> = Arc::new(Plain);
    let report = multifd_conformance::run(&none, |case| seen.push(case.name()));
    assert!(report.conforms());
    assert_eq!((report.codec(), report.compression()), ("none", Compression::None));
    let names: Vec<_> = report.cases().iter().map(CaseReport::name).collect();
    assert_eq!(names, seen);
    assert_eq!(names, cases().iter().map(Case::name).collect::<Vec<_>>());
    // Pages as they are need no other decoder.
    let skipped = report.cases().len() - report.passed();
    assert!((1..=12).contains(&skipped), "{skipped} cases do not apply");
}

#[test]
fn only_what_does_not_apply_to_a_codec_is_skipped() {
    let skipped = |codec: Arc<dyn MultiFdMethods>| -> BTreeSet<String> {
        let applies = |outcome: &Outcome| !matches!(outcome, Outcome::NotApplicable(_));
        cases()
            .iter()
            .filter(|case| {
                let group = case.group().to_string();
                matches!(group.as_str(), "golden" | "independent" | "descriptor")
                    && !applies(case.run(&codec).outcome())
            })
            .map(|case| case.group().to_string())
            .collect()
    };
    assert_eq!(skipped(Arc::new(zlib::RIGHT.methods())), BTreeSet::new());
    let of_rle = ["descriptor", "golden", "independent"].map(str::to_owned);
    assert_eq!(skipped(Arc::new(rle::rle(rle::Fault::None))), of_rle.into());
}

/// A codec of a device that is not there.
#[derive(Debug)]
struct Absent;

#[async_trait]
impl MultiFdMethods for Absent {
    fn descriptor(&self) -> MethodDescriptor {
        MethodDescriptor::new("absent", "a toy", Compression::Private(rle::PRIVATE))
    }

    fn probe(&self) -> Availability {
        Availability::Unavailable("no such device".to_owned())
    }

    async fn send_setup(&self, _: &ChannelConfig) -> Result<Box<dyn SendMethod>, Error> {
        Err(Error::backend("set up though it is not available"))
    }

    async fn recv_setup(&self, _: &ChannelConfig) -> Result<Box<dyn RecvMethod>, Error> {
        Err(Error::backend("set up though it is not available"))
    }
}

fn absent() -> Arc<dyn MultiFdMethods> {
    Arc::new(Absent)
}

#[test]
fn a_codec_that_is_not_available_does_not_conform_and_says_why() {
    let report = multifd_conformance::run(&absent(), |_| {});
    assert!(!report.conforms());
    for case in report.cases() {
        let Outcome::NotApplicable(reason) = case.outcome() else { panic!("{case}") };
        assert!(reason.contains("no such device"), "{case}");
    }
}

#[test]
#[should_panic(expected = "no such device")]
fn a_test_of_a_codec_that_is_not_available_fails() {
    let case = cases()[0];
    let module = format!("{case:?}");
    let module = module.split("::").next().unwrap();
    multifd_conformance::prove(&absent(), (module, case.name()), &[]);
}
