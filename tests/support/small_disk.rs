//! A small file system that fills quickly.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Creates the directory and mounts a file system of `size` (for example `64k`) there. `None`: the user may not mount.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir(at).expect("a directory");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output();
        mount
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn remount(&self, option: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{option}")]).arg(&self.0);
        assert!(mount.status().expect("mount").success(), "remount {option}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
