//! What this kernel has for a sandbox.

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};

use super::filter;

/// What a kernel has for a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxSupport {
    /// The version of Landlock's interface; 0: there is none.
    pub landlock: u8,
    /// Whether system calls can be filtered for this instruction set.
    pub filters: bool,
}

impl SandboxSupport {
    /// Nothing.
    pub const NONE: Self = Self {
        landlock: 0,
        filters: false,
    };

    /// What the running kernel has.
    pub fn detect() -> Self {
        Self {
            landlock: landlock_version(),
            filters: filter::is_supported(),
        }
    }

    pub(super) fn hides_files(self) -> bool {
        self.landlock > 0
    }

    /// What is missing, as clauses.
    pub(super) fn missing(self) -> Option<String> {
        let files = "this kernel has no Landlock (Linux 5.13 or newer, with landlock in CONFIG_LSM), so the model can read and \
                     write what this program can";
        let calls = "system calls cannot be filtered (seccomp, on x86-64 and 64-bit ARM and RISC-V), so the model can use the network \
                     except TCP with Landlock of Linux 6.7 or newer";
        let missing: Vec<_> = [(self.hides_files(), files), (self.filters, calls)]
            .into_iter()
            .filter_map(|(has, text)| (!has).then_some(text))
            .collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }
}

/// The version of Landlock's interface whose rights the kernel knows. The crate itself uses what there is; the number
/// tells what the filter of system calls has to do instead.
fn landlock_version() -> u8 {
    let ruleset = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let knows = |abi: ABI| ruleset().handle_access(AccessFs::from_all(abi)).is_ok();
    if ruleset().scope(Scope::Signal).is_ok() {
        6
    } else if knows(ABI::V5) {
        5
    } else if ruleset().handle_access(AccessNet::from_all(ABI::V4)).is_ok() {
        4
    } else if knows(ABI::V3) {
        3
    } else if knows(ABI::V2) {
        2
    } else {
        u8::from(knows(ABI::V1))
    }
}
