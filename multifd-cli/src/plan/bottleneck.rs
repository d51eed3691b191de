//! What holds a migration up.

use serde::Serialize;

use super::codec::{Codec, Work};
use super::migration::Outcome;
use super::parameters::Parameters;

/// A resource whose use can be told in a share of what it could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Resource {
    Link,
    SourceChannels,
    DestinationChannels,
    SourceEngines,
    DestinationEngines,
    Feed,
}

impl Resource {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Link => "the link",
            Self::SourceChannels => "the CPU of the source's channels",
            Self::DestinationChannels => "the CPU of the destination's channels",
            Self::SourceEngines => "the engines of the source",
            Self::DestinationEngines => "the engines of the destination",
            Self::Feed => "the thread that hands out pages",
        }
    }

    /// What helps.
    pub(super) fn hint(self, codec: &Codec) -> &'static str {
        match (self, codec.work) {
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

/// How much of each resource was used, 0 to 1, the most used first. A channel that polls for a
/// device is not used for it.
pub(super) fn uses(
    parameters: &Parameters,
    outcome: &Outcome,
    channels: u8,
) -> Vec<(Resource, f64)> {
    let tally = &outcome.tally;
    let elapsed = tally.elapsed_ns.max(1) as f64;
    let share = |ns: u64, of: u64| ns as f64 / (elapsed * of as f64);
    let engines = u64::from(parameters.devices.count) * u64::from(parameters.devices.engines);
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
