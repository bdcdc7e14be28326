//! What root may do beyond the permissions of files.

use std::io;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// What a model keeps if this program has it: files of other users, as far as the rules for files go, and what drivers ask for.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYS_RAWIO);

/// Drops the others from this thread and what it starts. With one of them, root can read the memory of every process, whatever
/// Landlock says. `no_new_privs` must be set: otherwise root has them all again when it executes a program.
///
/// # Errors
/// Of the kernel.
pub(super) fn drop_most() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective &= KEPT;
    sets.permitted &= KEPT;
    sets.inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, sets)?)
}
