//! One connection on its way through a line.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

use super::tamper::{State, Tamper};
use super::{Deaf, End, Shared};
use crate::places::{Direction, Form, Wire};

/// What is needed to know which connection it is: a channel's number is the 25th byte.
const TELLS: usize = 25;
const NUMBER: usize = 24;

/// A connection: `near` is the source's.
pub(super) struct Carrier<'a> {
    shared: &'a Shared,
    near: OwnedFd,
    far: OwnedFd,
    /// Which it is, once that is known.
    wire: Option<Wire>,
    /// What the source has said before that.
    greeting: Vec<u8>,
    forward: Half,
    back: Half,
    began: Instant,
    rate: Option<u64>,
    deaf: bool,
}

/// One direction.
#[derive(Default)]
struct Half {
    tamper: Option<Tamper>,
    /// The sender says nothing more.
    ended: bool,
    /// And the receiver knows.
    told: bool,
    passed: u64,
}

/// What becomes of the connection.
enum Next {
    GoesOn,
    Over,
    Cut(End),
}

impl<'a> Carrier<'a> {
    pub(super) fn new(shared: &'a Shared, near: OwnedFd, far: OwnedFd, wire: Option<Wire>) -> Self {
        let mut carrier = Self {
            shared,
            near,
            far,
            wire: None,
            greeting: Vec::new(),
            forward: Half::default(),
            back: Half::default(),
            began: Instant::now(),
            rate: None,
            deaf: shared.behaviour.deaf == Deaf::All,
        };
        if let Some(wire) = wire {
            carrier.is_known(wire);
        }
        carrier
    }

    /// It is `wire`: what is to be done to it begins.
    fn is_known(&mut self, wire: Wire) {
        let behaviour = &self.shared.behaviour;
        let act = |direction| {
            let (place, act) = behaviour.act?;
            (place.wire == wire && place.direction == direction).then_some((place.at, act))
        };
        let form = match wire {
            _ if behaviour.encrypted => Form::Records,
            Wire::Main => Form::Bytes,
            Wire::Channel(_) => Form::Packets,
        };
        self.wire = Some(wire);
        self.rate = behaviour.rates.map(|(all, slow, rate)| if slow == wire { rate } else { all });
        self.deaf = behaviour.deaf.is(wire);
        self.forward.tamper = Some(Tamper::new(act(Direction::Forward), form));
        let back = if behaviour.encrypted { Form::Records } else { Form::Bytes };
        self.back.tamper = Some(Tamper::new(act(Direction::Back), back));
        let greeting = std::mem::take(&mut self.greeting);
        self.came(Direction::Forward, &greeting);
        self.came(Direction::Back, &[]);
    }

    /// Takes what one side has said.
    fn came(&mut self, direction: Direction, bytes: &[u8]) {
        let half = if direction == Direction::Forward { &mut self.forward } else { &mut self.back };
        if half.tamper.as_mut().is_some_and(|tamper| tamper.take(bytes)) {
            self.shared.done.store(true, Ordering::Release);
        }
    }

    /// Carries bytes until both sides have ended, it is cut, or the line is taken down.
    pub(super) fn run(mut self) {
        let end = loop {
            match self.step() {
                Next::GoesOn => {}
                Next::Over => break None,
                Next::Cut(end) => break Some(end),
            }
        };
        self.note();
        match end {
            Some(End::Fin) => {
                _ = shutdown(&self.near, Shutdown::Write);
                _ = shutdown(&self.far, Shutdown::Write);
                self.drain();
            }
            Some(End::Reset) => {
                for socket in [&self.near, &self.far] {
                    // Of a Unix socket the end is the same.
                    _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
                }
            }
            None => {}
        }
    }

    /// Takes note of what was seen.
    fn note(&self) {
        let Some(wire) = self.wire else { return };
        let mut seen = self.shared.seen.lock().unwrap();
        for (direction, half) in
            [(Direction::Forward, &self.forward), (Direction::Back, &self.back)]
        {
            let Some(tamper) = &half.tamper else { continue };
            let seen = seen.entry((wire, direction)).or_default();
            (seen.bytes, seen.fields) = (tamper.bytes, tamper.fields_begun);
        }
    }

    /// Waits for something to do, and does it.
    fn step(&mut self) -> Next {
        let mut wait: Option<Duration> = None;
        let mut least = |time: Duration| wait = Some(wait.map_or(time, |wait| wait.min(time)));
        for half in [&mut self.forward, &mut self.back] {
            if let Some(tamper) = &mut half.tamper {
                tamper.pause().into_iter().for_each(&mut least);
                if let (State::Cut(end), true) = (tamper.state, tamper.out.is_empty()) {
                    return Next::Cut(end);
                }
            }
        }
        let allowed = self.allowed();
        if allowed == 0 {
            least(Duration::from_millis(1));
        }
        let reads = [self.forward.reads() && !self.deaf, self.back.reads() && self.wire.is_some()];
        let writes = [self.forward.writes() && allowed > 0, self.back.writes()];
        let flags = |reads: bool, writes: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, writes);
            flags
        };
        // One that nothing is wanted of would wake without end where it has ended.
        let mut fds = vec![PollFd::new(&self.shared.over, PollFlags::IN)];
        for (socket, flags) in
            [(&self.near, flags(reads[0], writes[1])), (&self.far, flags(reads[1], writes[0]))]
        {
            if !flags.is_empty() {
                fds.push(PollFd::new(socket, flags));
            }
        }
        let wait = wait.map(|wait| Timespec::try_from(wait).unwrap());
        if poll(&mut fds, wait.as_ref()).is_err() {
            return Next::GoesOn;
        }
        if !fds[0].revents().is_empty() {
            return Next::Over;
        }
        drop(fds);
        self.read(reads);
        self.write(writes, allowed);
        // One that has never said what it is has ended with that.
        let over = self.forward.told && (self.back.told || self.wire.is_none());
        if over { Next::Over } else { Next::GoesOn }
    }

    /// How many bytes may be passed on to the destination now.
    fn allowed(&self) -> usize {
        let Some(rate) = self.rate else { return usize::MAX };
        let until_now = rate as f64 * self.began.elapsed().as_secs_f64();
        (until_now as u64).saturating_sub(self.forward.passed) as usize
    }

    fn read(&mut self, reads: [bool; 2]) {
        let mut buffer = [0; 16 << 10];
        for (direction, reads) in [Direction::Forward, Direction::Back].into_iter().zip(reads) {
            let socket = if direction == Direction::Forward { &self.near } else { &self.far };
            if !reads {
                continue;
            }
            match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.ended(direction),
                Ok((_, count)) => self.said(direction, &buffer[..count]),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // What it has said before is passed on.
                Err(_) => self.ended(direction),
            }
        }
    }

    fn said(&mut self, direction: Direction, bytes: &[u8]) {
        if self.wire.is_some() || direction == Direction::Back {
            return self.came(direction, bytes);
        }
        self.greeting.extend(bytes);
        if self.greeting.starts_with(b"QEVM") {
            self.is_known(Wire::Main);
        } else if self.greeting.len() >= TELLS {
            self.is_known(Wire::Channel(self.greeting[NUMBER]));
        }
    }

    fn ended(&mut self, direction: Direction) {
        let half = if direction == Direction::Forward { &mut self.forward } else { &mut self.back };
        half.ended = true;
    }

    fn write(&mut self, writes: [bool; 2], allowed: usize) {
        for (half, socket, writes, allowed) in [
            (&mut self.forward, &self.far, writes[0], allowed),
            (&mut self.back, &self.near, writes[1], usize::MAX),
        ] {
            if let (true, Some(tamper)) = (writes, &mut half.tamper) {
                let count = tamper.out.len().min(allowed);
                match send(socket, &tamper.out[..count], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                {
                    Ok(sent) => {
                        tamper.out.drain(..sent);
                        half.passed += sent as u64;
                    }
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(_) => {
                        tamper.out.clear();
                        (half.ended, half.told) = (true, true);
                    }
                }
            }
            if half.is_to_tell() {
                _ = shutdown(socket, Shutdown::Write);
                half.told = true;
            }
        }
    }

    /// Reads what either side still says, and throws it away.
    fn drain(&self) {
        let mut open = vec![&self.near, &self.far];
        let mut buffer = [0; 16 << 10];
        while !open.is_empty() {
            let mut fds = vec![PollFd::new(&self.shared.over, PollFlags::IN)];
            fds.extend(open.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)));
            if poll(&mut fds, None).is_err() {
                continue;
            }
            if !fds[0].revents().is_empty() {
                return;
            }
            open.retain(|socket| {
                !matches!(
                    recv(socket.as_fd(), &mut buffer[..], RecvFlags::DONTWAIT),
                    Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET)
                )
            });
        }
    }
}

impl Half {
    fn reads(&self) -> bool {
        !self.ended && self.tamper.as_ref().is_none_or(Tamper::wants_more)
    }

    fn writes(&self) -> bool {
        self.tamper.as_ref().is_some_and(|tamper| !tamper.out.is_empty())
    }

    /// The end is passed on behind everything before it, and not at all where that is held back.
    fn is_to_tell(&self) -> bool {
        let is_through = |tamper: &Tamper| tamper.wants_more();
        self.ended && !self.told && self.tamper.as_ref().is_none_or(is_through)
    }
}
