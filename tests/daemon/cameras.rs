//! Configurations without a launch line and without a matching camera.

use serde_json::json;

use crate::support::daemon::Site;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, script};

const NONE: &str = "eiparams=--camera 'No Such Camera'";

#[test]
fn without_its_camera_the_daemon_keeps_running_lists_the_others_and_tries_again() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let model = site.scripted_model(&script(&[boxed(0.5)]));
    let daemon = site.run(
        &broker.url(),
        &[
            "--model",
            model.to_str().unwrap(),
            "--set",
            NONE,
            "--set",
            "metrics_sleeptime_ms=200",
        ],
    );
    let line = daemon.wait_for_line("there is no camera \"No Such Camera\"");
    assert!(
        line.contains("The source failed and restarts") && line.contains("gst_args"),
        "{line}"
    );
    observer.wait_for("model/metrics", "a second attempt", |metrics| {
        metrics["runner"]["capture_restarts"].as_u64() >= Some(2)
    });
    let log = daemon.stop();
    assert_eq!(
        log.matches("there is no camera").count(),
        1,
        "the same failure is logged once a minute"
    );
    let result = observer.wait_for_status("stopped", 1);
    assert_eq!(result["result"]["status"], json!("stopped"));
}

#[test]
fn check_lists_cameras_and_microphones_and_shows_the_selected_one() {
    let site = Site::new();
    let output = site
        .bare_command()
        .args(["check", "--cameras", "--set", NONE])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Cameras\n") && text.contains("Microphones\n"), "{text}");
    assert!(text.contains("there is no camera \"No Such Camera\""), "{text}");

    let mut command = site.command("check");
    let arguments = ["--mqtt", "mqtt://localhost", "--model", "builtin:ball", "--set", NONE];
    let output = command.args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("camera: there is no camera \"No Such Camera\""), "{text}");
    assert!(
        text.contains("--camera 'No Such Camera': use this camera where no pipeline is given"),
        "{text}"
    );
}
