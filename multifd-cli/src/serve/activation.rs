//! Listening sockets that systemd passes on, by the protocol of `sd_listen_fds`: it listens before the program runs,
//! and where the program may not.

use std::os::fd::OwnedFd;

use libc::{AF_INET, AF_UNIX, AF_VSOCK, SOCK_STREAM};
use listenfd::ListenFd;
use multifd::Listener;

use crate::failure::{Failure, chain};

/// How many sockets are taken: more are a mistake.
const MOST: usize = 64;

/// The sockets that were passed to this process, in the order of its unit; none where it was passed none. Children do
/// not inherit them. To be called once, before any thread is started and any file opened: it changes the environment,
/// and takes descriptors by their numbers.
pub(crate) fn listeners() -> Result<Vec<Listener>, Failure> {
    if !are_passed()? {
        return Ok(Vec::new());
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let mut passed = ListenFd::from_env();
    let count = passed.len();
    let listener = |at| {
        let name = names.next().map_or(String::new(), |name| format!(" ({name})"));
        take(&mut passed, at).map_err(|why| {
            Failure::usage(format!(
                "socket {at}{name} that systemd passes cannot be listened on: {why}; its unit needs ListenStream= and \
                 Accept=no"
            ))
        })
    };
    (0..count).map(listener).collect()
}

/// Whether sockets were passed, and to this process: a child inherits the variables, but not what they mean.
fn are_passed() -> Result<bool, Failure> {
    let variable = |name| std::env::var(name).ok();
    let own = variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let Some(count) = variable("LISTEN_FDS").filter(|_| own) else { return Ok(false) };
    match count.parse::<usize>() {
        Ok(0) => Ok(false),
        Ok(1..=MOST) => Ok(true),
        _ => Err(Failure::usage(format!(
            "LISTEN_FDS={count} is not a number of sockets up to {MOST}; pass fewer"
        ))),
    }
}

/// Takes the socket from its place, and has it closed when this process becomes another program.
fn take(passed: &mut ListenFd, at: usize) -> Result<Listener, String> {
    // AF_INET stands for AF_INET6, too. A socket of another family stays in its place.
    let socket = [AF_INET, AF_UNIX, AF_VSOCK].into_iter().find_map(|family| {
        passed.take_custom::<OwnedFd>(at, family, SOCK_STREAM, "stream socket").ok().flatten()
    });
    let socket = socket.ok_or("it is no stream socket of TCP, Unix or vsock")?;
    Listener::from_fd(socket).map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::process::{Command, Stdio};

    use super::*;

    /// What a child finds, in the environment of one.
    const FINDS: &str = "MULTIFD_TEST_FINDS";

    /// Runs the test `name` of this module again, in a child that is passed these two as descriptors 3 and 4, and is
    /// to find this. `pid` is a shell's word for the process that they are meant for.
    fn pass(sockets: [OwnedFd; 2], pid: &str, name: &str, finds: &str) {
        let [third, fourth] = sockets.map(Stdio::from);
        let script =
            format!("exec 3<&0 4<&1 0</dev/null 1>&2; LISTEN_PID={pid} LISTEN_FDS=2 exec \"$@\"");
        let mut child = Command::new("sh");
        child.args(["-c", &script, "sh"]).arg(std::env::current_exe().unwrap());
        child.args(["--exact", &format!("serve::activation::tests::{name}")]);
        child.env(FINDS, finds).env("LISTEN_FDNAMES", "one:other");
        let child = child.stdin(third).stdout(fourth).stderr(Stdio::piped()).spawn().unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && said.contains("1 passed"), "{said}");
    }

    /// What is found here: where the sockets listen, or why they cannot be listened on.
    fn found(listeners: &Result<Vec<Listener>, Failure>) -> String {
        match listeners {
            Ok(listeners) => {
                let uris = listeners.iter().map(|listener| listener.uri().to_string());
                uris.collect::<Vec<_>>().join(" ")
            }
            Err(failure) => failure.to_string(),
        }
    }

    fn tcp() -> (OwnedFd, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("tcp:{}", listener.local_addr().unwrap());
        (listener.into(), uri)
    }

    #[test]
    fn sockets_that_systemd_passes_are_taken_in_their_order_and_closed_to_children() {
        if let Ok(finds) = std::env::var(FINDS) {
            let listeners = listeners();
            assert_eq!(found(&listeners), finds);
            for fd in [3, 4] {
                let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
                assert_ne!(flags & libc::O_CLOEXEC, 0, "{fd}: {info}");
            }
            assert!(std::env::var_os("LISTEN_FDS").is_none());
            assert!(super::listeners().unwrap().is_empty(), "they are taken once");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let unix = UnixListener::bind(&path).unwrap();
        let (tcp, uri) = tcp();
        let name = "sockets_that_systemd_passes_are_taken_in_their_order_and_closed_to_children";
        pass([unix.into(), tcp], "$$", name, &format!("unix:{} {uri}", path.display()));
    }

    #[test]
    fn sockets_that_another_process_was_passed_are_left_alone() {
        if let Ok(finds) = std::env::var(FINDS) {
            return assert_eq!(found(&listeners()), finds);
        }
        let name = "sockets_that_another_process_was_passed_are_left_alone";
        pass([tcp().0, tcp().0], "1", name, "");
    }

    #[test]
    fn what_cannot_be_listened_on_is_refused_by_its_name() {
        if let Ok(finds) = std::env::var(FINDS) {
            let found = found(&listeners());
            assert!(found.contains(&finds) && found.contains("Accept=no"), "{found}");
            return;
        }
        let name = "what_cannot_be_listened_on_is_refused_by_its_name";
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let datagrams = UnixDatagram::unbound().unwrap();
        let file = File::open("/dev/null").unwrap();
        for (other, why) in [
            (
                OwnedFd::from(connected),
                "taking a listening socket over failed: it is not a listening",
            ),
            (datagrams.into(), "it is no stream socket"),
            (file.into(), "it is no stream socket"),
        ] {
            let finds =
                format!("socket 1 (other) that systemd passes cannot be listened on: {why}");
            pass([tcp().0, other], "$$", name, &finds);
        }
    }
}
