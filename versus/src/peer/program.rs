//! A program of ours while it runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::codec::Codec;
use crate::cpu;
use crate::error::Error;
use crate::network::Host;

/// A process that says lines on the stream that was piped, stdout or else stderr. It ends when this
/// is dropped.
pub(crate) struct Program {
    child: Child,
    said: BufReader<Box<dyn Read>>,
}

impl Program {
    /// Starts `command`, which pipes either stdout or stderr.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child =
            command.stdin(Stdio::piped()).spawn().map_err(Error::io(format!("run {program}")))?;
        let said: Box<dyn Read> = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), _) => Box::new(stdout),
            (None, Some(stderr)) => Box::new(stderr),
            (None, None) => return Err(Error::Other(format!("{program} has no pipe"))),
        };
        Ok(Self { child, said: BufReader::new(said) })
    }

    /// The address of a `multifd recv`, as soon as it listens.
    pub(crate) fn listening(&mut self) -> Result<String, Error> {
        let line = self.line()?;
        line.strip_prefix("listening on ")
            .map(str::to_owned)
            .ok_or_else(|| Error::Other(format!("multifd: {line}")))
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.said.read_line(&mut line).map_err(Error::io("read what multifd says"))?;
        match line.strip_suffix('\n') {
            Some(line) => Ok(line.to_owned()),
            None => Err(Error::Other("multifd has ended early".to_owned())),
        }
    }

    /// Tells it a line.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Error> {
        let told = self.child.stdin.as_mut().map_or(Ok(()), |stdin| writeln!(stdin, "{line}"));
        told.map_err(Error::io("tell multifd something"))
    }

    /// The CPU time that it has taken since it was started.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        cpu::of_process(self.child.id())
    }

    /// Reads all that it says until it ends. Its CPU time can still be asked for.
    pub(crate) fn rest(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        self.said.read_to_string(&mut text).map_err(Error::io("read what multifd says"))?;
        let id = WaitId::Pid(Pid::from_child(&self.child));
        waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .map_err(|errno| Error::io("wait for multifd")(errno.into()))?;
        Ok(text)
    }

    /// Lets it go on to its end, and wants success.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        _ = self.said.read_to_string(&mut said);
        let status = self.child.wait().map_err(Error::io("wait for multifd"))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Other(format!("multifd ended with {status}: {said}")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails where it has ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A command that runs `program` on a host, by the runner where the codec needs it.
pub(super) fn command(
    program: &std::path::Path,
    host: &Host,
    codec: Codec,
    runner: &str,
) -> Command {
    let runner = runner.split_whitespace().filter(|_| codec == Codec::QplSoftware);
    let mut words = host.enter.iter().map(String::as_str).chain(runner);
    let Some(first) = words.next() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(words).arg(program);
    command
}
