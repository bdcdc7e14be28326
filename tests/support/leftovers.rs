//! What a daemon and its models may leave on the machine: processes, shared memory, directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::daemon::{LIMIT, Site};

/// Waits until `condition` holds. The end of somebody else's process and the removal of a file send the test no event, so
/// this looks again and again.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited {LIMIT:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process runs (a zombie does not).
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(')') {
        Some((_, rest)) => !matches!(rest.trim_start().chars().next(), None | Some('Z' | 'X')),
        None => false,
    }
}

/// The processes whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|child| parent(*child) == Some(pid) && is_running(*child))
        .collect()
}

/// Waits for the model process of a daemon that has exactly one.
#[track_caller]
pub fn model_of(daemon: u32) -> u32 {
    let mut children = Vec::new();
    wait_until("the daemon has a child", || {
        children = children_of(daemon);
        children.len() == 1
    });
    children[0]
}

/// Segments under /dev/shm that a process has mapped or open.
pub fn segments_of(pid: u32) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mapped = maps.lines().map(str::to_owned);
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let open = files.filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().into_owned()));
    let mut paths: Vec<PathBuf> = mapped
        .chain(open)
        .filter_map(|text| Some(PathBuf::from("/dev/shm").join(text.split_once("/dev/shm/")?.1)))
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Segments that the scripted model with this pid made.
pub fn scripted_segments(pid: u32) -> Vec<PathBuf> {
    with_prefix(Path::new("/dev/shm"), &format!("shm-scripted-{pid}-"))
}

/// The directories of model processes of this site's device, whichever user runs it.
pub fn run_directories(site: &Site) -> Vec<PathBuf> {
    let mut found = with_prefix(Path::new("/dev/shm"), "ei-greengrass.");
    found.extend(with_prefix(&std::env::temp_dir(), "ei-greengrass."));
    // A long device name is shortened to 15 bytes and a hash there.
    let name = format!(".{}", &site.device()[..15]);
    found.retain(|path| path.to_string_lossy().contains(&name));
    found
}

/// Removes what models have left behind whose component was killed, as the next start of the component does.
pub fn remove_run_directories(site: &Site) {
    for directory in run_directories(site) {
        let state = fs::read(directory.join("state.json")).unwrap_or_default();
        let state: Value = serde_json::from_slice(&state).unwrap_or_default();
        for segment in state["segments"].as_array().into_iter().flatten() {
            let name = segment.as_str().unwrap_or_default().trim_start_matches('/');
            let _ = fs::remove_file(Path::new("/dev/shm").join(name));
        }
        let _ = fs::remove_dir_all(directory);
    }
}

fn with_prefix(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect()
}

/// Every file below the site's directory, relative to it, in order.
pub fn files_of(site: &Site) -> Vec<PathBuf> {
    fn walk(directory: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, into);
            } else {
                into.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(site.path(), &mut files);
    let mut relative: Vec<_> = files
        .iter()
        .map(|file| file.strip_prefix(site.path()).expect("below").to_owned())
        .collect();
    relative.sort();
    relative
}
