//! A process is killed, or told to end, at any moment.

use std::time::Duration;

use multifd_interop::program::Signal;

use crate::bench::{Bench, Fault, Side};
use crate::{Case, Cases, random};

pub(crate) fn cases(bench: &Bench, quick: bool) -> Cases {
    let usual = bench.usual_time()?;
    let mut cases = Vec::new();
    let counts = if quick { [3, 1, 1] } else { [200, 50, 50] };
    let signals = [(Signal::KILL, "SIGKILL"), (Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")];
    for ((signal, name), count) in signals.into_iter().zip(counts) {
        for side in Side::ALL {
            for index in 0..count {
                // Somewhat past the end, too.
                let number = random(bench.seed, index << 8 | side as u64);
                let thousandths = u32::try_from(number % 1300).unwrap_or_default();
                let after: Duration = usual * thousandths / 1000;
                let case = format!("signal/{name}/{}/{index}", side.name());
                cases.push(Case::new(case, name, side, move |bench| {
                    bench.breaks(&Fault { signal: Some((signal, after)), ..Fault::at(side) })
                }));
            }
        }
    }
    Ok(cases)
}
