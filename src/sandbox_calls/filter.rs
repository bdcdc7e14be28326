//! A filter of system calls (seccomp).

use std::io;

use libc::{c_long, c_ulong, c_ushort, sock_filter, sock_fprog};

/// Filters the system calls of this thread, and of all threads and processes that it starts afterwards. It cannot be
/// undone. Before, the thread must have set `no_new_privs`.
///
/// The processor keeps its speculation: before Linux 5.16 a filter would switch some of it off, which makes every
/// inference slower.
///
/// # Errors
/// The kernel has no filters, or refuses the program.
pub fn install_filter(program: &[sock_filter]) -> io::Result<()> {
    match install(program, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW) {
        // Before Linux 4.17.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install(program, 0).map(drop),
        other => other.map(drop),
    }
}

/// Returns the descriptor of the listener if `flags` ask for one.
pub(super) fn install(program: &[sock_filter], flags: c_ulong) -> io::Result<c_long> {
    let program = sock_fprog {
        len: c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions, which live until the call returns, and checks them. It writes
    // nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            &raw const program,
        )
    };
    match result {
        ..0 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_none_is_refused_with_an_error() {
        let error = install_filter(&[]).expect_err("no instruction returns");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
