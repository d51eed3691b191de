use qpl_sys::{OpenError, Version};

use crate::doctor::finding::Level;
use crate::doctor::judge::judge;
use crate::doctor::system::{
    Bus, Device, Distribution, Engine, Iommu, Kernel, Kind, Libqpl, Mode, Node, PciDevice, Release,
    State, System, WorkQueue,
};

/// A machine with one IAA and one queue, without a problem.
fn well() -> System {
    let queue = WorkQueue {
        name: "wq1.0".to_owned(),
        number: 0,
        state: State::Enabled,
        kind: Kind::User,
        mode: Mode::Shared,
        group: Some(0),
        size: 128,
        threshold: 128,
        block_on_fault: true,
        prs_disable: None,
        driver_name: None,
        node: Node::Allowed,
    };
    let device = Device {
        name: "iax1".to_owned(),
        number: 1,
        state: State::Enabled,
        numa_node: Some(0),
        pasid_enabled: true,
        max_work_queues_size: 128,
        engines: vec![Engine { number: 0, group: Some(0) }],
        queues: vec![queue],
        unread: Vec::new(),
    };
    System {
        distribution: Distribution::default(),
        kernel: Kernel {
            release: Ok(Release { major: 6, minor: 8 }),
            iommu: Ok(Iommu { on: true, scalable: true }),
            raw_io: Ok(true),
        },
        pci: Ok(vec![PciDevice { address: "0000:6a:02.0".to_owned(), driver: None }]),
        bus: Ok(Some(Bus { devices: vec![device], unread: Vec::new() })),
        libqpl: Ok(Libqpl { origin: "libqpl.so.1".to_owned(), version: Version::new(1, 9, 0) }),
        libqpl_named: false,
        accel_config: Some("/usr/lib/libaccel-config.so.1".into()),
        codec: Ok("hardware: libqpl 1.9.0".to_owned()),
        hardware: Ok("hardware: libqpl 1.9.0".to_owned()),
        simulated: None,
    }
}

fn device(system: &mut System) -> &mut Device {
    let Ok(Some(bus)) = &mut system.bus else { panic!("the driver is loaded") };
    &mut bus.devices[0]
}

/// The subjects of the findings of that level.
fn subjects(system: &System, level: Level) -> Vec<&'static str> {
    let findings = judge(system);
    findings
        .iter()
        .filter(|finding| finding.level == level)
        .map(|finding| finding.subject)
        .collect()
}

#[test]
fn in_every_state_of_a_queue_there_is_a_problem_unless_it_can_be_used() {
    let states = [State::Enabled, State::Disabled];
    let nodes = [Node::Allowed, Node::Missing, Node::Denied, Node::Failed("why".to_owned())];
    for (device_state, state) in states.iter().flat_map(|&d| states.map(|q| (d, q))) {
        for kind in [Kind::None, Kind::Kernel, Kind::User] {
            for mode in [Mode::Shared, Mode::Dedicated] {
                for (group, size) in [(Some(0), 128), (Some(1), 128), (None, 128), (Some(0), 0)] {
                    for node in nodes.clone() {
                        let mut system = well();
                        let device = device(&mut system);
                        device.state = device_state;
                        let queue = &mut device.queues[0];
                        (queue.state, queue.kind, queue.mode) = (state, kind, mode);
                        (queue.group, queue.size, queue.node) = (group, size, node.clone());
                        let usable = device_state == State::Enabled
                            && state == State::Enabled
                            && (kind, mode) == (Kind::User, Mode::Shared)
                            && (group, size) == (Some(0), 128)
                            && node == Node::Allowed;
                        let problems = subjects(&system, Level::Problem).len();
                        assert_eq!(problems, usize::from(!usable), "{system:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_queue_that_cannot_be_used_beside_one_that_can_is_no_problem() {
    type Change = fn(&mut WorkQueue);
    let changes: [(Change, Level); 5] = [
        (|queue| queue.kind = Kind::Kernel, Level::Note),
        (|queue| queue.mode = Mode::Dedicated, Level::Note),
        (|queue| queue.state = State::Disabled, Level::Note),
        (|queue| queue.node = Node::Denied, Level::Warning),
        (|queue| queue.group = Some(1), Level::Warning),
    ];
    for (change, level) in changes {
        let mut system = well();
        let device = device(&mut system);
        let usable = device.queues[0].clone();
        let mut queue = WorkQueue { name: "wq1.1".to_owned(), number: 1, ..usable };
        change(&mut queue);
        device.queues.push(queue);
        assert_eq!(subjects(&system, Level::Problem), [""; 0]);
        assert!(subjects(&system, level).contains(&"queue"), "{system:?}");
    }
}

#[test]
fn a_set_up_says_which_other_queues_it_stops() {
    let mut system = well();
    let device = device(&mut system);
    let other = WorkQueue { name: "wq1.1".to_owned(), number: 1, ..device.queues[0].clone() };
    device.queues[0].block_on_fault = false;
    device.queues.push(other);
    let findings = judge(&system);
    let slow = findings.iter().find(|finding| finding.level == Level::Warning).unwrap();
    assert_eq!(slow.remedy[0], "# this also stops wq1.1");
    assert!(slow.remedy[1..].iter().any(|line| line.contains("disable-wq iax1/wq1.1")));
}

#[test]
fn missing_libraries_are_problems_only_where_there_is_a_device() {
    let mut system = well();
    system.libqpl = Err(OpenError::NotFound { reason: "no such file".to_owned() });
    system.accel_config = None;
    assert_eq!(subjects(&system, Level::Problem), ["libqpl", "libaccel-config"]);
    system.bus = Ok(None);
    system.pci = Ok(Vec::new());
    assert_eq!(subjects(&system, Level::Problem), ["iaa"]);
    assert!(subjects(&system, Level::Note).contains(&"libqpl"));
}

#[test]
fn a_finding_about_libqpl_is_not_repeated_for_the_codec() {
    let error = OpenError::NotFound { reason: "no such file".to_owned() };
    let mut system = well();
    system.codec = Ok(format!("portable: built in; {error}"));
    system.libqpl = Err(error.clone());
    let codec = |system: &System| {
        let found = judge(system).into_iter().find(|finding| finding.subject == "codec");
        found.map(|finding| finding.found)
    };
    assert_eq!(codec(&system).as_deref(), Some("codec qpl works here, by portable: built in"));
    system.libqpl = well().libqpl;
    system.hardware = Err("no IAA".to_owned());
    system.codec = Ok("software: libqpl 1.9.0; no IAA".to_owned());
    assert_eq!(codec(&system).as_deref(), Some("codec qpl works here, by software: libqpl 1.9.0"));
    system.libqpl = Err(error.clone());
    system.codec = Err(error.to_string());
    assert!(judge(&system).iter().all(|finding| finding.subject != "codec"));
    system.codec = Err("another reason".to_owned());
    assert!(subjects(&system, Level::Problem).contains(&"codec"));
}

#[test]
fn a_job_that_cannot_be_set_up_is_a_problem_unless_it_follows_from_one() {
    let mut system = well();
    system.hardware = Err("no IAA can be used; see multifd doctor".to_owned());
    assert_eq!(subjects(&system, Level::Problem), ["job"]);
    assert!(!format!("{:?}", judge(&system)).contains("see multifd doctor"));
    system.bus = Ok(None);
    assert_eq!(subjects(&system, Level::Problem), ["driver"]);
}

#[test]
fn while_the_driver_is_missing_the_command_line_is_all_that_is_known_of_svm() {
    let mut system = well();
    system.bus = Ok(None);
    assert_eq!(subjects(&system, Level::Warning), [""; 0]);
    system.kernel.iommu = Ok(Iommu { on: true, scalable: false });
    assert_eq!(subjects(&system, Level::Problem), ["driver"]);
    assert_eq!(subjects(&system, Level::Warning), ["svm"]);
}

#[test]
fn a_device_without_svm_beside_one_with_it_is_a_warning() {
    let mut system = well();
    let Ok(Some(bus)) = &mut system.bus else { panic!("the driver is loaded") };
    let mut other = bus.devices[0].clone();
    (other.name, other.number, other.pasid_enabled) = ("iax3".to_owned(), 3, false);
    bus.devices.push(other);
    assert_eq!(subjects(&system, Level::Problem), [""; 0]);
    assert_eq!(subjects(&system, Level::Warning), ["svm"]);
}

#[test]
fn simulated_devices_are_called_that_and_the_machines_own_are_not_judged() {
    let mut system = well();
    system.pci = Ok(Vec::new());
    system.bus = Ok(None);
    system.accel_config = None;
    system.simulated = Some("0.1.0".to_owned());
    assert_eq!(subjects(&system, Level::Problem), [""; 0]);
    let found: Vec<_> = judge(&system).into_iter().map(|finding| finding.found).collect();
    assert!(found[0].starts_with("simulated (multifd-iaa-sim 0.1.0)"), "{found:?}");
    system.hardware = Err("status 503; see multifd doctor".to_owned());
    assert_eq!(subjects(&system, Level::Problem), ["job"]);
}
