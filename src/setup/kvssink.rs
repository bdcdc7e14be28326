//! Builds `kvssink`, Amazon's GStreamer element for Kinesis Video Streams, in the home directory of the service user.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::error::InstallError;
use super::machine::{Host, PackageManager, assignment};
use super::report::StepReport;
use super::service_user::ServiceUser;

/// The directory of Amazon's producer SDK, below the home of the service user.
pub const SOURCE: &str = "amazon-kinesis-video-streams-producer-sdk-cpp";
/// The plugin in the directory `build` of [`SOURCE`].
pub const PLUGIN: &str = "libgstkvssink.so";
const REPOSITORY: &str = "https://github.com/awslabs/amazon-kinesis-video-streams-producer-sdk-cpp.git";
const TAG: &str = "v3.5.0";
/// Held during a build.
const LOCK: &str = "/run/ei-greengrass-kvssink.lock";
/// Memory of one compiler process, in kB: a Raspberry Pi with 2 GB must not run four.
const COMPILER_KB: u64 = 1_500_000;
/// Time limits of the steps, in seconds.
const FILE_LIMIT: u64 = 60;
const CLONE_LIMIT: u64 = 600;
const BUILD_LIMIT: u64 = 3600;

/// What the step does about `kvssink`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KvssinkPlan {
    NotWanted,
    IsBuilt,
    /// It is wanted and cannot be built, for this reason.
    Refuse(String),
    /// It is built in this home directory.
    Build(PathBuf),
}

pub(super) fn plan(machine: &Host, is_wanted: bool, user: &ServiceUser, home: Option<&Path>) -> KvssinkPlan {
    if !is_wanted {
        return KvssinkPlan::NotWanted;
    }
    let Some(home) = home else {
        return KvssinkPlan::Refuse(format!(
            "kvssink is not built: it needs the home directory of {}, which does not exist",
            user.name
        ));
    };
    let source = machine.path(home).join(SOURCE);
    if plugin(&source).is_file() {
        return KvssinkPlan::IsBuilt;
    }
    if machine.package_manager() == Some(PackageManager::None) {
        return KvssinkPlan::Refuse(
            "kvssink cannot be built: this image has no package manager; add kvssink to the image".to_owned(),
        );
    }
    if source.exists() && !marker(&source).exists() {
        return KvssinkPlan::Refuse(format!(
            "{} exists without a built kvssink and was not created by this component; move it away and deploy again",
            source.display()
        ));
    }
    if !machine.has("runuser") {
        return KvssinkPlan::Refuse("kvssink is not built: runuser (util-linux) is missing".to_owned());
    }
    KvssinkPlan::Build(home.to_owned())
}

/// Builds it, as planned.
///
/// # Errors
/// Why it cannot be built; the component runs without it.
pub(super) fn execute(
    plan: KvssinkPlan,
    machine: &Host,
    report: &mut StepReport,
    user: &str,
) -> Result<(), InstallError> {
    match plan {
        KvssinkPlan::NotWanted => Ok(()),
        KvssinkPlan::IsBuilt => {
            report.skipped("kvssink: built");
            Ok(())
        }
        KvssinkPlan::Refuse(why) => Err(InstallError(why)),
        KvssinkPlan::Build(home) => build(machine, report, user, &home).map_err(InstallError),
    }
}

fn build(machine: &Host, report: &mut StepReport, user: &str, home: &Path) -> Result<(), String> {
    let source = machine.path(home).join(SOURCE);
    let _lock = lock(machine)?;
    compile(machine, report, user, home, &source)
        .map_err(|reason| format!("kvssink could not be built ({reason}); the component runs without it"))?;
    if !machine.is_dry_run() {
        if !plugin(&source).is_file() {
            return Err(format!(
                "the build of kvssink did not create {PLUGIN}; the component runs without it"
            ));
        }
        match fs::remove_file(marker(&source)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => report.warning(format_args!(
                "{} could not be removed ({error})",
                marker(&source).display()
            )),
            _ => {}
        }
    }
    report.done(format_args!("kvssink {TAG} built in {}", home.join(SOURCE).display()));
    Ok(())
}

/// Locks the build: a second one would remove the directory of the first.
fn lock(machine: &Host) -> Result<Option<File>, String> {
    if machine.is_dry_run() {
        return Ok(None);
    }
    let path = machine.path(LOCK);
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path);
    let file =
        opened.map_err(|error| format!("kvssink is not built: {} cannot be opened ({error})", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err("kvssink is being built already".to_owned()),
        _ => Ok(Some(file)),
    }
}

/// Runs as the service user, who owns the directory: root must not execute files from it.
fn compile(machine: &Host, report: &mut StepReport, user: &str, home: &Path, source: &Path) -> Result<(), String> {
    let mut as_user = |seconds: u64, complete: &dyn Fn(&mut std::process::Command)| {
        let mut command = machine.command("runuser");
        command.args(["-u", user, "--", "env"]);
        command.arg(assignment("HOME", machine.path(home).as_os_str()));
        complete(&mut command);
        machine.change_within(seconds, &mut command, report)
    };
    let build = source.join("build");
    as_user(FILE_LIMIT, &|command| {
        command.arg("touch").arg(marker(source));
    })?;
    as_user(FILE_LIMIT, &|command| {
        command.args(["rm", "-rf"]).arg(source);
    })?;
    as_user(CLONE_LIMIT, &|command| {
        command.args(["git", "clone", "--quiet", "--depth", "1", "--branch", TAG, REPOSITORY]);
        command.arg(source);
    })?;
    as_user(BUILD_LIMIT, &|command| {
        command.args(["cmake", "-S"]).arg(source).arg("-B").arg(&build);
        command.arg("-DBUILD_GSTREAMER_PLUGIN=ON");
    })?;
    as_user(BUILD_LIMIT, &|command| {
        command.args(["cmake", "--build"]).arg(&build);
        command.args(["--parallel", &compilers(machine).to_string()]);
    })
}

fn plugin(source: &Path) -> PathBuf {
    source.join("build").join(PLUGIN)
}

/// A file beside the source that marks an interrupted build of this component.
fn marker(source: &Path) -> PathBuf {
    source.with_file_name(format!("{SOURCE}.building"))
}

fn compilers(machine: &Host) -> u64 {
    let text = machine.text("/proc/meminfo");
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes: Option<u64> = total.and_then(|total| total.split_whitespace().next()?.parse().ok());
    let by_memory = kilobytes.map_or(1, |kilobytes| kilobytes / COMPILER_KB);
    let by_cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    by_memory.min(by_cores).max(1)
}
