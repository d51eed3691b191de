//! A VM that stands still, beside its RAM.

use multifd_core::ram::BlockDigest;
use multifd_core::wire::Uuid;

use crate::early_state::EarlyState;
use crate::stream::{BlockInfo, Configuration, MainDecoder, MainEvent, PostcopyAdvise, SyncForm};

/// What a VM is beside its RAM: what its main channel says of it.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vm {
    /// Machine type and what else the source says of itself.
    pub configuration: Configuration,
    /// The VM's UUID, all zero where it has none.
    pub uuid: Uuid,
    /// The RAM blocks, in the source's order.
    pub blocks: Vec<BlockInfo>,
    /// The number of the ram section in the main channel.
    pub section_id: u32,
    /// How the source told syncs.
    pub sync_form: SyncForm,
    /// Whether the main channel's sections ended in a FOOTER.
    pub footers: bool,
    /// What devices have sent before the pages.
    pub early_state: EarlyState,
    /// What the source has said of postcopy, which it never started.
    pub postcopy_advise: Option<PostcopyAdvise>,
    /// The device state, byte for byte: FULL sections, EOF, VMDESCRIPTION. Empty where there is none, and where it was
    /// given [in pieces](crate::Destination::receive_in_pieces).
    pub device_state: Vec<u8>,
    /// What the source says its RAM holds, a digest for each block of [`blocks`](Self::blocks); `None` where it does not
    /// say it, as a QEMU.
    pub digests: Option<Vec<BlockDigest>>,
}

impl Vm {
    /// Takes note of what a main channel says of the VM. Commands say nothing of it.
    pub(crate) fn note(&mut self, event: MainEvent) {
        match event {
            MainEvent::Configuration(configuration) => self.configuration = configuration,
            MainEvent::RamStart { section_id, blocks, sync, .. } => {
                (self.section_id, self.blocks, self.sync_form) = (section_id, blocks, sync);
            }
            MainEvent::EarlyState(section) if self.blocks.is_empty() => {
                self.early_state.before_start.extend(section);
            }
            MainEvent::EarlyState(section) => self.early_state.behind_start.extend(section),
            MainEvent::PostcopyAdvise(advise) => self.postcopy_advise = Some(advise),
            MainEvent::DeviceState(state) => self.device_state = state,
            _ => {}
        }
    }

    /// Takes note of what is known at the end of a stream of one connection.
    pub(crate) fn complete(&mut self, decoder: &MainDecoder) {
        self.footers = decoder.footers();
        self.digests = decoder.digests().map(<[_]>::to_vec);
        self.uuid = self.configuration.uuid().unwrap_or_default();
        self.sync_form = SyncForm::of_machine(&self.configuration);
    }
}
