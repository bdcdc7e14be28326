//! The install step: `ei-greengrass setup`, and `install.sh` with it, on fake machines.

mod devices;
mod fake_machine;
mod groups;
mod kvssink;
mod link_and_session;
mod lock_files;
mod service_user;
mod shell_files;
mod whole_step;
mod work_dir;
