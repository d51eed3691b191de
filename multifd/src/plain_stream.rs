//! VMs in migration streams of one connection, without multifd: what QEMU writes into a file or a pipe, and libvirt's
//! `virsh save` keeps.

use std::io::Read;
use std::sync::Arc;

use multifd_core::ram::Ram;

use crate::destination::find_blocks;
use crate::driver::MainReader;
use crate::stream::{Limits, MainDecoder, MainEvent};
use crate::{Error, Incoming, Vm};

/// Reads a VM from such a stream, up to its end. `provide` gives the memory, as
/// [`Destination::receive`](crate::Destination::receive) has it. The syncs that the VM's source would tell are those of its
/// machine type, as the stream has none.
///
/// A source sends each page at least once, even where it is zero. So where [`Ram::missing_pages`] are left the stream is not of
/// this kind, as the main channel of a multifd migration, or of a guest that has given pages back.
///
/// # Errors
/// A stream against the format, cut off or with bytes behind its end; memory that `provide` does not give, or that is not as
/// announced.
pub fn read(
    reader: impl Read,
    limits: Limits,
    provide: impl FnOnce(&Incoming<'_>) -> Result<Arc<Ram>, Error>,
) -> Result<(Vm, Arc<Ram>), Error> {
    let mut reader = MainReader::new(reader, MainDecoder::new(limits));
    let mut vm = Vm::default();
    // No stream is without RAM.
    while vm.blocks.is_empty() {
        let Some(event) = reader.next_event()? else { break };
        vm.note(event);
    }
    let page_size = reader.decoder().page_size();
    let early_state = &vm.early_state.before_start[..];
    let (configuration, blocks) = (&vm.configuration, &vm.blocks[..]);
    let ram = provide(&Incoming { configuration, blocks, page_size, early_state })?;
    if ram.page_size() != page_size {
        return Err(Error::PageSize { announced: page_size, own: ram.page_size() });
    }
    let memory = find_blocks(&vm.blocks, &ram)?;
    while let Some(event) = reader.next_event()? {
        match event {
            MainEvent::ZeroPage { block, offset } => {
                memory[block].receive_zero(offset, page_size.bytes());
            }
            MainEvent::Page { block, offset, data } => {
                memory[block].mark_received(offset);
                memory[block].write(offset, &data);
            }
            event => vm.note(event),
        }
    }
    reader.expect_end()?;
    vm.complete(reader.decoder());
    Ok((vm, ram))
}
