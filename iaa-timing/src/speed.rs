//! How long an operation takes.

/// The speed of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Nanoseconds from an engine's start to the completion, beside those for the bytes. They overlap
    /// with the engine's next operation.
    pub latency: u64,
    /// Bytes a second of one engine, of the data before compression; 0 for no limit.
    pub throughput: u64,
}

/// The time of one operation, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// For how long it keeps its engine.
    pub busy: u64,
    /// How long its completion takes beyond that.
    pub latency: u64,
}

impl Speed {
    /// The time of an operation on so many bytes that takes `factor` times as long as usual.
    #[must_use]
    pub fn time_of(self, bytes: u32, factor: f64) -> Time {
        let busy = match self.throughput {
            0 => 0.0,
            throughput => f64::from(bytes) * 1e9 / throughput as f64,
        };
        let times = |time: f64| (time * factor).round() as u64;
        Time { busy: times(busy), latency: times(self.latency as f64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_time_by_the_throughput_and_the_latency_comes_on_top() {
        let speed = Speed { latency: 7, throughput: 1_000_000 };
        assert_eq!(speed.time_of(4096, 1.0), Time { busy: 4_096_000, latency: 7 });
        assert_eq!(speed.time_of(4096, 10.0), Time { busy: 40_960_000, latency: 70 });
        assert_eq!(speed.time_of(0, 1.0), Time { busy: 0, latency: 7 });
    }

    #[test]
    fn without_a_limit_bytes_take_no_time() {
        assert_eq!(Speed::default().time_of(u32::MAX, 1.0), Time::default());
    }
}
