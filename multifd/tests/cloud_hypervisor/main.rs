//! VMs that Cloud Hypervisor hands over, and takes: against a peer that follows its protocol byte for byte, on both sides.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the program's tests use the rest")]
mod peer;

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use multifd::cloud_hypervisor::{CloudHypervisorError, Handed, Limits, Memory, give, take};
use multifd::core::ram::{Ram, RamBlock};
use multifd::core::vm_memory::{FileOffset, MmapRegion};
use multifd::core::{Compression, PageSize};
use multifd::{Arrived, Destination, PageSet, Source};

use common::{any_port, registry};
use peer::{Machine, Seat, Sent, socket};

/// Long enough for a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.message = LONG;
    limits
}

/// The slots' memory, mapped.
fn map(handed: &Handed) -> Arc<Ram> {
    let blocks = handed.slots().iter().map(|slot| {
        let file = FileOffset::new(slot.file.try_clone().unwrap(), slot.offset);
        let bytes = slot.info.bytes as usize;
        let region =
            MmapRegion::<()>::build(Some(file), bytes, libc::PROT_READ, libc::MAP_SHARED).unwrap();
        RamBlock::new(slot.info.name.clone(), region)
    });
    Arc::new(Ram::new(PageSize::Kib4, blocks).unwrap())
}

/// A VM that is handed over, and what becomes of that at the peer.
fn handed(machine: &Machine) -> (Handed, thread::JoinHandle<Sent>) {
    let (near, far) = UnixStream::pair().unwrap();
    let machine = machine.clone();
    let sent = thread::spawn(move || Seat(far).send(&machine));
    (take(near, &limits()).unwrap(), sent)
}

#[test]
fn a_vm_goes_from_one_cloud_hypervisor_through_channels_to_another() {
    for (was_running, compression) in
        [(true, Compression::Zstd), (false, Compression::None), (true, Compression::Qpl)]
    {
        let mut machine = Machine::new();
        machine.was_running = was_running;
        let (handed, sent) = handed(&machine);
        assert_eq!(handed.was_running(), was_running);
        let ram = map(&handed);
        let registry = registry();
        let setup = Destination::builder(&registry).compression(compression);
        let destination = setup.listen(&any_port()).unwrap();
        let uri = destination.uri().clone();
        let far_side = thread::spawn(move || {
            let mut memory = None;
            let arrived: Arrived = destination
                .receive(|incoming| {
                    let own =
                        Memory::new(incoming.early_state, incoming.blocks, incoming.page_size);
                    let own = memory.insert(own.map_err(multifd::Error::caller)?);
                    Ok(Arc::clone(own.ram()))
                })
                .unwrap();
            let (near, far) = UnixStream::pair().unwrap();
            let taken = thread::spawn(move || Seat(far).receive());
            give(near, &arrived.vm, &memory.unwrap(), LONG).unwrap();
            // Only now the source may give it up.
            arrived.confirm().unwrap();
            taken.join().unwrap()
        });
        let vm = handed.vm();
        let setup = Source::builder(&registry, Arc::clone(&ram))
            .compression(compression)
            .configuration(vm.configuration.clone())
            .section_id(vm.section_id)
            .early_state(vm.early_state.clone());
        let mut source = setup.connect(&uri).unwrap();
        source.round(&PageSet::all(&ram)).unwrap();
        assert!(!sent.is_finished(), "it still has the VM");
        source.finish(&PageSet::none(&ram), Some(&vm.device_state)).unwrap();
        handed.accept().unwrap();
        assert_eq!(sent.join().unwrap(), Sent::GivenUp);
        assert_eq!(far_side.join().unwrap(), machine);
    }
}

#[test]
fn a_vm_that_is_refused_or_dropped_or_whose_taker_goes_away_stays() {
    let refuse: [fn(Handed); 2] = [Handed::refuse, drop];
    for refuse in refuse {
        let (handed, sent) = handed(&Machine::new());
        refuse(handed);
        assert_eq!(sent.join().unwrap(), Sent::Refused);
    }
}

#[test]
fn one_that_does_not_wait_any_more_is_noticed_before_the_vm_is_given_up() {
    for says_so in [true, false] {
        let (near, far) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || Seat(far).abandon(&Machine::new(), says_so));
        let handed = take(near, &limits()).unwrap();
        let began = Instant::now();
        let error = loop {
            match handed.check() {
                Ok(()) => assert!(began.elapsed() < LONG),
                Err(error) => break error,
            }
        };
        match says_so {
            true => assert!(matches!(error, CloudHypervisorError::Abandoned), "{error}"),
            false => assert!(matches!(error, CloudHypervisorError::Closed(_)), "{error}"),
        }
        drop(handed);
        peer.join().unwrap();
    }
}

/// What taking the VM ends with where the peer says `bytes`, with these descriptors, and stays.
fn taken(say: impl FnOnce(&Seat) + Send + 'static) -> (CloudHypervisorError, Vec<u16>) {
    let (near, far) = UnixStream::pair().unwrap();
    let peer = thread::spawn(move || {
        let seat = Seat(far);
        say(&seat);
        seat.answers()
    });
    let error = take(near, &limits()).unwrap_err();
    (error, peer.join().unwrap())
}

#[test]
fn what_is_not_as_the_protocol_has_it_is_refused_by_what_it_is() {
    type Says = fn(&Seat);
    let cases: [(Says, &str); 17] = [
        (|seat| seat.request(1, 1, 0), "version 1"),
        (|seat| seat.request(2, 0, 0), "Config where Start is expected"),
        (|seat| seat.request(0, 0, 0), "no command 0"),
        (|seat| seat.request(77, 0, 0), "no command 77"),
        (|seat| seat.start().request(4, 0, 16), "local=on"),
        (|seat| seat.start().request(9, 0, 16), "PageFault where"),
        (|seat| seat.start().request(3, 0, 2), "State where MemoryFd or Config"),
        (|seat| seat.start().request(5, 0, 0), "Complete where MemoryFd or Config"),
        (|seat| seat.start().request(2, 0, 1 << 40), "at most 16777216"),
        (|seat| seat.start().request(7, 0, 8), "MemoryFd has 8 bytes"),
        (|seat| seat.start().memory(0, &[]), "slot 0 came without"),
        (|seat| seat.start().memory(0, &[socket(), socket()]), "more than one descriptor"),
        (
            |seat| seat.start().slots(&Machine::new(), 1).config(&Machine::new()),
            "slot 1 has not come",
        ),
        (
            |seat| seat.start().slots(&Machine::new(), 2).memory(0, &[Machine::new().memory(0)]),
            "slot 0 came already",
        ),
        (
            |seat| {
                let machine = Machine::new();
                seat.start().slots(&machine, 2).memory_ok(9, machine.memory(0)).config(&machine);
            },
            "slot 9 is not in the VM's configuration",
        ),
        (
            |seat| {
                let machine = Machine::new();
                let short = machine.memory(1);
                short.set_len(4096).unwrap();
                seat.start().slots(&machine, 1).memory_ok(1, short).config(&machine);
            },
            "slot 1 has 4096 bytes, but",
        ),
        (
            |seat| {
                let machine = Machine::new();
                seat.start().slots(&machine, 1).memory_ok(1, socket()).config(&machine);
            },
            "slot 1 is no memory",
        ),
    ];
    for (says, why) in cases {
        let (error, answers) = taken(says);
        assert!(error.to_string().contains(why), "{error} and not {why}");
        assert_eq!(answers.last(), Some(&2), "{why}: it hears that it is refused");
        assert_eq!(answers.iter().filter(|&&answer| answer == 2).count(), 1, "{why}");
    }
    let (error, _) = taken(|seat| seat.start().raw_config(b"{}"));
    assert!(error.to_string().contains("memory_manager_data"), "{error}");
}

#[test]
fn an_abandoned_migration_is_said_to_be_one_and_answered() {
    let (error, answers) = taken(|seat| seat.start().request(6, 0, 0));
    assert!(matches!(error, CloudHypervisorError::Abandoned));
    assert_eq!(answers, [1]);
}

#[test]
fn a_peer_that_closes_anywhere_leaves_no_vm_behind_and_is_named() {
    let whole = Seat::transcript(&Machine::new());
    for end in 0..whole.len() {
        let (near, mut far) = UnixStream::pair().unwrap();
        // Descriptors are not part of it: with a memory that comes without one it ends as well.
        far.write_all(&whole[..end]).unwrap();
        drop(far);
        let error = take(near, &limits()).unwrap_err();
        let is_named = matches!(
            error,
            CloudHypervisorError::Closed(_) | CloudHypervisorError::Slot { slot: 0, .. }
        );
        assert!(is_named, "{end}: {error}");
    }
    // After each message, with descriptors.
    for messages in 0..Seat::MESSAGES {
        let (near, far) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || Seat(far).send_some(&Machine::new(), messages));
        let error = take(near, &limits()).unwrap_err();
        assert!(matches!(error, CloudHypervisorError::Closed(_)), "{messages}: {error}");
        peer.join().unwrap();
    }
}

#[test]
fn a_peer_that_says_nothing_or_a_byte_at_a_time_has_its_time() {
    let mut limits = Limits::default();
    limits.message = Duration::from_millis(200);
    let (near, far) = UnixStream::pair().unwrap();
    let began = Instant::now();
    let error = take(near, &limits).unwrap_err();
    assert!(matches!(error, CloudHypervisorError::Silent { .. }), "{error}");
    drop(far);
    let (near, mut far) = UnixStream::pair().unwrap();
    let slow = thread::spawn(move || {
        while far.write_all(&[1]).is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let error = take(near, &limits).unwrap_err();
    assert!(matches!(error, CloudHypervisorError::Silent { .. }), "{error}");
    assert!(began.elapsed() < LONG);
    slow.join().unwrap();
}

/// A VM with its memory, as it has arrived.
fn arrived() -> (multifd::Vm, Memory) {
    let (handed, sent) = handed(&Machine::new());
    let vm = handed.vm().clone();
    let memory = Memory::new(&vm.early_state.before_start, &vm.blocks, PageSize::Kib4).unwrap();
    let from = map(&handed);
    for (from, to) in from.blocks().iter().zip(memory.ram().blocks()) {
        let mut bytes = vec![0; from.bytes() as usize];
        from.slice(0, bytes.len()).copy_to(&mut bytes[..]);
        to.write(0, &bytes);
    }
    handed.refuse();
    sent.join().unwrap();
    (vm, memory)
}

#[test]
fn one_that_refuses_or_closes_after_any_message_is_said_to_and_only_after_the_last_it_is_unclear() {
    let (vm, memory) = arrived();
    for messages in 0..Seat::MESSAGES {
        for refuses in [true, false] {
            let (near, far) = UnixStream::pair().unwrap();
            let peer = thread::spawn(move || Seat(far).receive_some(messages, refuses));
            let error = give(near, &vm, &memory, LONG).unwrap_err();
            peer.join().unwrap();
            let is_last = messages + 1 == Seat::MESSAGES;
            assert_eq!(error.is_unclear(), is_last && !refuses, "{messages} {refuses}: {error}");
            match error {
                CloudHypervisorError::Refused(_) => assert!(refuses),
                CloudHypervisorError::Closed(_) | CloudHypervisorError::Unclear(_) => {
                    assert!(!refuses);
                }
                other => panic!("{messages} {refuses}: {other}"),
            }
        }
    }
}

#[test]
fn memory_is_for_a_vm_of_cloud_hypervisors_alone() {
    let (vm, _) = arrived();
    let early_state = &vm.early_state.before_start;
    for (early_state, blocks, page_size) in [
        (&[][..], &vm.blocks[..], PageSize::Kib4),
        (early_state, &vm.blocks[1..], PageSize::Kib4),
        (early_state, &vm.blocks[..], PageSize::Kib16),
    ] {
        let error = Memory::new(early_state, blocks, page_size).unwrap_err();
        assert!(matches!(error, CloudHypervisorError::OtherVm(_)), "{error}");
    }
}

#[test]
fn no_descriptor_is_left_open_whatever_comes() {
    if !common::is_alone("no_descriptor_is_left_open_whatever_comes") {
        return;
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..50 {
        taken(|seat| seat.start().memory(0, &[socket(), socket(), socket()]));
        drop(arrived());
    }
    assert_eq!(open(), before);
    drop(File::open("/dev/null").unwrap());
}
