//! The matrix of transfers.

use std::collections::HashSet;

use libtest_mimic::Trial;
use multifd_interop::guest::unchanging;
use multifd_interop::matrix::{Case, Direction, LEFT_OUT, LeftOut, cases, short_run};
use multifd_interop::qemu::{Settings, Version};

use crate::common::{
    Tested, as_shown, check_equal, check_says, image, image_ram, receive_whole, send, source,
    to_listen, trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    let cases = cases();
    let short: HashSet<_> = short_run(&cases).into_iter().collect();
    let transfers = cases.into_iter().map(|case| {
        let test = trial(case.to_string(), vec![case.version], move || run(&case));
        test.with_ignored_flag(!short.contains(&case))
    });
    let left_out = LEFT_OUT.iter().flat_map(|left_out| {
        left_out.examples().into_iter().map(move |case| {
            let name = format!("left_out::{}::qemu_{}", left_out.name, case.version);
            trial(name, vec![case.version], move || still_fails(left_out, &case))
        })
    });
    let zero_copy = Version::ALL.map(|version| {
        let name = format!("zero_copy::to_qemu_{version}::a_guest_goes_on_there");
        trial(name, vec![version], move || to_qemu_without_a_copy(version))
    });
    transfers.chain(left_out).chain(zero_copy).collect()
}

fn run(case: &Case) -> Tested {
    match case.direction {
        Direction::FromQemu => from_qemu(case),
        Direction::ToQemu => to_qemu(case),
    }
}

fn from_qemu(case: &Case) -> Tested {
    let folder = tempfile::tempdir()?;
    let mut source = source(case.version, case.version.machine())?;
    receive_whole(&mut source, &case.settings(), case.live, &folder.path().join("vm"))
}

fn to_qemu(case: &Case) -> Tested {
    let image = image(case.version, case.live)?;
    let socket = tempfile::tempdir()?;
    let settings = Settings { zero_pages: Some(case.zero_pages.name()), ..case.settings() };
    let (mut destination, uri) = as_shown(case.version, &image.path(), &settings, &socket)?;
    let send = send(&image.path(), &uri, &settings, &[])?;
    destination.complete_migration()?;
    send.succeed()?;
    let ram = image_ram(&image.path())?;
    check_equal(&ram, &destination.ram()?)?;
    destination.cont()?;
    destination.goes_on()?;
    destination.stop()?;
    check_equal(&unchanging(ram), &unchanging(destination.ram()?))
}

fn to_qemu_without_a_copy(version: Version) -> Tested {
    let image = image(version, false)?;
    let mut destination = to_listen(version, version.machine(), &Settings::default())?;
    let uri = destination.listen_on_a_port("127.0.0.1")?;
    let zero_pages = (!version.has_zero_pages_in_packets()).then_some("legacy");
    let settings = Settings { zero_pages, ..Settings::default() };
    send(&image.path(), &uri, &settings, &["--zero-copy-send", "--no-digests"])?.succeed()?;
    destination.complete_migration()?;
    check_equal(&image_ram(&image.path())?, &destination.ram()?)?;
    destination.cont()?;
    Ok(destination.goes_on()?)
}

/// What is left out fails as the table says, or the table is out of date.
fn still_fails(left_out: &LeftOut, case: &Case) -> Tested {
    for _ in 0..left_out.tries {
        if let Err(error) = run(case) {
            return check_says(&error.to_string(), &[left_out.says]);
        }
    }
    Err(format!("it passes: {case}; so this is out of date: {}", left_out.reason).into())
}
