//! The deployment target for this machine.

use std::fs;
use std::path::{Path, PathBuf};

/// The properties of a machine that determine the deployment target.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The architecture of this program, as in `std::env::consts::ARCH`. The model must have the same architecture, which may
    /// differ from that of the kernel.
    pub arch: &'static str,
    /// The directory of `dev`, `proc` and `usr`. Only tests use another one than `/`.
    pub root: PathBuf,
}

impl Default for Machine {
    /// This machine.
    fn default() -> Self {
        Self {
            arch: std::env::consts::ARCH,
            root: PathBuf::from("/"),
        }
    }
}

/// Studio builds no models for this architecture.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "Edge Impulse Studio builds no Linux models for the architecture {arch}, only for aarch64, armv7 and x86-64; choose a target with --force-target in eiparams"
)]
pub struct UnsupportedMachine {
    arch: &'static str,
}

/// Directories in which JetPack and CUDA packages put their libraries; `*` stands for any one name.
const LIBRARIES: [&str; 6] = [
    "usr/lib/aarch64-linux-gnu",
    "usr/lib",
    "usr/local/lib",
    "usr/local/*/lib64",
    "usr/local/*/targets/*/lib",
    "usr/lib/aarch64-linux-gnu/tegra",
];

impl Machine {
    /// The deployment target, for example `runner-linux-aarch64`. The order of the checks is that of the existing runner
    /// (`runner-downloader.ts`).
    ///
    /// # Errors
    /// [`UnsupportedMachine`]: there are no models for this architecture.
    pub fn target(&self) -> Result<&'static str, UnsupportedMachine> {
        match self.arch {
            "aarch64" => Ok(self.aarch64()),
            "arm" => Ok("runner-linux-armv7"),
            "x86_64" => Ok("runner-linux-x86_64"),
            arch => Err(UnsupportedMachine { arch }),
        }
    }

    fn aarch64(&self) -> &'static str {
        if self.has("dev/drpai0") {
            "runner-linux-aarch64-rzv2l"
        } else if self.has("dev/akida0") {
            "runner-linux-aarch64-akd1000"
        } else if self.has("dev/nvhost-as-gpu") {
            self.jetson()
        } else if self.has("usr/lib/libQnnTFLiteDelegate.so") {
            "runner-linux-aarch64-qnn"
        } else {
            "runner-linux-aarch64"
        }
    }

    fn jetson(&self) -> &'static str {
        let is_jetpack_6 = ["libcudart.so.12", "libnvinfer.so.8", "libcudnn.so.8"]
            .iter()
            .all(|library| self.has_library(library));
        if is_jetpack_6 {
            return "runner-linux-aarch64-jetson-orin-6-0";
        }
        let model = fs::read(self.root.join("proc/device-tree/model")).unwrap_or_default();
        if String::from_utf8_lossy(&model).contains("NVIDIA Jetson Nano") {
            "runner-linux-aarch64-jetson-nano"
        } else {
            "runner-linux-aarch64-jetson-orin"
        }
    }

    fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Whether a library of this major version is installed (`<name>`, or `<name>.<anything>`).
    fn has_library(&self, name: &str) -> bool {
        let matches = |file: &str| {
            file.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        LIBRARIES
            .iter()
            .flat_map(|pattern| expand(&self.root, pattern))
            .flat_map(|directory| entries(&directory))
            .any(|file| file.file_name().and_then(|file| file.to_str()).is_some_and(matches))
    }
}

fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    pattern
        .split('/')
        .fold(vec![root.to_owned()], |paths, part| match part {
            "*" => paths.iter().flat_map(|path| entries(path)).collect(),
            part => paths.into_iter().map(|path| path.join(part)).collect(),
        })
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(arch: &'static str, files: &[(&str, &str)]) -> Result<&'static str, UnsupportedMachine> {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let root = root.path().to_owned();
        Machine { arch, root }.target()
    }

    #[test]
    fn the_target_depends_on_the_architecture_and_the_hardware() {
        const GPU: (&str, &str) = ("dev/nvhost-as-gpu", "");
        const DEVICE_TREE: &str = "proc/device-tree/model";
        const CUDA_12: (&str, &str) = (
            "usr/local/cuda-12.2/targets/aarch64-linux/lib/libcudart.so.12.2.140",
            "",
        );
        const TENSORRT_8: (&str, &str) = ("usr/lib/aarch64-linux-gnu/libnvinfer.so.8.6.2", "");
        const CUDNN_8: (&str, &str) = ("usr/lib/aarch64-linux-gnu/libcudnn.so.8", "");
        const CUDNN_9: (&str, &str) = ("usr/lib/aarch64-linux-gnu/libcudnn.so.9", "");
        for (arch, files, expected) in [
            ("x86_64", &[][..], "runner-linux-x86_64"),
            ("x86_64", &[("dev/drpai0", ""), GPU], "runner-linux-x86_64"),
            ("arm", &[], "runner-linux-armv7"),
            ("aarch64", &[], "runner-linux-aarch64"),
            (
                "aarch64",
                &[("dev/drpai0", ""), ("dev/akida0", ""), GPU],
                "runner-linux-aarch64-rzv2l",
            ),
            ("aarch64", &[("dev/akida0", ""), GPU], "runner-linux-aarch64-akd1000"),
            ("aarch64", &[GPU], "runner-linux-aarch64-jetson-orin"),
            (
                "aarch64",
                &[GPU, (DEVICE_TREE, "NVIDIA Jetson Orin Nano\0")],
                "runner-linux-aarch64-jetson-orin",
            ),
            (
                "aarch64",
                &[GPU, (DEVICE_TREE, "NVIDIA Jetson Nano Developer Kit\0")],
                "runner-linux-aarch64-jetson-nano",
            ),
            (
                "aarch64",
                &[GPU, CUDA_12, TENSORRT_8, CUDNN_8],
                "runner-linux-aarch64-jetson-orin-6-0",
            ),
            (
                "aarch64",
                &[GPU, CUDA_12, TENSORRT_8, CUDNN_9],
                "runner-linux-aarch64-jetson-orin",
            ),
            ("aarch64", &[CUDA_12, TENSORRT_8, CUDNN_8], "runner-linux-aarch64"),
            (
                "aarch64",
                &[("usr/lib/libQnnTFLiteDelegate.so", "")],
                "runner-linux-aarch64-qnn",
            ),
            (
                "aarch64",
                &[GPU, ("usr/lib/libQnnTFLiteDelegate.so", "")],
                "runner-linux-aarch64-jetson-orin",
            ),
        ] {
            assert_eq!(target(arch, files).unwrap(), expected, "{arch} {files:?}");
        }
    }

    #[test]
    fn the_error_contains_an_architecture_without_models() {
        let text = target("riscv64", &[]).unwrap_err().to_string();
        assert!(text.contains("riscv64") && text.contains("--force-target"), "{text}");
    }
}
