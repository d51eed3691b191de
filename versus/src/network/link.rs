//! An emulated link: two network namespaces that a pair of devices joins, each of which sends at the
//! link's speed at most.
//!
//! As root, or in a user namespace. Everything goes with the processes that hold the namespaces, which
//! end with this one, however it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::error::Error;
use crate::setting::Rate;

/// The source's address.
pub(super) const SOURCE: &str = "192.0.2.1";
/// The destination's address.
pub(super) const DESTINATION: &str = "192.0.2.2";

/// The devices' names.
const DEVICES: [&str; 2] = ["source", "destination"];

#[derive(Debug)]
pub(super) struct Link {
    source: Namespace,
    destination: Namespace,
}

/// A network namespace, held by a process that waits for the end of its stdin.
#[derive(Debug)]
struct Namespace {
    holder: Child,
    /// Whether it is in a user namespace.
    is_user: bool,
}

/// What limits a device's speed, by its name for `tc` and its arguments.
struct Shaper {
    name: &'static str,
    commands: Vec<String>,
}

impl Link {
    /// # Errors
    /// The system has no such namespaces, no such devices, or nothing that limits their speed.
    pub(super) fn new(rate: Rate) -> Result<Self, Error> {
        let is_user = !rustix::process::geteuid().is_root();
        let new = if is_user { "unshare --user --map-root-user --net" } else { "unshare --net" };
        let source = Namespace::hold(&words(new), is_user)?;
        let mut inside = if is_user { source.enter_user() } else { Vec::new() };
        inside.extend(words("unshare --net"));
        let destination = Namespace::hold(&inside, is_user)?;
        let link = Self { source, destination };
        link.connect()?;
        for (namespace, device) in [&link.source, &link.destination].into_iter().zip(DEVICES) {
            namespace.limit(device, rate)?;
        }
        Ok(link)
    }

    /// The command that runs a program at the source.
    pub(super) fn source(&self) -> Vec<String> {
        self.source.enter()
    }

    /// The command that runs a program at the destination.
    pub(super) fn destination(&self) -> Vec<String> {
        self.destination.enter()
    }

    fn connect(&self) -> Result<(), Error> {
        let [source, destination] = DEVICES;
        let other = self.destination.holder.id();
        self.source
            .run(&format!("ip link add {source} type veth peer name {destination} netns {other}"))
            .map_err(|error| {
                failed("join two network namespaces", &error, "is veth in the kernel?")
            })?;
        let ends = [(&self.source, source, SOURCE), (&self.destination, destination, DESTINATION)];
        for (namespace, device, address) in ends {
            for command in [
                format!("ip address add {address}/30 dev {device}"),
                format!("ip link set {device} up"),
            ] {
                namespace.run(&command).map_err(|error| failed(&command, &error, "see ip(8)"))?;
            }
        }
        Ok(())
    }
}

impl Namespace {
    /// Has `cat` hold the namespace that the command `new` makes.
    fn hold(new: &[String], is_user: bool) -> Result<Self, Error> {
        let doing = "make a network namespace (--link wants root or user namespaces, and unshare and nsenter of \
                     util-linux)";
        let mut holder = Command::new(&new[0])
            .args(&new[1..])
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io(doing))?;
        let mut echo = String::new();
        // It answers once it is there; where it could not be made, it has said why on stderr.
        if let (Some(stdin), Some(stdout)) = (&mut holder.stdin, &mut holder.stdout) {
            _ = stdin.write_all(b"here\n");
            _ = BufReader::new(stdout).read_line(&mut echo);
        }
        let namespace = Self { holder, is_user };
        if echo != "here\n" {
            return Err(Error::Other(format!("cannot {doing}")));
        }
        Ok(namespace)
    }

    /// The command that runs a program here.
    fn enter(&self) -> Vec<String> {
        let mut enter = if self.is_user {
            self.enter_user()
        } else {
            words(&format!("nsenter --target {}", self.holder.id()))
        };
        enter.push("--net".to_owned());
        enter
    }

    /// The command that runs a program in the user namespace.
    fn enter_user(&self) -> Vec<String> {
        words(&format!("nsenter --target {} --user --preserve-credentials", self.holder.id()))
    }

    fn limit(&self, device: &str, rate: Rate) -> Result<(), Error> {
        let mut why = Vec::new();
        for Shaper { name, commands } in shapers(device, rate) {
            match commands.iter().try_for_each(|command| self.run(command).map(drop)) {
                Ok(()) => return Ok(()),
                Err(error) => why.push(format!("sch_{name}: {error}")),
            }
        }
        Err(Error::Other(format!(
            "cannot limit a link to {rate}: {}: it needs tc of iproute2 and one of these kernel modules, or leave --link \
             out",
            why.join("; ")
        )))
    }

    /// Runs a command of whole words here. Returns its stdout, or in one line what it says when it fails.
    fn run(&self, command: &str) -> Result<String, String> {
        let enter = self.enter();
        // ip and tc are not in every user's path.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let output = Command::new(&enter[0])
            .args(&enter[1..])
            .args(words(command))
            .env("PATH", path)
            .output();
        let output = output.map_err(|error| format!("{}: {error}", enter[0]))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(said.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It ends with its stdin; wait does close that.
        _ = self.holder.wait();
    }
}

/// The ways to limit a device's speed, the best first. The bucket is what passes in a millisecond, and
/// two of the largest segments at least.
fn shapers(device: &str, rate: Rate) -> [Shaper; 3] {
    let gigabits = rate.gigabits();
    let burst = rate.bytes_per_millisecond().max(128 << 10);
    let root = format!("tc qdisc replace dev {device} root");
    [
        Shaper {
            name: "tbf",
            commands: vec![format!("{root} tbf rate {gigabits}gbit burst {burst} latency 10ms")],
        },
        Shaper {
            name: "htb",
            commands: vec![
                format!("{root} handle 1: htb default 1"),
                format!(
                    "tc class add dev {device} parent 1: classid 1:1 htb rate {gigabits}gbit burst {burst} quantum 60000"
                ),
            ],
        },
        Shaper { name: "netem", commands: vec![format!("{root} netem rate {gigabits}gbit")] },
    ]
}

fn failed(doing: &str, said: &str, hint: &str) -> Error {
    Error::Other(format!("cannot {doing}: {said}: {hint}"))
}

fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what it left out")]

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_bucket_has_a_millisecond_and_room_for_the_largest_segments() {
        let [tbf, htb, netem] = shapers("source", rate("25G"));
        let expected =
            "tc qdisc replace dev source root tbf rate 25gbit burst 3125000 latency 10ms";
        assert_eq!(tbf.commands, [expected]);
        assert!(htb.commands[1].contains("rate 25gbit burst 3125000"), "{:?}", htb.commands);
        assert_eq!(netem.commands, ["tc qdisc replace dev source root netem rate 25gbit"]);
        assert!(shapers("source", rate("1G"))[0].commands[0].contains("burst 131072"));
    }

    #[test]
    fn both_ends_of_a_link_have_their_address_and_their_speed() {
        let link = match Link::new(rate("10G")) {
            Ok(link) => link,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let ends =
            [(&link.source, SOURCE, DEVICES[0]), (&link.destination, DESTINATION, DEVICES[1])];
        for (namespace, address, device) in ends {
            let addresses = namespace.run(&format!("ip address show dev {device}")).unwrap();
            assert!(addresses.contains(address), "{addresses}");
            // Which of the ways it is depends on the kernel; all say the speed somewhere.
            let [qdiscs, classes] = ["qdisc", "class"]
                .map(|of| namespace.run(&format!("tc {of} show dev {device}")).unwrap());
            assert!((qdiscs.clone() + &classes).contains("10Gbit"), "{qdiscs}{classes}");
        }
    }

    #[test]
    fn where_no_device_can_be_limited_the_modules_are_named_in_one_line() {
        // Outside of any namespace of ours, and without the device.
        let holder = Command::new("true").spawn().unwrap();
        let nowhere = Namespace { holder, is_user: false };
        let error = nowhere.limit("source", rate("10G")).unwrap_err().to_string();
        for said in ["10 Gbit/s", "sch_tbf", "sch_htb", "sch_netem", "--link"] {
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
