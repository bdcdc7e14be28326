//! In place of the filter of system calls, where `seccompiler` knows no instruction set of this name (32-bit ARM).

use sandbox_calls::sock_filter;

use super::error::SandboxError;

pub(super) fn is_supported() -> bool {
    false
}

pub(super) fn program(_landlock: u8) -> Result<Option<Vec<sock_filter>>, SandboxError> {
    Ok(None)
}

pub(super) fn waiting(_numbers: &[libc::c_long]) -> Option<Vec<sock_filter>> {
    None
}
