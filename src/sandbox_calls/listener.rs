//! System calls that wait for this process (`SECCOMP_RET_USER_NOTIF`). It can see them and let them go on; it cannot
//! decide, because the arguments may change in between.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{
    SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND, SECCOMP_IOCTL_NOTIF_SET_FLAGS, c_ulong, seccomp_notif,
    seccomp_notif_resp, sock_filter,
};

use super::filter::install;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`
const SYNC_WAKE_UP: c_ulong = 1;

/// Receives the system calls for which a filter has returned `SECCOMP_RET_USER_NOTIF`. When it is dropped, these calls
/// fail with `ENOSYS`.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A system call that waits.
#[derive(Debug, Clone, Copy)]
pub struct WaitingCall {
    id: u64,
    /// The thread.
    pub pid: u32,
    /// Its number.
    pub number: libc::c_long,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Listener {
    /// Installs a filter in this thread, as [`install_filter`](crate::install_filter) does.
    ///
    /// # Errors
    /// The kernel refuses the program, or is older than Linux 5.0.
    pub fn install(program: &[sock_filter]) -> io::Result<Self> {
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        let fd = RawFd::try_from(install(program, flags)?).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: with this flag, a success is a new descriptor that belongs to nobody else.
        let listener = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // The two threads take turns, so that each wakes the other on its own processor. Before Linux 6.6 it is refused,
        // and they only wait longer.
        // SAFETY: the argument is a number.
        unsafe { libc::ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        Ok(listener)
    }

    /// Waits for the next system call. Wait with `poll` before: this does not notice the end of the last process.
    ///
    /// # Errors
    /// `NotFound`: the process has ended meanwhile.
    pub fn receive(&self) -> io::Result<WaitingCall> {
        // The kernel refuses memory that is not zero.
        // SAFETY: integers only, for which zeros are a value.
        let mut received: seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one structure of this size, which the number of the request includes.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV, &raw mut received) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(WaitingCall {
            id: received.id,
            pid: received.pid,
            number: received.data.nr.into(),
            arguments: received.data.args,
        })
    }

    /// Lets the system call go on in the kernel.
    ///
    /// # Errors
    /// `NotFound`: the process has ended meanwhile. Others: the kernel is older than Linux 5.5.
    pub fn proceed(&self, call: &WaitingCall) -> io::Result<()> {
        let answer = seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        };
        // SAFETY: the kernel reads one structure of this size, which the number of the request includes.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
