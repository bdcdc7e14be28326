//! The files that a model needs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Confined;
use crate::model::file::ProgramKind;

/// What a model may do with a path and what is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// See the names in it.
    List,
    /// Read it.
    Read,
    /// Read and execute it.
    Execute,
    /// Read, write and control a device.
    Device,
    /// Create and write files and directories, and not remove any.
    Unpack,
    /// Create, write and remove files whose names it knows.
    SharedMemory,
    /// Create its socket.
    Socket,
    /// Keep files.
    Keep,
    /// Everything that the permissions of the file allow.
    Everything,
}

/// A path and what the model may do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub path: PathBuf,
    pub access: Access,
}

/// What every program reads: libraries, the data of drivers, time zones, and what the kernel tells about the machine.
///
/// `/proc` as a whole, because rules name files that exist, and the process does not exist yet. What is secret about
/// other processes there (memory, environment, open files) is refused all the same: a process in a sandbox may not trace one
/// that is in none.
const SYSTEM: [&str; 26] = [
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr",
    "/opt",
    "/nix/store",
    "/vendor",
    "/dsp",
    "/proc",
    "/sys",
    "/run/udev",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/OpenCL",
    "/etc/vulkan",
    "/etc/glvnd",
    "/etc/nvidia*",
    "/etc/nv_*",
    "/etc/alternatives",
];

/// Where a script finds the programs that it runs.
const PROGRAMS: [&str; 8] = [
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/local/bin",
];

/// Device nodes that hold nothing, and those of accelerators.
const DEVICES: [&str; 35] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    // Direct Rendering Manager: GPUs, and the NPUs of newer kernels.
    "/dev/dri",
    "/dev/accel",
    "/dev/kfd",
    // NVIDIA, Jetson included.
    "/dev/nvidia*",
    "/dev/nvhost-*",
    "/dev/nvgpu",
    "/dev/nvmap",
    "/dev/nvsciipc",
    "/dev/host1x-fence",
    // Renesas DRP-AI.
    "/dev/drpai*",
    "/dev/udmabuf*",
    "/dev/u-dma-buf*",
    "/dev/rgnmm*",
    // BrainChip Akida.
    "/dev/akida*",
    // Qualcomm: DSP and GPU.
    "/dev/adsprpc*",
    "/dev/fastrpc*",
    "/dev/kgsl*",
    "/dev/dma_heap",
    "/dev/ion",
    // Texas Instruments.
    "/dev/rpmsg*",
    // MemryX, Hailo, Coral, Arm Ethos-U, Vivante, Mali, Rockchip.
    "/dev/memx*",
    "/dev/hailo*",
    "/dev/apex_*",
    "/dev/ethosu*",
    "/dev/galcore",
    "/dev/mali*",
    "/dev/mpp_service",
    "/dev/rga",
    "/dev/rknpu*",
    // Requests to V4L2 codecs.
    "/dev/media*",
];

/// Accelerators whose models unpack files into `/tmp`, under names that are built into them (Akida, MemryX, Texas
/// Instruments, TensorRT).
const UNPACK_INTO_TMP: [&str; 5] = [
    "/dev/akida*",
    "/dev/memx*",
    "/dev/rpmsg*",
    "/dev/nvhost-*",
    "/dev/nvidia*",
];

/// Environment variables that name no directory of an accelerator.
const NO_LIBRARIES: [&str; 4] = ["HOME", "TMPDIR", "PATH", "XDG_RUNTIME_DIR"];

/// Everything that the model gets. `variables` is its environment. Only tests use another `root` than `/`.
pub(super) fn grants(
    confined: &Confined<'_>,
    allow: &[PathBuf],
    variables: &[(OsString, OsString)],
    root: &Path,
) -> Vec<Grant> {
    let mut grants = Vec::new();
    let mut add = |path: PathBuf, access| grants.push(Grant { path, access });
    for path in SYSTEM.iter().flat_map(|pattern| expand(root, pattern)) {
        for path in without(path, confined.hidden) {
            add(path, Access::Read);
        }
    }
    add(root.join("dev"), Access::List);
    for path in DEVICES
        .iter()
        .flat_map(|pattern| expand(root, pattern))
        .chain(codecs(root))
    {
        add(path, Access::Device);
    }
    if UNPACK_INTO_TMP.iter().any(|pattern| !expand(root, pattern).is_empty()) {
        add(root.join("tmp"), Access::Unpack);
    }
    for path in library_directories(variables) {
        if !confined.hidden.iter().any(|hidden| hidden.starts_with(&path)) {
            add(path, Access::Read);
        }
    }
    program(confined, &mut add);
    if let ProgramKind::Script = confined.kind {
        for path in PROGRAMS.iter().flat_map(|pattern| expand(root, pattern)) {
            add(path, Access::Execute);
        }
    }
    add(root.join("dev/shm"), Access::SharedMemory);
    add(confined.socket_dir.to_owned(), Access::Socket);
    add(confined.cache.to_owned(), Access::Keep);
    for path in allow {
        add(path.clone(), Access::Everything);
    }
    grants
}

/// Whether the machine may run models with TensorRT, which keep the engine that they build beside themselves.
pub(super) fn has_tensorrt(root: &Path) -> bool {
    ["/dev/nvhost-*", "/dev/nvidia*", "/dev/nvmap"]
        .iter()
        .any(|pattern| !expand(root, pattern).is_empty())
}

/// The model itself, its loader or interpreter, and the files beside it whose names begin with its name. A script may also
/// run the programs beside it.
fn program(confined: &Confined<'_>, add: &mut impl FnMut(PathBuf, Access)) {
    add(confined.program.to_owned(), Access::Execute);
    if let ProgramKind::Native { loader: Some(loader) } | ProgramKind::Foreign { loader: Some(loader) } = confined.kind
    {
        add(loader.into(), Access::Execute);
    }
    let (Some(directory), Some(name)) = (confined.program.parent(), confined.program.file_name()) else {
        return;
    };
    let is_script = matches!(confined.kind, ProgramKind::Script);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_file = |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_file);
        let Some(file) = is_file(&entry.path()) else { continue };
        if is_script && file.permissions().mode() & 0o111 != 0 {
            add(entry.path(), Access::Execute);
        } else if starts_with(&entry.file_name(), name.as_encoded_bytes()) {
            add(entry.path(), Access::Read);
        }
    }
}

/// The paths that match a pattern, which may end with `*`.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let path = root.join(pattern.trim_start_matches('/'));
    let Some(prefix) = pattern.strip_suffix('*') else {
        return path.exists().then_some(path).into_iter().collect();
    };
    let (Some(directory), Some((_, name))) = (path.parent(), prefix.rsplit_once('/')) else {
        return Vec::new();
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| starts_with(&entry.file_name(), name.as_bytes()))
        .map(|entry| entry.path())
        .collect()
}

/// `path`, or where something hidden is below it, what else is in it.
fn without(path: PathBuf, hidden: &[PathBuf]) -> Vec<PathBuf> {
    if hidden.iter().any(|hidden| path.starts_with(hidden)) {
        return Vec::new();
    }
    if !hidden.iter().any(|hidden| hidden.starts_with(&path)) {
        return vec![path];
    }
    let entries = fs::read_dir(&path).into_iter().flatten().flatten();
    entries.flat_map(|entry| without(entry.path(), hidden)).collect()
}

/// Video devices that encode or decode. The others are cameras.
fn codecs(root: &Path) -> Vec<PathBuf> {
    const NAMES: [&str; 7] = ["codec", "dec", "enc", "venus", "vidc", "vpu", "m2m"];
    let is_codec = |video: &Path| {
        let class = root
            .join("sys/class/video4linux")
            .join(video.file_name().unwrap_or_default());
        let name = fs::read_to_string(class.join("name"))
            .unwrap_or_default()
            .to_ascii_lowercase();
        NAMES.iter().any(|word| name.contains(word))
    };
    expand(root, "/dev/video*")
        .into_iter()
        .filter(|video| is_codec(video))
        .collect()
}

/// Directories in the variables of the model: libraries and accelerators.
fn library_directories(variables: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let is_named = |name: &OsStr| name.to_str().is_some_and(|name| !NO_LIBRARIES.contains(&name));
    let values = variables
        .iter()
        .filter(|(name, _)| is_named(name))
        .map(|(_, value)| value);
    values
        // Variables of Qualcomm have semicolons.
        .flat_map(|value| value.as_encoded_bytes().split(|byte| matches!(byte, b':' | b';')))
        .filter_map(|path| std::str::from_utf8(path).ok())
        .map(PathBuf::from)
        .filter(|path| path.is_absolute() && path.is_dir())
        .collect()
}

fn starts_with(name: &OsStr, prefix: &[u8]) -> bool {
    name.as_encoded_bytes().starts_with(prefix)
}

#[cfg(test)]
#[path = "paths_tests.rs"]
mod tests;
