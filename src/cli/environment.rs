//! Variables that GStreamer and its plugins need and Greengrass does not set: the directories of `kvssink` and its
//! libraries, and the sockets of the service user's PipeWire and PulseAudio. And one that makes the C library's allocator
//! keep less memory.
//!
//! The dynamic linker and the C library read their variables once, when a process starts. So the program re-executes itself with the
//! missing variables, before it does anything else. The process id and the arguments stay the same.
//!
//! For a subcommand that must not change anything, the cache of GStreamer's registry is a copy in memory: GStreamer
//! would write its file whenever a plugin was added, and as root leave it in the home of the service user.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::kvssink;

/// The message when [`complete`] fails; the reason follows.
pub(super) const INCOMPLETE: &str = "The program cannot be re-executed with the variables that it needs (kvssink, PipeWire, memory) and continues without them";

/// The variable that sets how many heaps glibc uses, and its value. By default each of the first threads gets a heap of its own,
/// up to eight for each processor, and a heap keeps most of what an outage once took. Other C libraries ignore the variable.
const HEAPS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");
/// The other variable that may set the number of heaps (glibc manual, "Memory Allocation Tunables").
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.arena_max");

/// Names the file of GStreamer's registry.
const REGISTRY: &str = "GST_REGISTRY";

type Variable = (&'static str, OsString);

/// Where to look for what the variables name.
struct SearchPaths<'a> {
    /// Reads a variable: [`std::env::var_os`], except in tests.
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The home of the user the program runs as.
    home: Option<PathBuf>,
    /// The runtime directory that systemd makes for a user who is logged in or lingers: `/run/user/<uid>`.
    runtime_dir: PathBuf,
}

/// Re-executes the program when the environment lacks a variable; returns when nothing is missing.
/// `with_kvssink`: `install_kvssink` is set.
///
/// # Errors
/// The program cannot be re-executed; it can continue without the variables.
pub(super) fn complete(with_kvssink: bool) -> io::Result<()> {
    reexecute(
        with_kvssink,
        heaps(&|name| std::env::var_os(name)).into_iter().collect(),
    )
}

/// Re-executes the program with the missing variables and these, if there are any.
fn reexecute(with_kvssink: bool, mut variables: Vec<Variable>) -> io::Result<()> {
    let paths = SearchPaths {
        variable: &|name| std::env::var_os(name),
        home: std::env::home_dir(),
        runtime_dir: Path::new("/run/user").join(rustix::process::geteuid().as_raw().to_string()),
    };
    variables.extend(missing(with_kvssink, &paths));
    if variables.is_empty() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).envs(variables).exec())
}

/// The variable for the number of heaps, unless an operator has set it.
fn heaps(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<Variable> {
    let (name, value) = HEAPS;
    let (tunables, tunable) = TUNABLES;
    let is_tuned = || variable(tunables).is_some_and(|value| value.to_string_lossy().contains(tunable));
    (variable(name).is_none() && !is_tuned()).then(|| (name, value.into()))
}

/// As [`complete`], for a subcommand that changes no file.
///
/// # Errors
/// As [`complete`].
pub(super) fn complete_without_changes(with_kvssink: bool) -> io::Result<()> {
    if std::env::var_os(REGISTRY).is_some() || std::env::var_os("GST_REGISTRY_1_0").is_some() {
        return reexecute(with_kvssink, Vec::new());
    }
    // Kept open across the re-execution, which gives it its path below /proc.
    let registry = File::from(rustix::fs::memfd_create(
        "gst-registry",
        rustix::fs::MemfdFlags::empty(),
    )?);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")));
    let file = format!("gstreamer-1.0/registry.{}.bin", std::env::consts::ARCH);
    if let Some(mut existing) = cache.and_then(|cache| File::open(cache.join(file)).ok()) {
        io::copy(&mut existing, &mut &registry)?;
    }
    let path = format!("/proc/self/fd/{}", registry.as_raw_fd());
    reexecute(with_kvssink, vec![(REGISTRY, path.into())])
}

/// The missing variables. After the re-execution nothing is missing, so it happens only once.
fn missing(with_kvssink: bool, paths: &SearchPaths) -> Vec<Variable> {
    let mut variables = Vec::new();
    if with_kvssink {
        variables.extend(kvssink_variables(paths).into_iter().flatten());
    }
    variables.extend(user_session(paths));
    variables
}

fn kvssink_variables(paths: &SearchPaths) -> Option<[Variable; 2]> {
    let source = paths.home.as_deref()?.join(kvssink::SOURCE);
    let build = source.join("build");
    // The linker may drop LD_LIBRARY_PATH (a binary with capabilities): only GST_PLUGIN_PATH shows that this was done.
    let plugins = (paths.variable)("GST_PLUGIN_PATH").unwrap_or_default();
    if !build.join(kvssink::PLUGIN).is_file() || std::env::split_paths(&plugins).any(|path| path == build) {
        return None;
    }
    let libraries = (paths.variable)("LD_LIBRARY_PATH").unwrap_or_default();
    Some([
        ("GST_PLUGIN_PATH", with_directory(build.as_os_str(), &plugins)),
        (
            "LD_LIBRARY_PATH",
            with_directory(source.join("open-source/local/lib").as_os_str(), &libraries),
        ),
    ])
}

/// A system service has no session of its own, though `loginctl enable-linger` made one for its user.
fn user_session(paths: &SearchPaths) -> Vec<Variable> {
    let set = |name| (paths.variable)(name).is_some_and(|value| !value.is_empty());
    if set("XDG_RUNTIME_DIR") || !paths.runtime_dir.is_dir() {
        return Vec::new();
    }
    let mut variables = vec![("XDG_RUNTIME_DIR", paths.runtime_dir.clone().into_os_string())];
    let bus = paths.runtime_dir.join("bus");
    if !set("DBUS_SESSION_BUS_ADDRESS") && bus.exists() {
        let mut address = OsString::from("unix:path=");
        address.push(bus);
        variables.push(("DBUS_SESSION_BUS_ADDRESS", address));
    }
    variables
}

/// Puts `directory` before the directories of a variable. Adds no empty one: that would be the current directory.
fn with_directory(directory: &OsStr, others: &OsStr) -> OsString {
    let mut all = directory.to_owned();
    if !others.is_empty() {
        all.push(":");
        all.push(others);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home with a built kvssink.
    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let build = home.path().join(kvssink::SOURCE).join("build");
        std::fs::create_dir_all(&build).unwrap();
        std::fs::write(build.join(kvssink::PLUGIN), "").unwrap();
        home
    }

    fn missing_in(home: &Path, runtime_dir: &Path, with_kvssink: bool, set: &[(&str, &str)]) -> Vec<(String, String)> {
        let paths = SearchPaths {
            variable: &|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()),
            home: Some(home.to_owned()),
            runtime_dir: runtime_dir.to_owned(),
        };
        missing(with_kvssink, &paths)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn kvssink_and_its_libraries_come_before_what_is_set_already() {
        let home = home();
        let nowhere = home.path().join("none");
        let found = missing_in(home.path(), &nowhere, true, &[("LD_LIBRARY_PATH", "/opt/lib")]);
        let kvs = home.path().join(kvssink::SOURCE).display().to_string();
        assert_eq!(
            found,
            [
                ("GST_PLUGIN_PATH".to_owned(), format!("{kvs}/build")),
                (
                    "LD_LIBRARY_PATH".to_owned(),
                    format!("{kvs}/open-source/local/lib:/opt/lib")
                ),
            ]
        );
        let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            missing_in(home.path(), &nowhere, true, &found),
            [],
            "it does not start itself again forever"
        );
        assert_eq!(
            missing_in(home.path(), &nowhere, true, &found[..1]),
            [],
            "nor where the linker drops a variable"
        );
    }

    #[test]
    fn kvssink_that_is_not_wanted_or_not_built_changes_nothing() {
        let home = home();
        let nowhere = home.path().join("none");
        assert_eq!(missing_in(home.path(), &nowhere, false, &[]), []);
        assert_eq!(missing_in(&nowhere, &nowhere, true, &[]), []);
    }

    #[test]
    fn the_number_of_heaps_is_set_once_and_not_over_that_of_an_operator() {
        let set = |name: &'static str, value: &'static str| {
            heaps(&move |asked| (asked == name).then(|| OsString::from(value)))
        };
        let (name, value) = HEAPS;
        assert_eq!(set("OTHER", "1"), Some((name, value.into())));
        assert_eq!(
            set("GLIBC_TUNABLES", "glibc.malloc.check=1"),
            Some((name, value.into()))
        );
        assert_eq!(set(name, value), None, "it does not start itself again forever");
        assert_eq!(set(name, "8"), None);
        assert_eq!(set("GLIBC_TUNABLES", "glibc.malloc.arena_max=4"), None);
    }

    #[test]
    fn the_session_of_a_lingering_user_is_found() {
        let home = tempfile::tempdir().unwrap();
        let session = home.path().join("1000");
        assert_eq!(missing_in(home.path(), &session, false, &[]), [], "there is none");
        std::fs::create_dir(&session).unwrap();
        let runtime = ("XDG_RUNTIME_DIR".to_owned(), session.display().to_string());
        assert_eq!(
            missing_in(home.path(), &session, false, &[]),
            std::slice::from_ref(&runtime)
        );
        std::fs::write(session.join("bus"), "").unwrap();
        let bus = (
            "DBUS_SESSION_BUS_ADDRESS".to_owned(),
            format!("unix:path={}/bus", session.display()),
        );
        assert_eq!(missing_in(home.path(), &session, false, &[]), [runtime, bus]);
        assert_eq!(
            missing_in(home.path(), &session, false, &[("XDG_RUNTIME_DIR", "/run/mine")]),
            []
        );
    }
}
