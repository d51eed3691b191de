//! What devices send before the pages.

/// State that comes before the pages, as whole sections with their FOOTERs: of devices that send it
/// early (QEMU's virtio-mem), or of a VMM of one's own as a
/// [`FullSection`](crate::stream::FullSection). Empty in most migrations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EarlyState {
    /// What comes before the list of RAM blocks: a destination sees it before it provides memory.
    pub before_start: Vec<u8>,
    /// What comes between the list of RAM blocks and the last page.
    pub behind_start: Vec<u8>,
}

impl EarlyState {
    /// Nothing, to be filled.
    pub const fn new() -> Self {
        Self { before_start: Vec::new(), behind_start: Vec::new() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Bytes of all sections.
    pub fn bytes(&self) -> usize {
        self.before_start.len() + self.behind_start.len()
    }
}

/// Sections that come before the list of RAM blocks.
impl From<Vec<u8>> for EarlyState {
    fn from(before_start: Vec<u8>) -> Self {
        Self { before_start, ..Self::default() }
    }
}
