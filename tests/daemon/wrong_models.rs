//! Files that are not a usable model: the error explains why, and a replaced file is used without a restart.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::daemon::by_hand::{check, section};
use crate::support::daemon::{Site, scripted_model};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, script};

const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1";

/// The head of a program for another machine.
fn elf(machine: u16) -> Vec<u8> {
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(16, 0);
    head.extend_from_slice(&[2, 0]);
    head.extend_from_slice(&machine.to_le_bytes());
    head.resize(4096, 0);
    head
}

/// `check` and `run` explain a file that is not a model. When a model replaces it, the model starts.
#[track_caller]
fn wrong_model(put: impl FnOnce(&Path), words: &[&str]) {
    wrong_model_told_by("The model failed and restarts", put, words, words, 2);
}

/// The log line contains `line` and all of `words`. The output of `check`, which exits with `code`, contains `shown_words`.
fn wrong_model_told_by(line: &str, put: impl FnOnce(&Path), words: &[&str], shown_words: &[&str], code: i32) {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let path = site.path().join("model.eim");
    put(&path);
    let arguments = [
        "--model",
        path.to_str().unwrap(),
        "--gst",
        LIVE,
        "--mqtt",
        &broker.url(),
    ];
    let report = check(&site, &arguments);
    let shown = section(&report.out, "Model").join(" ");
    assert_eq!(report.code, Some(code), "{report:?}");
    let result = section(&report.out, "Result").join(" ");
    let is_said = |word: &&str| result.contains("`run` starts and infers nothing") && result.contains(word);
    assert_eq!(shown_words.iter().all(is_said), code == 2, "{result}");
    let daemon = site.run(&broker.url(), &arguments[..4]);
    let told = daemon.wait_for_line(line);
    for word in shown_words {
        assert!(shown.contains(word), "{word:?} in {shown}");
    }
    for word in words {
        assert!(told.contains(word) && told.contains(" WARN "), "{word:?} in {told}");
    }
    if path.is_dir() {
        std::fs::remove_dir(&path).unwrap();
    }
    let good = site.path().join("good.eim");
    std::fs::copy(scripted_model(), &good).unwrap();
    site.write("model.eim.json", script(&[boxed(0.6)]).to_string());
    std::fs::rename(good, &path).unwrap();
    observer.wait_for_status("started", 1);
    daemon.stop();
}

#[test]
fn a_model_for_another_machine_is_reported_and_can_be_replaced() {
    let this = if cfg!(target_arch = "x86_64") {
        "x86-64"
    } else {
        "this machine is"
    };
    let other = if cfg!(target_arch = "x86_64") {
        (183, "built for aarch64")
    } else {
        (62, "built for x86-64")
    };
    wrong_model(
        |path| std::fs::write(path, elf(other.0)).unwrap(),
        &[other.1, this, "model.eim"],
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_model_for_a_32_bit_arm_is_told_and_replaced() {
    wrong_model(
        |path| std::fs::write(path, elf(40)).unwrap(),
        &["built for ARM (32 bit)", "x86-64"],
    );
}

#[test]
fn a_truncated_model_is_reported_and_can_be_replaced() {
    wrong_model(
        |path| {
            let whole = std::fs::read(scripted_model()).unwrap();
            std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
        },
        &["is not complete: it has"],
    );
}

#[test]
fn a_web_page_instead_of_a_model_is_reported_and_can_be_replaced() {
    let page = "<!DOCTYPE html>\n<html><body>Please log in</body></html>";
    wrong_model(
        |path| std::fs::write(path, page).unwrap(),
        &["a web page", "Edge Impulse Studio"],
    );
}

#[test]
fn a_script_instead_of_a_model_is_reported_and_can_be_replaced() {
    wrong_model(
        |path| std::fs::write(path, "#!/bin/sh\nexit 0\n").unwrap(),
        &["a script"],
    );
}

#[test]
fn a_directory_instead_of_a_model_is_reported_and_can_be_replaced() {
    wrong_model(|path| std::fs::create_dir(path).unwrap(), &["a directory"]);
}

#[test]
fn an_archive_in_place_of_a_model_is_reported_and_replaced() {
    wrong_model(
        |path| std::fs::write(path, b"PK\x03\x04....").unwrap(),
        &["a ZIP archive"],
    );
}

#[test]
fn another_program_in_place_of_a_model_is_reported_and_replaced() {
    wrong_model(
        |path| assert!(std::fs::copy("/bin/true", path).unwrap() > 0),
        &["the model ended (exit status 0) while it was starting"],
    );
}

#[test]
fn a_script_without_its_interpreter_is_reported_and_replaced() {
    let put = |path: &Path| {
        std::fs::write(path, "#!/opt/no-such-python3\nprint(1)\n").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    wrong_model(put, &["needs /opt/no-such-python3, which is not on this machine"]);
}

#[test]
fn a_missing_model_is_reported_and_started_when_it_appears() {
    let words = ["model.eim", "ei_local_model_file"];
    // Edge Impulse Studio may have one.
    wrong_model_told_by("is missing", |_| {}, &words, &["model.eim"], 0);
}

#[test]
fn a_model_for_another_sensor_is_reported_and_can_be_replaced() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let mut wrong = script(&[boxed(0.6)]);
    let parameters = &mut wrong["hello"]["model_parameters"];
    parameters["sensor"] = json!(2);
    for key in ["image_input_width", "image_input_height", "image_channel_count"] {
        parameters[key] = json!(0);
    }
    let model = site.scripted_model(&wrong);
    let arguments = [
        "--model",
        model.to_str().unwrap(),
        "--gst",
        LIVE,
        "--set",
        "metrics_sleeptime_ms=200",
    ];
    let daemon = site.run(&broker.url(), &arguments);
    let line = daemon.wait_for_line("accelerometer");
    assert!(
        line.contains(" ERROR ") && line.contains(r#"model="Scripted" version=7"#),
        "{line}"
    );
    let told = observer.all("model/metrics").len();
    observer.wait_for_count("model/metrics", told + 5);
    let runner = &observer.all("model/metrics")[told + 4].json()["runner"];
    assert_eq!(runner["health"]["model"], "unsupported-model");
    assert!(
        runner["problems"]
            .to_string()
            .contains("model: the model works on sensor \\\"accelerometer\\\"")
    );
    assert_eq!(daemon.log().matches("accelerometer").count(), 1, "once");
    // It can still be asked, and told that there is another model now.
    observer.send_raw(json!({"cmd": "get_model_info"}).to_string(), false);
    let answer = observer.wait_for_answers(1).remove(0);
    assert_eq!(
        answer["result"]["model_info"]["model_params"]["sensorType"],
        "accelerometer"
    );
    let name = model.file_name().unwrap().to_str().unwrap();
    site.write(&format!("{name}.json"), script(&[boxed(0.6)]).to_string());
    observer.send_raw(json!({"cmd": "restart"}).to_string(), false);
    observer.wait_for_status("started", 1);
    daemon.stop();
}
