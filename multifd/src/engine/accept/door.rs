//! Where connections are accepted: for one migration, or for many.

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{host, name};
use crate::engine::admission::Admission;
use crate::engine::connections::{Added, Arrival, Host};
use crate::engine::refusal::Refusal;
use crate::engine::session::{Failure, Session, Stopped, Waiter, Wake};
use crate::error::Error;
use crate::transport::{Connection, Listener, Secure, WeakConnection, is_allowed, is_shortage};

/// Where connections come in, and what is asked of them.
#[derive(Debug)]
pub(crate) struct Door<S> {
    pub(crate) session: Arc<Session<S>>,
    /// None where connections are only handed in.
    pub(crate) listener: Option<Listener>,
    pub(crate) admission: Admission,
    /// Encrypts each connection.
    pub(crate) secure: Option<Arc<dyn Secure>>,
    accepting: Mutex<()>,
}

/// Who takes in what comes through a door.
pub(crate) trait Keeper: Send + Sync + Sized + 'static {
    type State: Send + 'static;

    fn door(&self) -> &Door<Self::State>;

    /// Takes note of a connection that has not said what it is: see
    /// [`Connections::add`](super::super::connections::Connections::add).
    fn add(state: &mut Self::State, one: Connection, host: Host) -> Option<Added<Connection>>;

    /// Has a connection give way that has not said what it is.
    fn make_room(state: &mut Self::State) -> Option<Connection>;

    /// Forgets a connection for which no thread could be started.
    fn forget(state: &mut Self::State, arrival: Arrival);

    /// Whether there is no need of more connections.
    fn has_all(state: &Self::State) -> bool;

    /// Takes a connection in, to its end, in a thread of its own.
    fn take(&self, arrival: Arrival, connection: &Connection) -> Result<(), Stopped>;

    /// Takes note of a connection that is refused.
    fn note(&self, connection: &Connection, refusal: &Refusal);

    /// How many have been refused, with this one.
    fn count_refused(&self, refusal: &Refusal) -> u64;
}

/// How far connections that wait have been accepted.
#[derive(Debug)]
enum Accepted {
    All,
    /// The rest has to wait: the system is short of descriptors or memory.
    Short(io::Error),
    /// None is accepted any more.
    NoMore,
}

/// How long until it is tried again to accept a connection where the system is short of something and nobody
/// gives way.
const PAUSE: Duration = Duration::from_millis(100);

/// How many refusals are logged each; of further ones, those whose count is a power of two.
const LOGGED: u64 = 32;

impl<S: Send + 'static> Door<S> {
    pub(crate) fn new(
        session: &Arc<Session<S>>,
        listener: Option<Listener>,
        admission: &Admission,
        secure: Option<Arc<dyn Secure>>,
    ) -> Self {
        let (session, admission) = (Arc::clone(session), admission.clone());
        Self { session, listener, admission, secure, accepting: Mutex::default() }
    }

    /// Is held from before a connection is taken until the state knows of it.
    pub(super) fn accepting(&self) -> MutexGuard<'_, ()> {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections, in a thread of its own, until the session stops.
pub(crate) fn open<K: Keeper>(keeper: &Arc<K>) -> Result<(), Error> {
    if keeper.door().listener.is_none() {
        return Ok(());
    }
    let accepting = Arc::clone(keeper);
    let run = move |session: &Session<_>| session.settle(run(&accepting));
    keeper.door().session.spawn("accept", run)
}

fn run<K: Keeper>(keeper: &Arc<K>) -> Result<(), Failure> {
    let door = keeper.door();
    let Some(listener) = &door.listener else { return Ok(()) };
    let mut is_short = false;
    loop {
        let accepted = match listener.wait(door.session.stop_event()) {
            Ok(true) => accept_some(keeper)?,
            Ok(false) => return Ok(()),
            Err(error) => not_accepted(door, error, K::has_all)?,
        };
        match accepted {
            Accepted::All => is_short = false,
            Accepted::NoMore => return Ok(()),
            Accepted::Short(error) => {
                // Said once: it is tried until there is room again.
                if !std::mem::replace(&mut is_short, true) {
                    tracing::warn!(%error, "connections wait to be accepted");
                }
                let gave_way = make_room(&**keeper)?;
                let is_gone = || gave_way.as_ref().is_some_and(|one| one.upgrade().is_none());
                let what = "room to accept a connection";
                door.session
                    .wait_for(Waiter::Receiver, what, PAUSE, |_| is_gone().then_some(()))?;
            }
        }
    }
}

/// Accepts every connection that waits now, with a thread for each. When this returns, the state knows of each
/// of them, if the system is not short of what they need.
pub(super) fn accept_waiting<K: Keeper>(keeper: &Arc<K>) -> Result<(), Failure> {
    accept_some(keeper).map(|_| ())
}

fn accept_some<K: Keeper>(keeper: &Arc<K>) -> Result<Accepted, Failure> {
    let door = keeper.door();
    let Some(listener) = &door.listener else { return Ok(Accepted::All) };
    let _accepting = door.accepting();
    // Whoever connects faster than that is not to keep this thread from its work.
    for _ in 0..Listener::MOST_WAITING {
        door.session.check()?;
        match listener.accept() {
            Ok(Some(connection)) => take_accepted(keeper, &connection)?,
            Ok(None) => break,
            Err(error) => return not_accepted(door, error, K::has_all),
        }
    }
    Ok(Accepted::All)
}

/// What it means that accepting failed: nothing for a migration that has its channels.
fn not_accepted<S: Send + 'static>(
    door: &Door<S>,
    source: io::Error,
    has_all: impl FnOnce(&S) -> bool,
) -> Result<Accepted, Failure> {
    if is_shortage(&source) {
        return Ok(Accepted::Short(source));
    }
    if door.session.look(has_all) {
        tracing::warn!(error = %source, "no more connections are accepted; none is needed");
        return Ok(Accepted::NoMore);
    }
    Err(Error::System { doing: "accepting a connection", source }.into())
}

/// Has a connection give way that has not said what it is, for what the system is short of. There is room when
/// it is gone.
fn make_room<K: Keeper>(keeper: &K) -> Result<Option<WeakConnection>, Stopped> {
    let oldest = keeper.door().session.update(Wake::Receivers, K::make_room)?;
    Ok(oldest.map(|oldest| {
        oldest.shut_down(Shutdown::Both);
        oldest.downgrade()
    }))
}

/// Takes a connection in that was accepted, whoever it is.
fn take_accepted<K: Keeper>(keeper: &Arc<K>, connection: &Connection) -> Result<(), Failure> {
    if !is_allowed(&keeper.door().admission.allow_from, connection.peer_address()) {
        refuse(&**keeper, connection, &Refusal::NotAllowed);
        return Ok(());
    }
    let take = |keeper: &K, arrival, connection: &Connection| keeper.take(arrival, connection);
    match take_in(keeper, connection.clone(), take) {
        Ok(true) => Ok(()),
        Ok(false) => {
            refuse(&**keeper, connection, &Refusal::TooMany);
            Ok(())
        }
        // Not the migration's fault, and it may go on without this one.
        Err(Failure::Error(Error::System { source, .. })) => {
            refuse(&**keeper, connection, &Refusal::NoThread(source));
            make_room(&**keeper)?;
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

/// Takes a connection in, if not too many wait, by `take` in a thread of its own. Returns whether it does.
pub(super) fn take_in<K: Keeper>(
    keeper: &Arc<K>,
    connection: Connection,
    take: impl FnOnce(&K, Arrival, &Connection) -> Result<(), Stopped> + Send + 'static,
) -> Result<bool, Failure> {
    let (handle, host) = (connection.clone(), host(&connection));
    let session = &keeper.door().session;
    let added = session.update(Wake::Feeders, |state| K::add(state, handle, host))?;
    let Some(Added { arrival, gives_way }) = added else { return Ok(false) };
    if let Some(oldest) = gives_way {
        oldest.shut_down(Shutdown::Both);
    }
    let own = Arc::clone(keeper);
    let take = move |session: &Session<_>| {
        let taken = take(&own, arrival, &connection);
        drop(connection);
        // Its descriptor is free for the next.
        session.wake(Wake::Receivers);
        taken
    };
    let spawned = session.spawn("recv", take);
    if spawned.is_err() {
        session.note(|state| K::forget(state, arrival));
    }
    Ok(spawned.map(|()| true)?)
}

/// Refuses a connection that was never taken in; the migration goes on.
pub(crate) fn refuse<K: Keeper>(keeper: &K, connection: &Connection, refusal: &Refusal) {
    keeper.note(connection, refusal);
    end(keeper, connection, &name(connection), refusal);
}

/// Shuts a connection down that has been refused.
pub(crate) fn end<K: Keeper>(keeper: &K, connection: &Connection, from: &str, refusal: &Refusal) {
    let count = keeper.count_refused(refusal);
    // Whoever connects again and again is not to fill the log.
    if count <= LOGGED || count.is_power_of_two() {
        tracing::warn!(%from, why = %refusal, count, "a connection was refused");
    } else {
        tracing::debug!(%from, why = %refusal, "a connection was refused");
    }
    connection.shut_down(Shutdown::Both);
}
