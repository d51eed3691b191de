//! QMP: QEMU's control channel, a JSON document a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::Error;
use crate::wait::LIMIT;

/// A connection to a QEMU that is ready for commands.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket at `path`. `None` while there is none.
    pub(super) fn connect(path: &Path) -> Result<Option<Self>, Error> {
        match UnixStream::connect(path) {
            Ok(stream) => Self::greet(stream).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn greet(stream: UnixStream) -> Result<Self, Error> {
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.set_patience(LIMIT)?;
        let greeting = qmp.read()?;
        if greeting.get("QMP").is_none() {
            return Err(Error::Protocol(format!("no greeting, but {greeting}")));
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Waits no longer than this for what is to be read or written.
    pub(super) fn set_patience(&mut self, patience: Duration) -> Result<(), Error> {
        let stream = self.stream.get_ref();
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(stream, Some(patience)).map_err(Error::io("set up the QMP socket"))?;
        }
        Ok(())
    }

    /// Executes a command and gives what it returns. Events are passed over.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, Error> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.stream
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())
            .map_err(Error::io(format!("send {command}")))?;
        loop {
            let mut answer = self.read()?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                let reason = error["desc"].as_str().unwrap_or("without a reason").to_owned();
                return Err(Error::Refused { command: command.to_owned(), reason });
            }
            if answer.get("event").is_none() {
                return Err(Error::Protocol(format!("no answer to {command}: {answer}")));
            }
        }
    }

    /// Waits for an event of this name for whose data `take` gives something.
    pub(super) fn wait_for_event<T>(
        &mut self,
        name: &str,
        mut take: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            let event = self.read()?;
            if event["event"] == name {
                if let Some(taken) = take(&event["data"]) {
                    return Ok(taken);
                }
            }
        }
    }

    fn read(&mut self) -> Result<Value, Error> {
        let mut line = String::new();
        let count = self.stream.read_line(&mut line).map_err(Error::io("read from QMP"))?;
        if count == 0 {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(Error::Io { doing: "read from QMP".to_owned(), source });
        }
        serde_json::from_str(&line).map_err(|error| Error::Protocol(format!("{error}: {line}")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {}}}"#;

    /// A client of a QEMU that says these lines, whatever it is told.
    fn client(lines: &[&str]) -> (Result<Qmp, Error>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        (Qmp::greet(ours), theirs)
    }

    #[test]
    fn a_command_returns_its_own_answer_and_not_an_event() {
        let event = r#"{"event": "STOP"}"#;
        let lines = [GREETING, r#"{"return": {}}"#, event, event, r#"{"return": 7}"#];
        let (qmp, _theirs) = client(&lines);
        assert_eq!(qmp.unwrap().execute("stop", &json!({})).unwrap(), 7);
    }

    #[test]
    fn an_event_is_waited_for_by_name_and_data() {
        let event = |name, n| format!(r#"{{"event": "{name}", "data": {n}}}"#);
        let events = [event("A", 1), event("B", 2), event("A", 3)];
        let lines = [GREETING, r#"{"return": {}}"#, &events[0], &events[1], &events[2]];
        let (qmp, theirs) = client(&lines);
        let mut qmp = qmp.unwrap();
        let taken = qmp.wait_for_event("A", |n| n.as_u64().filter(|&n| n > 1));
        assert_eq!(taken.unwrap(), 3);
        drop(theirs);
        assert!(qmp.wait_for_event("A", |_| Some(())).is_err());
    }

    #[test]
    fn a_refusal_is_an_error_in_qemus_words() {
        let refusal = r#"{"error": {"class": "GenericError", "desc": "no such thing"}}"#;
        let (qmp, _theirs) = client(&[GREETING, r#"{"return": {}}"#, refusal]);
        let error = qmp.unwrap().execute("migrate", &json!({})).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refuses migrate: no such thing");
    }

    #[test]
    fn a_qemu_that_goes_away_is_an_error_at_once() {
        let (qmp, theirs) = client(&[GREETING, r#"{"return": {}}"#]);
        drop(theirs);
        assert!(matches!(qmp.unwrap().execute("stop", &json!({})), Err(Error::Io { .. })));
    }

    #[test]
    fn what_is_not_qmp_is_refused() {
        for line in ["SSH-2.0-x", "{}"] {
            assert!(matches!(client(&[line]).0, Err(Error::Protocol(_))), "{line}");
        }
        let (qmp, _theirs) = client(&[GREETING, r#"{"return": {}}"#, "{}"]);
        assert!(matches!(qmp.unwrap().execute("stop", &json!({})), Err(Error::Protocol(_))));
    }
}
