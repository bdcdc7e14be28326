//! `check` and `run` give one verdict, and `check` changes nothing.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;

use crate::daemon::by_hand::{Finished, check, finish, section};
use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, script};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1";
/// A broker that is never there.
const NOWHERE: [&str; 2] = ["--mqtt", "mqtt://127.0.0.1:9"];

fn with_source<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--model", "builtin:ball", "--gst", LIVE], arguments].concat()
}

/// The result of `check`.
fn result(report: &Finished) -> String {
    section(&report.out, "Result").join(" ")
}

#[test]
fn check_and_run_refuse_the_same_configurations_for_the_same_reason() {
    let site = Site::new();
    site.write("file", "");
    let lock = |name: &str| format!("lock_filename={}", site.path().join(name).display());
    let (missing, below_file) = (lock("missing/lock"), lock("file/lock"));
    let s3 = ["--set", "enable_cache_to_s3=yes", "--set"];
    for (arguments, reason) in [
        (&["--set", missing.as_str()][..], "its directory does not exist"),
        (&["--set", &below_file], "Not a directory"),
        (
            &["--set", "iot_endpoint=localhost:1883"],
            "is not the address of an MQTT broker",
        ),
        (
            &["--set", "iot_endpoint=two words"],
            "is not the address of an MQTT broker",
        ),
        (&["--set", "iot_endpoint=https://h"], "is not the URL of an MQTT broker"),
        (
            &[s3[0], s3[1], s3[2], "s3_bucket=MyS3Bucket123"],
            "the name has capital letters",
        ),
        (
            &[s3[0], s3[1], s3[2], "s3_bucket=my_bucket"],
            "the name has the character",
        ),
    ] {
        let arguments = with_source(arguments);
        let (report, mut run) = (check(&site, &arguments), site.command("run"));
        run.args(&arguments);
        let run = finish(run);
        assert_eq!((report.code, run.code), (Some(2), Some(2)), "{report:?} {run:?}");
        assert!(
            report.all().contains(reason) && run.all().contains(reason),
            "{reason}: {report:?} {run:?}"
        );
        assert!(
            !report.out.contains("`run` starts with this configuration"),
            "{report:?}"
        );
    }
}

#[test]
fn check_refuses_a_model_that_refuses_the_hello() {
    let site = Site::new();
    let refusing = site.scripted_model(&json!({"hello": {"success": false, "error": "no licence"}}));
    let report = check(&site, &["--model", refusing.to_str().unwrap(), "--gst", LIVE]);
    assert_eq!(report.code, Some(2), "{report:?}");
    assert!(result(&report).contains("no licence"), "{report:?}");
}

#[test]
fn check_refuses_a_certificate_that_cannot_be_used() {
    let site = Site::new();
    let no_key = site.write("key.pem", "no key");
    let key = format!("iot_key={}", no_key.display());
    let arguments = [
        "iot_auth=x509",
        "iot_cert=/nonexistent.pem",
        &key,
        "iot_endpoint=mqtts://127.0.0.1:9",
    ];
    let sets: Vec<_> = arguments.iter().flat_map(|set| ["--set", set]).collect();
    let report = check(&site, &with_source(&sets));
    assert_eq!(report.code, Some(2), "{report:?}");
    let result = result(&report);
    assert!(
        result.contains("publishes nothing") && result.contains("iot_cert names /nonexistent.pem"),
        "{result}"
    );
}

#[test]
fn a_source_that_is_not_there_yet_is_said_and_is_no_error() {
    let site = Site::new();
    let camera = [
        "--model",
        "builtin:ball",
        "--gst",
        "v4l2src device=/dev/video99 ! videoconvert",
    ];
    let report = check(&site, &[&camera[..], &NOWHERE].concat());
    assert_eq!(report.code, Some(0), "{report:?}");
    assert!(
        result(&report).contains("infers nothing while /dev/video99 is not there"),
        "{report:?}"
    );
}

#[test]
fn what_run_goes_without_is_said_and_is_no_error() {
    let site = Site::new();
    site.write("file", "");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let sets = [
        format!("work_dir={}", site.path().join("file/work").display()),
        "enable_cache_to_file=yes".to_owned(),
        format!("cache_file_directory={}", site.path().join("file/cache").display()),
        "preview=on".to_owned(),
        "preview_host=127.0.0.1".to_owned(),
        format!("preview_port={port}"),
    ];
    let sets: Vec<_> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let report = check(&site, &with_source(&[&sets[..], &NOWHERE].concat()));
    assert_eq!(report.code, Some(0), "{report:?}");
    let said = section(&report.out, "Limitations").join("\n");
    for key in ["work_dir", "cache_file_directory", &format!("preview_port {port}")] {
        assert!(said.contains(key), "{key}: {said}");
    }
}

#[test]
fn check_names_the_instance_that_a_start_would_meet() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let arguments = with_source(&[]);
    let daemon = site.run(&broker.url(), &arguments);
    observer.wait_for_status("started", 1);
    let report = check(&site, &with_source(&NOWHERE));
    assert_eq!(report.code, Some(0), "the configuration can be used: {report:?}");
    let pid = format!(
        "now it ends with exit code 3: an ei-greengrass is running for this device (pid {})",
        daemon.pid()
    );
    assert!(result(&report).contains(&pid), "{report:?}");
    daemon.stop();
}

/// Every file below the directory: its path, mode, owner, length and time of the last change.
fn tree(directory: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        files.push(format!(
            "{} {:o} {} {} {:?}",
            path.display(),
            meta.mode(),
            meta.uid(),
            meta.len(),
            meta.modified().unwrap()
        ));
        if meta.is_dir() {
            files.extend(tree(&path));
        }
    }
    files.sort();
    files
}

#[test]
fn check_and_model_info_change_nothing_and_ask_a_model_that_is_not_executable_yet() {
    let site = Site::new();
    let model = site.scripted_model(&script(&[boxed(0.6)]));
    std::fs::set_permissions(&model, std::fs::Permissions::from_mode(0o644)).unwrap();
    let before = tree(site.path());
    let sets = [
        format!("work_dir={}", site.path().join("work").display()),
        "enable_cache_to_file=yes".to_owned(),
        format!("cache_file_directory={}", site.path().join("work/cache").display()),
        "preview=on".to_owned(),
    ];
    let sets: Vec<_> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let mut command = site.command("check");
    command
        .args(["--model", model.to_str().unwrap(), "--gst", LIVE])
        .args(&sets)
        .env("HOME", site.path())
        .env_remove("XDG_CACHE_HOME");
    let report = finish(command);
    assert_eq!(report.code, Some(0), "{report:?}");
    assert!(
        section(&report.out, "Model").join(" ").contains("Scripted v7"),
        "{report:?}"
    );

    let mut command = site.bare_command();
    command.args(["model", "info", model.to_str().unwrap()]).args(&sets);
    let info = finish(command);
    assert!(info.code == Some(0) && info.out.contains("Scripted"), "{info:?}");
    assert_eq!(tree(site.path()), before);
}
