//! A disk that is full, a limit of a file's size, and an image that is not what it was.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, Fault, Side, copy};
use crate::running::Running;
use crate::{Case, Cases, NoCases};

/// Sizes of the disk in KiB, with the old image on it: none that is too large to be full at some point
/// but the last.
const DISKS: [u64; 10] = [1560, 1600, 1800, 2200, 2600, 2900, 3050, 3100, 3150, 8000];

/// Sizes of files in blocks of 512 bytes.
const FILES: [u64; 6] = [0, 1, 8, 100, 2000, 4090];

pub(crate) fn cases(_bench: &Bench, quick: bool) -> Cases {
    let probe = Command::new("unshare")
        .args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .stderr(std::process::Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        let why = "unshare may make no namespaces here (a full tmpfs)";
        return Err(NoCases::CannotBeHad(why.to_owned()));
    }
    let mut cases = Vec::new();
    for kib in DISKS.into_iter().skip(if quick { 7 } else { 0 }) {
        let name = format!("disk/full/{kib}");
        cases.push(Case::new(name, "disk full", Side::Destination, move |bench| full(bench, kib)));
    }
    for blocks in FILES.into_iter().skip(if quick { 4 } else { 0 }) {
        let name = format!("disk/limit/{blocks}");
        cases.push(Case::new(name, "file size limit", Side::Destination, move |bench| {
            let limited = r#"ulimit -f "$0"; exec "$@""#;
            let blocks = blocks.to_string();
            let wrapper = ["bash", "-c", limited, &blocks].map(str::to_owned).to_vec();
            // Its words go to a file, too.
            bench.breaks(&Fault {
                wrapper,
                may_be_early: blocks == "0",
                ..Fault::at(Side::Destination)
            })
        }));
    }
    Ok(cases)
}

/// The destination's image is on a disk of so many KiB, which is copied out when it has ended.
fn full(bench: &Bench, kib: u64) -> Result<(), String> {
    const INSIDE: &str = r#"set -e
size=$1 run=$2; shift 2
mkdir "$run/disk"
mount -t tmpfs -o size="$size"k tmpfs "$run/disk"
cp -r "$run/vm" "$run/disk/vm" || exit 77
code=0; "$@" || code=$?
rm -r "$run/vm"; cp -r "$run/disk/." "$run/"
exit $code"#;
    let run = bench.run_folder().map_err(|error| error.to_string())?;
    let to = format!("unix:{}", run.join("to").display());
    let mut command = Command::new("unshare");
    command.args(["-rm", "bash", "-c", INSIDE, "disk", &kib.to_string()]).arg(&run);
    command.arg(&bench.program).args(["recv", "--force", "--listen", &to, "--to"]);
    command.arg(run.join("disk/vm"));
    let mut recv = Running::start(&run, "recv", command)?;
    let mut sent = None;
    if recv.listens()? {
        let mut send = Command::new(&bench.program);
        send.arg("send").arg("--from").arg(bench.path("new")).args(["--to", &to]);
        sent = Running::start(&run, "send", send)?.code();
    }
    let code = recv.code();
    let said = recv.said();
    let judged = bench.judge_image(&run, code).and_then(|()| match (code, sent) {
        (Some(0), Some(0)) | (Some(1), Some(1) | None) => Ok(()),
        // The old image alone fills it.
        (Some(77), None) => Ok(()),
        ended => Err(format!("statuses {ended:?}")),
    });
    let is_said =
        code != Some(1) || said.contains("No space left") || said.contains("no storage space");
    let left = fs::read_dir(&run).into_iter().flatten().flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count();
    _ = fs::remove_dir_all(&run);
    match judged {
        Ok(()) if is_said && left == 0 => Ok(()),
        Ok(()) => Err(format!("{left} left; {said}")),
        Err(why) => Err(format!("{why}; {said}")),
    }
}

/// What is done to an image before it is sent.
type Damage = fn(&Path) -> std::io::Result<()>;

const DAMAGES: [(&str, Damage); 6] = [
    ("RAM cut short", |image| cut(&image.join("pc.ram"), 4096 * 100)),
    ("RAM cut to nothing", |image| cut(&image.join("pc.ram"), 0)),
    ("RAM missing", |image| fs::remove_file(image.join("pc.ram"))),
    ("manifest cut short", |image| cut(&image.join("vm.json"), 200)),
    ("device state missing", |image| fs::remove_file(image.join("device-state.bin"))),
    ("device state cut short", |image| cut(&image.join("device-state.bin"), 1)),
];

fn cut(path: &Path, length: u64) -> std::io::Result<()> {
    fs::File::options().write(true).open(path)?.set_len(length)
}

pub(crate) fn image_cases(_bench: &Bench, _quick: bool) -> Cases {
    let cases = DAMAGES.into_iter().enumerate().map(|(index, (what, damage))| {
        Case::new(format!("image/{index}"), format!("image: {what}"), Side::Source, move |bench| {
            let run = bench.run_folder().map_err(|error| error.to_string())?;
            let image = run.join("damaged");
            let damaged = copy(&bench.path("new"), &image).and_then(|()| damage(&image));
            damaged.map_err(|error| error.to_string())?;
            bench.breaks(&Fault { image: Some(image), ..Fault::at(Side::Source) })
        })
    });
    Ok(cases.collect())
}
