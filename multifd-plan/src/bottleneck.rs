//! What holds a migration up.

use std::fmt;

use serde::Serialize;

use crate::codec::Work;
use crate::parameters::Parameters;
use crate::simulation::Tally;

/// A resource of which a migration uses a share.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// The line between both machines.
    Link,
    /// The CPU of the source's channels, a core each.
    SourceChannels,
    /// The CPU of the destination's channels, a core each.
    DestinationChannels,
    /// The engines of the source's accelerators.
    SourceEngines,
    /// The engines of the destination's accelerators.
    DestinationEngines,
    /// The thread of the source that hands out pages to the channels.
    Feed,
}

impl Resource {
    /// What would help where this resource is the bottleneck.
    pub fn hint(self, work: Work) -> &'static str {
        match (self, work) {
            (Self::Link, Work::Nothing) => "a codec, or a faster link",
            (Self::Link, _) => "a codec with a better ratio, or a faster link",
            (Self::SourceChannels | Self::DestinationChannels, Work::Cpu(_)) => {
                "more channels, a faster codec, or an accelerator"
            }
            (Self::SourceChannels | Self::DestinationChannels, _) => "more channels",
            (Self::SourceEngines | Self::DestinationEngines, _) => {
                "more devices; more channels do not help"
            }
            (Self::Feed, _) => "nothing but a faster core: it is one thread",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "the link",
            Self::SourceChannels => "the CPU of the source's channels",
            Self::DestinationChannels => "the CPU of the destination's channels",
            Self::SourceEngines => "the engines of the source",
            Self::DestinationEngines => "the engines of the destination",
            Self::Feed => "the thread that hands out pages",
        })
    }
}

/// The share of its time for which each resource was in use, 0 to 1, the most used first. Polling
/// for a device does not count as use of a channel.
pub(crate) fn uses(parameters: &Parameters, channels: u8, tally: &Tally) -> Vec<(Resource, f64)> {
    let elapsed = tally.elapsed_ns.max(1) as f64;
    let share = |ns: u64, of: u64| ns as f64 / (elapsed * of.max(1) as f64);
    let devices = &parameters.devices;
    let engines = u64::from(devices.count) * u64::from(devices.engines.get());
    let mut uses = vec![
        (Resource::Link, share(tally.link_ns, 1)),
        (Resource::SourceChannels, share(tally.source.busy_ns, channels.into())),
        (Resource::DestinationChannels, share(tally.destination.busy_ns, channels.into())),
        (Resource::SourceEngines, share(tally.source.engine_ns, engines)),
        (Resource::DestinationEngines, share(tally.destination.engine_ns, engines)),
        (Resource::Feed, share(tally.feed_ns, 1)),
    ];
    uses.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    uses
}
