//! The calls that need `unsafe`, because no crate offers them without it. The model's sandbox has limits that a child sets for
//! itself before it executes its program, and filters of system calls: `rustix` has no filters, `seccompiler` installs none
//! with a listener or with the speculation of the processor left on, and the standard library leaves it to the caller what
//! runs between fork and exec. One more call gives freed memory back.

#[cfg(not(target_os = "linux"))]
compile_error!("seccomp is a part of Linux");

mod filter;
mod limits;
mod listener;
mod memory;

pub use filter::install_filter;
pub use libc::sock_filter;
pub use limits::{Limit, limit_child};
pub use listener::{Listener, WaitingCall};
pub use memory::release_free_memory;
