//! The limit of a migration's bandwidth, which all of its connections share.

use std::io::{self, Write};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use multifd_core::channel::Parts;

use super::session::{Session, Waiter};
use crate::driver::Transmit;

/// How much may go out at once after a pause, as time at the limit. What is sent at once, a packet at
/// most, may be more: it is paid for before the next.
const BURST: Duration = Duration::from_millis(10);

/// Bytes of a plain stream that are paid for at once.
const PIECE: usize = 64 << 10;

const NANOSECONDS: u128 = 1_000_000_000;

/// When bytes may go out, in time since some start: pure, and exact.
///
/// Bytes are sent one behind the other at the limit. Whoever asks is told when its bytes begin.
#[derive(Clone, Debug)]
struct Bucket {
    /// Bytes a second.
    rate: u128,
    /// When all that was let through has gone out at the limit, in nanoseconds times the rate.
    free: u128,
}

impl Bucket {
    fn new(rate: NonZeroU64) -> Self {
        Self { rate: rate.get().into(), free: 0 }
    }

    /// Lets `bytes` bytes through. Returns when they may be sent: `now`, or later.
    fn reserve(&mut self, now: Duration, bytes: u64) -> Duration {
        let idle = now.saturating_sub(BURST).as_nanos() * self.rate;
        let begin = self.free.max(idle);
        self.free = begin + u128::from(bytes) * NANOSECONDS;
        let begin = u64::try_from(begin.div_ceil(self.rate)).unwrap_or(u64::MAX);
        Duration::from_nanos(begin).max(now)
    }
}

/// A limit that connections share.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    bucket: Mutex<Bucket>,
}

impl Pace {
    /// A limit of `rate` bytes a second.
    pub(crate) fn new(rate: NonZeroU64) -> Self {
        Self { began: Instant::now(), bucket: Mutex::new(Bucket::new(rate)) }
    }

    /// Lets `bytes` bytes through. Returns how long they have to wait.
    fn reserve(&self, bytes: usize) -> Duration {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.began.elapsed();
        bucket.reserve(now, bytes as u64) - now
    }
}

/// A stream that is written no faster than the migration's limit, if it has one. A wait ends when the
/// migration stops.
#[derive(Debug)]
pub(crate) struct Paced<W, S> {
    stream: W,
    limit: Option<Limit<S>>,
    /// Bytes that may go out: they have waited, and were not all taken.
    paid: usize,
}

#[derive(Debug)]
struct Limit<S> {
    session: Arc<Session<S>>,
    pace: Arc<Pace>,
}

impl<W, S: Send + 'static> Paced<W, S> {
    /// `stream`, as part of `session`, under the limit `pace`.
    pub(crate) fn new(stream: W, session: &Arc<Session<S>>, pace: Option<&Arc<Pace>>) -> Self {
        let limit = pace.map(|pace| Limit { session: Arc::clone(session), pace: Arc::clone(pace) });
        Self { stream, limit, paid: 0 }
    }

    /// Waits until `bytes` bytes may go out.
    fn pay(&mut self, bytes: usize) -> io::Result<()> {
        let Some(Limit { session, pace }) = &self.limit else { return Ok(()) };
        let more = bytes.saturating_sub(self.paid);
        if more > 0 {
            let wait = pace.reserve(more);
            if !wait.is_zero() {
                let waited = session.wait_for(Waiter::Limit, "the bandwidth limit", wait, |_| None);
                // Why is known to the session.
                waited.map(|_: Option<()>| ()).map_err(|_| io::ErrorKind::ConnectionAborted)?;
            }
            self.paid += more;
        }
        Ok(())
    }

    fn wrote(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        let count = written?;
        self.paid = self.paid.saturating_sub(count);
        Ok(count)
    }
}

impl<W: Transmit, S: Send + 'static> Transmit for Paced<W, S> {
    async fn write(&mut self, parts: Parts<'_>) -> io::Result<usize> {
        if self.limit.is_none() {
            return self.stream.write(parts).await;
        }
        self.pay(parts.clone().map(|part| part.bytes()).sum())?;
        let written = self.stream.write(parts).await;
        self.wrote(written)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
    }

    async fn settle(&mut self) -> io::Result<()> {
        self.stream.settle().await
    }
}

impl<W: Write, S: Send + 'static> Write for Paced<W, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = match self.limit {
            Some(_) => &bytes[..bytes.len().min(PIECE)],
            None => bytes,
        };
        self.pay(piece.len())?;
        let written = self.stream.write(piece);
        self.wrote(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::session::Terms;
    use crate::error::Error;

    fn bucket(rate: u64) -> Bucket {
        Bucket::new(NonZeroU64::new(rate).unwrap())
    }

    #[test]
    fn whoever_always_has_bytes_gets_exactly_the_limit() {
        // 100 Mbit/s, 1 and 10 Gbit/s, and numbers that do not divide.
        for rate in [12_500_000, 125_000_000, 1_250_000_000, 7, 999_999_937] {
            for bytes in [1, 1344, 525_632, 1_000_003] {
                let mut bucket = bucket(rate);
                let mut now = Duration::ZERO;
                for _ in 0..1000 {
                    now = bucket.reserve(now, bytes);
                }
                let exact = (u128::from(bytes) * 999 * NANOSECONDS).div_ceil(rate.into());
                assert_eq!(now.as_nanos(), exact, "{rate} {bytes}");
            }
        }
    }

    #[test]
    fn no_more_than_a_burst_goes_out_at_once_after_a_pause() {
        let mut bucket = bucket(1_000_000);
        let now = Duration::from_secs(60);
        // 10 ms are 10 000 bytes.
        for _ in 0..10 {
            assert_eq!(bucket.reserve(now, 1000), now);
        }
        assert_eq!(bucket.reserve(now, 1000), now);
        assert_eq!(bucket.reserve(now, 1000), now + Duration::from_millis(1));
    }

    #[test]
    fn what_is_larger_than_a_burst_is_paid_for_before_the_next() {
        let mut bucket = bucket(1_000_000);
        assert_eq!(bucket.reserve(Duration::ZERO, 500_000), Duration::ZERO);
        assert_eq!(bucket.reserve(Duration::ZERO, 1), Duration::from_millis(500));
    }

    #[test]
    fn any_number_of_senders_share_the_limit() {
        let mut bucket = bucket(1_000_000);
        let begins: Vec<_> = (0..100).map(|_| bucket.reserve(Duration::ZERO, 10_000)).collect();
        assert!(begins.iter().zip(0..).all(|(begin, at)| *begin == Duration::from_millis(10 * at)));
    }

    #[test]
    fn a_sender_that_is_late_by_less_than_a_burst_loses_nothing() {
        let mut bucket = bucket(1_000_000);
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            now = bucket.reserve(now, 20_000) + Duration::from_millis(9);
        }
        assert_eq!(now, Duration::from_millis(99 * 20 + 9));
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let mut bucket = bucket(1);
        for _ in 0..3 {
            bucket.reserve(Duration::from_secs(1 << 33), u64::MAX);
        }
    }

    #[test]
    fn what_may_go_out_now_does_not_wait_however_long_ago_the_migration_began() {
        let pace = Pace::new(NonZeroU64::new(1_000_000).unwrap());
        assert_eq!(pace.reserve(1000), Duration::ZERO);
    }

    #[test]
    fn a_wait_for_the_limit_ends_when_the_migration_stops() {
        let session = Session::new((), &Terms::default()).unwrap();
        let pace = Arc::new(Pace::new(NonZeroU64::MIN));
        let mut stream = Paced::new(Vec::new(), &session, Some(&pace));
        stream.write_all(b"now").unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stream.write_all(&[0; 1000]));
            session.fail(Error::Cancelled);
            assert_eq!(
                waiting.join().unwrap().unwrap_err().kind(),
                io::ErrorKind::ConnectionAborted
            );
        });
        assert_eq!(stream.stream, b"now");
        session.end();
    }

    #[test]
    fn what_is_not_taken_at_once_is_paid_for_once() {
        /// Takes a byte at a time.
        struct Slow(usize);
        impl Write for Slow {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Ok(1)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        // A byte a second: to pay for any of it again would take hours.
        let session = Session::new((), &Terms::default()).unwrap();
        let pace = Arc::new(Pace::new(NonZeroU64::MIN));
        let mut stream = Paced::new(Slow(0), &session, Some(&pace));
        stream.write_all(&[0; 10_000]).unwrap();
        assert_eq!((stream.stream.0, stream.paid), (10_000, 0));
        let free = pace.bucket.lock().unwrap().free;
        assert!(free <= pace.began.elapsed().as_nanos() + 10_000 * NANOSECONDS);
        session.end();
    }

    #[test]
    fn what_has_been_written_leaves_with_a_flush_with_and_without_a_limit() {
        struct Flushed(u32);
        impl Write for Flushed {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                self.0 += 1;
                Ok(())
            }
        }
        impl Transmit for Flushed {
            async fn write(&mut self, parts: Parts<'_>) -> io::Result<usize> {
                Ok(parts.map(|part| part.bytes()).sum())
            }

            async fn flush(&mut self) -> io::Result<()> {
                Write::flush(self)
            }
        }
        let session = Session::new((), &Terms::default()).unwrap();
        let pace = Arc::new(Pace::new(NonZeroU64::MIN));
        for pace in [None, Some(&pace)] {
            let mut stream = Paced::new(Flushed(0), &session, pace);
            Write::flush(&mut stream).unwrap();
            session.run(Transmit::flush(&mut stream)).unwrap().unwrap();
            assert_eq!(stream.stream.0, 2);
        }
        session.end();
    }
}
