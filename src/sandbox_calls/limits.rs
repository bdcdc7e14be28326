//! Limits of a child process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of a core dump.
    Core,
    /// Bytes of private, writable memory, touched or not (`RLIMIT_DATA`).
    Data,
    /// Open files.
    OpenFiles,
    /// Processes and threads of the user, the only number that the kernel counts. It does not apply to root.
    Processes,
}

/// Gives the child of `command` these limits, soft and hard, where they are lower than those of this process. The child
/// sets them itself before it executes the program, so that there is no moment without them.
pub fn limit_child(command: &mut Command, limits: Vec<(Limit, u64)>) {
    let apply = move || limits.iter().try_for_each(|(limit, most)| lower(*limit, *most));
    // SAFETY: between fork and exec only async-signal-safe functions may be called, and no memory may be allocated.
    // `apply` calls `getrlimit` and `setrlimit`, which are plain system calls, and reads a vector that exists already.
    unsafe {
        command.pre_exec(apply);
    }
}

fn lower(limit: Limit, most: u64) -> io::Result<()> {
    let resource = match limit {
        Limit::Core => libc::RLIMIT_CORE,
        Limit::Data => libc::RLIMIT_DATA,
        Limit::OpenFiles => libc::RLIMIT_NOFILE,
        Limit::Processes => libc::RLIMIT_NPROC,
    };
    let most = libc::rlim_t::try_from(most).unwrap_or(libc::RLIM_INFINITY);
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one `rlimit`, which lives until the call returns.
    if unsafe { libc::getrlimit(resource, &mut now) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let lower = libc::rlimit {
        rlim_cur: now.rlim_cur.min(most),
        rlim_max: now.rlim_max.min(most),
    };
    // SAFETY: the kernel reads one `rlimit`, which lives until the call returns.
    match unsafe { libc::setrlimit(resource, &lower) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_its_limits_from_its_first_instruction_and_this_process_keeps_its_own() {
        let shown = |limits: Vec<(Limit, u64)>| {
            let mut command = Command::new("/bin/sh");
            limit_child(&mut command, limits);
            let output = command.args(["-c", "ulimit -n; ulimit -Hn; ulimit -c"]).output();
            String::from_utf8(output.expect("sh").stdout).expect("text")
        };
        assert_eq!(shown(vec![(Limit::OpenFiles, 77), (Limit::Core, 0)]), "77\n77\n0\n");
        // A limit is never raised.
        let unlimited = shown(Vec::new());
        assert_eq!(shown(vec![(Limit::OpenFiles, u64::MAX)]), unlimited);
    }
}
