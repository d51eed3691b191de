//! What the program wants of threads.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use multifd::relay::Relay;
use multifd::{Destination, Error, PageSet, Source, Threads};

use crate::common::{any_port, guest, provide};
use crate::registry;

/// Threads that note their names first, and what has been noted.
fn noting(prefix: &str) -> (Threads, Arc<Mutex<BTreeSet<String>>>) {
    let names: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let noted = Arc::clone(&names);
    let note = move |name: &str| {
        assert_eq!(std::thread::current().name(), Some(name));
        noted.lock().unwrap().insert(name.to_owned());
        Ok(())
    };
    (Threads::new().prefix(prefix).first(note), names)
}

#[test]
fn every_thread_has_the_prefix_and_does_first_what_is_asked() {
    let (at_source, source_names) = noting("s-");
    let (at_relay, relay_names) = noting("r-");
    let (at_destination, destination_names) = noting("d-");
    let destination =
        Destination::builder(registry()).threads(at_destination).listen(&any_port()).unwrap();
    let relay = Relay::builder(registry()).threads(at_relay);
    let relay = relay.listen(&any_port(), destination.uri()).unwrap();
    let uri = relay.uri().clone();
    let relayed = std::thread::spawn(move || relay.run());
    let sent = std::thread::spawn(move || {
        let ram = guest();
        let source = Source::builder(registry(), Arc::clone(&ram)).threads(at_source);
        source.connect(&uri)?.finish(&PageSet::all(&ram), None)
    });
    destination.receive(provide).unwrap().confirm().unwrap();
    sent.join().unwrap().unwrap();
    relayed.join().unwrap().unwrap();
    let names = |names: &Mutex<BTreeSet<String>>| {
        names.lock().unwrap().iter().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&source_names), "s-return s-send-0 s-send-1 s-watch");
    assert_eq!(names(&relay_names), "r-accept r-recv r-return r-send-0 r-send-1 r-watch");
    assert_eq!(names(&destination_names), "d-accept d-recv d-watch");
}

#[test]
fn what_fails_or_panics_first_fails_the_migration_with_the_threads_name() {
    for panics in [false, true] {
        for role in ["x-watch", "x-accept", "x-recv"] {
            let first = move |name: &str| match name == role {
                true if panics => panic!("a test's"),
                true => Err(std::io::Error::other("not permitted")),
                false => Ok(()),
            };
            let threads = Threads::new().prefix("x-").first(first);
            let listening = Destination::builder(registry()).threads(threads).listen(&any_port());
            let received = listening.and_then(|destination| {
                let uri = destination.uri().clone();
                // It may be over before anybody connects.
                let sent = std::thread::spawn(move || {
                    let ram = guest();
                    let source = Source::builder(registry(), Arc::clone(&ram)).connect(&uri)?;
                    source.finish(&PageSet::all(&ram), None)
                });
                let received = destination.receive(provide);
                sent.join().unwrap().unwrap_err();
                received
            });
            let error = received.unwrap_err();
            assert!(matches!(&error, Error::Thread { name, .. } if name == role), "{error}");
        }
    }
}
