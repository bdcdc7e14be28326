//! Libraries outside the system's directories are found without environment variables.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::daemon::{Daemon, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, script};

/// The plugin that stands for kvssink: a line needs it, and the system's directory lacks it.
const PLUGIN: &str = "libgstvideotestsrc.so";

/// A home in which `install.sh` built kvssink, whose build directory also holds [`PLUGIN`], and a directory with
/// every other plugin of the system.
fn home_and_system(site: &Site) -> (PathBuf, PathBuf) {
    gstreamer::init().unwrap();
    let plugin = gstreamer::Registry::get().find_plugin("videotestsrc").unwrap();
    let plugin = plugin.filename().unwrap();
    let (home, system) = (site.path().join("home"), site.path().join("system"));
    let build = home.join("amazon-kinesis-video-streams-producer-sdk-cpp/build");
    fs::create_dir_all(&build).unwrap();
    fs::create_dir(&system).unwrap();
    for entry in fs::read_dir(plugin.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != PLUGIN {
            symlink(entry.path(), system.join(entry.file_name())).unwrap();
        }
    }
    symlink(&plugin, build.join(PLUGIN)).unwrap();
    fs::write(build.join("libgstkvssink.so"), "").unwrap();
    (home, system)
}

#[test]
fn kvssink_is_found_where_the_install_step_built_it_when_it_is_wanted() {
    let site = Site::new();
    let (home, system) = home_and_system(&site);
    let check = |wanted: &str| {
        let output = site
            .command("check")
            .args(["--model", "builtin:ball", "--gst", "videotestsrc ! videoconvert"])
            .args(["--set", &format!("install_kvssink={wanted}")])
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", site.path().join("cache"))
            .env("GST_PLUGIN_SYSTEM_PATH_1_0", &system)
            .env_remove("GST_PLUGIN_PATH")
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let report = check("no");
    assert!(report.contains("missing: \"videotestsrc\""), "{report}");
    let report = check("yes");
    assert!(report.contains("runs: videotestsrc ! videoconvert !"), "{report}");
    assert!(!report.contains("missing:"), "{report}");
}

#[test]
fn an_element_that_is_installed_while_the_component_runs_is_found() {
    let site = Site::new();
    let (home, system) = home_and_system(&site);
    let mut command = site.command("run");
    command.args([
        "--mqtt",
        "mqtt://127.0.0.1:9",
        "--model",
        "builtin:ball",
        "--gst",
        "videotestsrc ! videoconvert",
    ]);
    command
        .env("HOME", &home)
        .env("XDG_CACHE_HOME", site.path().join("cache"))
        .env("GST_PLUGIN_SYSTEM_PATH_1_0", &system)
        .env_remove("GST_PLUGIN_PATH");
    let daemon = Daemon::start(command);
    daemon.wait_for_line("videotestsrc");
    let plugin = home
        .join("amazon-kinesis-video-streams-producer-sdk-cpp/build")
        .join(PLUGIN);
    fs::rename(plugin, system.join(PLUGIN)).unwrap();
    daemon.wait_for_line("Capture runs");
    daemon.stop();
}

/// The environment of a process, one variable a line.
fn environment(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables = bytes.split(|byte| *byte == 0);
    variables
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect()
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
    let lists: Vec<_> = lists.collect();
    lists
        .iter()
        .flat_map(|list| list.split_whitespace())
        .map(|pid| pid.parse().unwrap())
        .collect()
}

#[test]
fn a_running_daemon_and_its_model_have_the_libraries_and_keep_the_process() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let tvm = site.path().join("tvm");
    fs::create_dir(&tvm).unwrap();
    let model = site.scripted_model(&script(&[boxed(0.9)]));
    let home = site.path().join("home");
    let kvs = home.join("amazon-kinesis-video-streams-producer-sdk-cpp");
    fs::create_dir_all(kvs.join("build")).unwrap();
    fs::write(kvs.join("build/libgstkvssink.so"), "").unwrap();
    let mut command = site.command("run");
    command
        .args(["--mqtt", &broker.url(), "--set", "install_kvssink=yes", "--gst"])
        .arg("videotestsrc is-live=true ! video/x-raw,width=64,height=48")
        .arg("--model")
        .arg(&model)
        .env("HOME", &home)
        .env("TVM_HOME", &tvm)
        .env("XDG_CACHE_HOME", site.path().join("cache"))
        .env_remove("GST_PLUGIN_PATH")
        .env_remove("LD_LIBRARY_PATH");
    let daemon = Daemon::start(command);
    observer.wait_for_count("inference/output", 1);

    let libraries = kvs.join("open-source/local/lib").display().to_string();
    let has = |pid, variable: &str, value: &str| {
        let found = environment(pid);
        assert!(
            found.contains(&format!("{variable}={value}")),
            "{variable}={value} not in {found:?}"
        );
    };
    has(daemon.pid(), "GST_PLUGIN_PATH", &path(&kvs.join("build")));
    has(daemon.pid(), "LD_LIBRARY_PATH", &libraries);
    let model = children(daemon.pid())[0];
    has(model, "TVM_HOME", &path(&tvm));
    let tvm = path(&tvm);
    has(
        model,
        "LD_LIBRARY_PATH",
        &format!("{tvm}/build_runtime:{tvm}:/usr/local/lib:{libraries}"),
    );
    let log = daemon.stop();
    assert_eq!(log.matches("ei-greengrass starts").count(), 1, "{log}");
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
