//! `watch` and `send`, the tools of the person at the device.

use std::process::Output;

use crate::preview::client::BALL;
use crate::support::daemon::{Daemon, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;

fn send(site: &Site, broker: &Mosquitto, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = site.command("send");
    command.args(["--mqtt", &broker.url()]).args(arguments);
    let Output { status, stdout, stderr } = command.output().expect("run send");
    let text = [stdout, stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    (status.code(), text)
}

#[test]
fn send_prints_the_answer_and_its_exit_code_tells_the_outcome() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let daemon = site.run(&broker.url(), &["--model", "builtin:ball", "--gst", BALL]);
    observer.wait_for_status("started", 1);

    let (code, text) = send(&site, &broker, &["set_threshold_filter_confidence", "0.8"]);
    assert_eq!(
        (code, text.contains("\"confidence_threshold\": 0.8")),
        (Some(0), true),
        "{text}"
    );
    let (code, text) = send(&site, &broker, &["get_model_info"]);
    assert_eq!((code, text.contains("builtin:ball")), (Some(0), true), "{text}");
    let (code, text) = send(&site, &broker, &["set_threshold_filter_criteria", "nearly"]);
    assert_eq!((code, text.contains("accepted: gt")), (Some(1), true), "{text}");
    let (code, text) = send(&site, &broker, &["dance"]);
    assert_eq!((code, text.contains("unknown command")), (Some(1), true), "{text}");
    daemon.stop();

    let (code, text) = send(&site, &broker, &["get_model_info", "--timeout", "1"]);
    assert_eq!(
        (code, text.contains("did not answer within 1 s")),
        (Some(1), true),
        "{text}"
    );
}

#[test]
fn watch_shows_inferences_states_metrics_and_answers_as_lines() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let mut command = site.command("watch");
    command.args(["--mqtt", &broker.url()]);
    let watch = Daemon::start(command);
    watch.wait_for_line("watching ");
    let daemon = site.run(&broker.url(), &["--model", "builtin:ball", "--gst", BALL]);
    watch.wait_for_line("state started");
    watch.wait_for_line("metrics mean confidence");
    let line = watch.wait_for_line("inference ");
    assert!(line.contains("ball 0.") || line.contains("ball 1.00"), "{line}");
    send(&site, &broker, &["reset_metrics"]);
    watch.wait_for_line(r#"command {"cmd":"reset_metrics"}"#);
    watch.wait_for_line(r#"answer {"metrics_reset":"OK"}"#);
    daemon.stop();
    watch.wait_for_line("state stopped");
}

#[test]
fn without_a_broker_the_tools_say_so_and_fail() {
    let site = Site::new();
    for subcommand in ["watch", "send"] {
        let mut command = site.command(subcommand);
        command.args(["--mqtt", "mqtt://127.0.0.1:9"]);
        if subcommand == "send" {
            command.arg("restart");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("no connection to mqtt://127.0.0.1:9"), "{text}");
    }
}
