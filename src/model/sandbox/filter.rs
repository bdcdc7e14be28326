//! The system calls that a model may not use. Landlock has no rules for them, or has them only in newer kernels.

use std::collections::BTreeMap;

use rustix::process::{getpgrp, getpid};
use sandbox_calls::sock_filter;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Bits, SeccompCmpOp as Is, SeccompCondition as If,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::error::SandboxError;

/// Landlock has rules for truncation since this version.
const LANDLOCK_TRUNCATES: u8 = 3;

/// System calls that are refused whatever their arguments are.
const REFUSED: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Sockets of other programs. A model is connected to and connects to nobody.
    libc::SYS_connect,
    // These open files and sockets without the system calls that are filtered here.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_open_by_handle_at,
    // Modes, owners and attributes of files: Landlock has no rules for them.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // The kernel itself, and what only root can do.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_acct,
    libc::SYS_quotactl,
];

/// The same number for every instruction set; not in the `libc` crate for all of them.
const FCHMODAT2: i64 = 452;

/// Whether filters can be built for this instruction set, and the kernel takes them: an emulator or an outer sandbox may
/// refuse. Tried on a thread of its own, because a filter cannot be removed.
pub(super) fn is_supported() -> bool {
    let install = || -> std::io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        sandbox_calls::install_filter(&[statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW)])
    };
    let trial = std::thread::Builder::new().name("filter-trial".into()).spawn(install);
    let is_accepted = || trial.is_ok_and(|trial| trial.join().is_ok_and(|result| result.is_ok()));
    architecture().is_some() && is_accepted()
}

fn architecture() -> Option<TargetArch> {
    TargetArch::try_from(std::env::consts::ARCH).ok()
}

/// The filter for a model of this instruction set, on a kernel with this version of Landlock; `None`: no filter can be
/// built for it.
///
/// # Errors
/// A fault of this program.
pub(super) fn program(landlock: u8) -> Result<Option<Vec<sock_filter>>, SandboxError> {
    build(landlock).map_err(|error| SandboxError::Filter(error.to_string()))
}

fn build(landlock: u8) -> Result<Option<Vec<sock_filter>>, BackendError> {
    let Some(architecture) = architecture() else {
        return Ok(None);
    };
    let filter = SeccompFilter::new(
        rules(landlock)?,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        architecture,
    )?;
    let program = BpfProgram::try_from(filter)?;
    Ok(Some(
        no_x32().into_iter().chain(program.into_iter().map(copy)).collect(),
    ))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(landlock: u8) -> Result<Rules, BackendError> {
    let mut rules: Rules = REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    let mut refuse = |number: i64, conditions: Vec<If>| -> Result<(), BackendError> {
        rules.entry(number).or_default().push(SeccompRule::new(conditions)?);
        Ok(())
    };
    sockets(&mut refuse)?;
    this_process(&mut refuse)?;
    if landlock < LANDLOCK_TRUNCATES {
        // Without a rule, a file can be truncated that cannot be written.
        for (number, argument) in OPEN {
            let flags = u64::from((libc::O_TRUNC | libc::O_ACCMODE) as u32);
            refuse(
                *number,
                vec![If::new(
                    *argument,
                    Bits::Dword,
                    Is::MaskedEq(flags),
                    libc::O_TRUNC as u64,
                )?],
            )?;
        }
        rules.insert(libc::SYS_truncate, Vec::new());
    }
    Ok(rules)
}

/// The system calls that open a file, with the argument that has the flags.
const OPEN: &[(i64, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
    (libc::SYS_openat, 2),
];

/// Sockets: only streams between processes, on which the model listens, and the news of the kernel about devices, which
/// libraries for USB wait for.
fn sockets(refuse: &mut impl FnMut(i64, Vec<If>) -> Result<(), BackendError>) -> Result<(), BackendError> {
    const UNIX: u64 = libc::AF_UNIX as u64;
    const NETLINK: u64 = libc::AF_NETLINK as u64;
    const TYPES: u64 = 0xf;
    const DEVICES: u64 = libc::NETLINK_KOBJECT_UEVENT as u64;
    let family = |is, value| If::new(0, Bits::Dword, is, value);
    refuse(libc::SYS_socket, vec![family(Is::Ne, UNIX)?, family(Is::Ne, NETLINK)?])?;
    for kind in [libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET] {
        let kind = If::new(1, Bits::Dword, Is::MaskedEq(TYPES), kind as u64)?;
        refuse(libc::SYS_socket, vec![family(Is::Eq, UNIX)?, kind])?;
    }
    let other = If::new(2, Bits::Dword, Is::Ne, DEVICES)?;
    refuse(libc::SYS_socket, vec![family(Is::Eq, NETLINK)?, other])
}

/// Signals to this process, to its group and to all, and limits of other processes. Landlock has rules for signals only since
/// Linux 6.12.
fn this_process(refuse: &mut impl FnMut(i64, Vec<If>) -> Result<(), BackendError>) -> Result<(), BackendError> {
    let number = |value: i32| u64::from(value as u32);
    let pid = number(getpid().as_raw_nonzero().get());
    let group = number(-getpgrp().as_raw_nonzero().get());
    let first = |is, value| If::new(0, Bits::Dword, is, value);
    for target in [pid, group, number(-1)] {
        refuse(libc::SYS_kill, vec![first(Is::Eq, target)?])?;
    }
    for call in [
        libc::SYS_tkill,
        libc::SYS_tgkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_pidfd_open,
    ] {
        refuse(call, vec![first(Is::Eq, pid)?])?;
    }
    let sets = If::new(2, Bits::Qword, Is::Ne, 0)?;
    refuse(libc::SYS_prlimit64, vec![first(Is::Ne, 0)?, sets])
}

/// A filter that lets these system calls wait for a listener and allows the others; `None`: none can be built for this
/// instruction set.
pub(super) fn waiting(numbers: &[i64]) -> Option<Vec<sock_filter>> {
    // `seccompiler` has no such action, only others that differ in the returned value.
    let marker = SeccompAction::Trace(0);
    let rules = numbers.iter().map(|number| (*number, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, marker, architecture()?).ok()?;
    let is_return = |one: &sock_filter| u32::from(one.code) == libc::BPF_RET | libc::BPF_K;
    let mut program: Vec<_> = BpfProgram::try_from(filter).ok()?.into_iter().map(copy).collect();
    for one in program
        .iter_mut()
        .filter(|one| is_return(one) && one.k == libc::SECCOMP_RET_TRACE)
    {
        one.k = libc::SECCOMP_RET_USER_NOTIF;
    }
    Some(program)
}

fn copy(one: seccompiler::sock_filter) -> sock_filter {
    sock_filter {
        code: one.code,
        jt: one.jt,
        jf: one.jf,
        k: one.k,
    }
}

/// Refuses the second set of numbers that x86-64 has (x32), which the rules do not name.
fn no_x32() -> Vec<sock_filter> {
    if cfg!(not(target_arch = "x86_64")) {
        return Vec::new();
    }
    const X32: u32 = 0x4000_0000;
    vec![
        // The number of the system call is the first field.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        ),
    ]
}

fn statement(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}
