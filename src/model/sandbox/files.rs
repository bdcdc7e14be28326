//! The rules for files, as Landlock has them.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};

use super::paths::{Access, Grant};

/// The newest version whose rights are used.
const VERSION: ABI = ABI::V6;

/// Restricts this thread and what it starts to these files, to TCP connections to nowhere, and to signals and abstract
/// sockets of its own processes, as far as the kernel can. Sets `no_new_privs`.
///
/// # Errors
/// Of the kernel. A path that does not exist or cannot be opened is left out.
pub(super) fn restrict(grants: &[Grant]) -> Result<(), RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?;
    for grant in grants {
        ruleset = ruleset.add_rules(path_beneath_rules([&grant.path], rights(grant.access)))?;
    }
    ruleset.restrict_self()?;
    Ok(())
}

fn rights(access: Access) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let change = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg;
    match access {
        Access::List => AccessFs::ReadDir.into(),
        Access::Read => read,
        Access::Execute => read | AccessFs::Execute,
        Access::Device => read | AccessFs::WriteFile | AccessFs::IoctlDev,
        Access::Unpack => change | AccessFs::MakeDir,
        Access::SharedMemory => change | AccessFs::RemoveFile,
        Access::Socket => AccessFs::ReadFile | AccessFs::MakeSock | AccessFs::RemoveFile,
        Access::Keep => {
            change
                | read
                | AccessFs::RemoveFile
                | AccessFs::RemoveDir
                | AccessFs::MakeDir
                | AccessFs::MakeSym
                | AccessFs::Refer
        }
        Access::Everything => AccessFs::from_all(VERSION),
    }
}
