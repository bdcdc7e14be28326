//! A configuration that is deployed while the component runs.

use serde_json::{Value, json};

use super::{lifecycle_step, parameters};
use crate::support::daemon::{Daemon, Site};
use crate::support::mosquitto::Mosquitto;
use crate::support::nucleus::Nucleus;
use crate::support::observer::{Observer, Seen};
use crate::support::ports::free_port;
use crate::support::scripts::{boxed, script};

/// A running component with the configuration that its nucleus has.
struct Deployed {
    site: Site,
    observer: Observer,
    nucleus: Nucleus,
    daemon: Daemon,
    parameters: Value,
    _broker: Mosquitto,
}

impl Deployed {
    /// Deploys the usual parameters with these changes, and waits for the first inference.
    fn start(changes: Value) -> Self {
        let (site, broker) = (Site::new(), Mosquitto::start());
        let observer = Observer::connect(broker.port, site.device());
        let parameters = merged(parameters(&site, &broker), changes);
        let nucleus = Nucleus::start(parameters.clone());
        let daemon = Daemon::start(lifecycle_step(&site, &nucleus, &["run"]));
        observer.wait_for_status("started", 1);
        // Earlier changes are not noticed.
        nucleus.wait_for("SubscribeToConfigurationUpdate", 1);
        Self {
            site,
            observer,
            nucleus,
            daemon,
            parameters,
            _broker: broker,
        }
    }

    /// Deploys further changes.
    fn deploy(&mut self, changes: Value) {
        self.parameters = merged(self.parameters.take(), changes);
        self.nucleus.deploy(self.parameters.clone());
    }

    /// Deploys further changes, and waits for the notice about them.
    fn change(&mut self, changes: Value) -> Value {
        let before = self.notices();
        self.deploy(changes);
        self.observer.wait_for_status("reconfigured", before + 1)["result"].clone()
    }

    fn notices(&self) -> usize {
        let all = self.observer.all("command/output");
        let is_notice = |seen: &&Seen| seen.json()["result"]["status"] == "reconfigured";
        all.iter().filter(is_notice).count()
    }

    fn starts(&self) -> usize {
        let all = self.observer.all("command/output");
        all.iter()
            .filter(|seen| seen.json()["result"]["status"] == "started")
            .count()
    }

    /// Waits for the next inference message after this moment for which `wanted` holds.
    fn wait_for_inference(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let before = self.observer.all("inference/output").len();
        self.observer.wait_for_nth("inference/output", what, before, wanted)
    }
}

fn merged(mut parameters: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        parameters[key] = value.clone();
    }
    parameters
}

#[test]
fn the_band_of_collected_frames_changes_while_the_inference_continues() {
    // The model's only value is 0.9.
    let mut component = Deployed::start(json!({"collect_uncertain": "0.1-0.2", "metrics_sleeptime_ms": 200}));
    let notice = component.change(json!({"collect_uncertain": "0.85-0.95"}));
    assert_eq!(
        (&notice["changed"], &notice["applied"]),
        (&json!(["collect_uncertain"]), &json!("at_once"))
    );
    let taken = |message: &Value| message["runner"]["collect_taken"] == 1;
    component.observer.wait_for("model/metrics", "a frame is taken", taken);
    assert_eq!(component.starts(), 1);
    component.daemon.stop();
}

#[test]
fn filter_gate_and_publishing_change_while_the_inference_continues() {
    let mut component = Deployed::start(json!({"iotcore_backoff": 2}));
    let notice = component.change(json!({"iotcore_backoff": 1, "publish_inference_base64_image": "yes"}));
    assert_eq!(
        notice["changed"],
        json!(["iotcore_backoff", "publish_inference_base64_image"])
    );
    assert_eq!((&notice["applied"], notice.get("warnings")), (&json!("at_once"), None));
    component.wait_for_inference("with its picture", |message| message["image"].is_string());

    // The model's only value is 0.9.
    component.change(json!({"enable_threshold_limit": "yes", "default_threshold": 0.95, "metrics_sleeptime_ms": 200}));
    let filtered = |message: &Value| message["runner"]["filtered"].as_u64() > Some(0);
    component
        .observer
        .wait_for("model/metrics", "filtered inferences", filtered);
    let settings = component
        .observer
        .command(&json!({"cmd": "get_threshold_filter_config"}), |result| {
            result["threshold_filter_config"].is_object()
        });
    assert_eq!(settings["threshold_filter_config"]["confidence_threshold"], 0.95);
    component.change(json!({"default_threshold": 0.5}));
    component.wait_for_inference("that passes again", |_| true);
    assert_eq!(component.starts(), 1, "neither model nor source was started again");
    component.daemon.stop();
}

#[test]
fn the_file_cache_is_switched_on_and_moved_without_losing_a_pair() {
    let mut component = Deployed::start(json!({}));
    let (first, second) = (
        component.site.path().join("first"),
        component.site.path().join("second"),
    );
    component.change(json!({"enable_cache_to_file": "yes", "cache_file_directory": first}));
    let message = component.wait_for_inference("with a pair", |_| true);
    component.change(json!({"cache_file_directory": second}));
    component.wait_for_inference("after the change", |_| true);
    let last = component.wait_for_inference("with a pair in the second directory", |_| true);
    assert_eq!(component.starts(), 1);
    let before = component.observer.all("inference/output");
    component.daemon.stop();
    let has_pair = |message: &Value| {
        let file = format!("{}.img", message["id"].as_str().unwrap());
        [&first, &second].map(|directory| directory.join(&file).exists())
    };
    assert_eq!(has_pair(&last), [false, true]);
    let cached = before.iter().map(|seen| seen.json());
    let cached = cached.skip_while(|earlier| earlier["id"] != message["id"]);
    for message in cached {
        assert!(has_pair(&message).contains(&true), "{message}");
    }
}

#[test]
fn a_new_model_and_source_start_a_session_on_the_same_connection() {
    let mut component = Deployed::start(json!({}));
    let model = component.site.scripted_model(&script(&[boxed(0.25)]));
    let notice = component.change(json!({"ei_local_model_file": model, "iotcore_backoff": "2"}));
    assert_eq!(notice["changed"], json!(["iotcore_backoff", "ei_local_model_file"]));
    assert_eq!(notice["applied"], "new_session");
    component.wait_for_inference("of the new model", |message| message["box"][0]["value"] == 0.25);
    component.observer.wait_for_status("started", 2);
    let answers = component.observer.all("command/output");
    assert!(
        answers.iter().all(|seen| seen.json()["result"]["status"] != "stopped"),
        "the connection stays"
    );
    component.daemon.stop();
}

#[test]
fn another_device_name_is_taken_by_a_new_process_in_place() {
    let mut component = Deployed::start(json!({}));
    let pid = component.daemon.pid();
    let name = format!("{}second", component.site.device());
    let notice = component.change(json!({"device_name": name}));
    assert_eq!(
        (&notice["changed"], &notice["applied"]),
        (&json!(["device_name"]), &json!("new_process"))
    );
    component.observer.wait_for_status("stopped", 1);
    component.observer.wait_for_status("started", 2);
    component.observer.wait_for_count("inference/output", 1);
    let notices = component.observer.all("command/output");
    assert!(notices.last().unwrap().topic.contains(&name), "{notices:?}");
    component.daemon.wait_for_lines("ei-greengrass starts", 2);
    assert_eq!(component.daemon.pid(), pid);
    // The new process follows the configuration as the first one did.
    component.nucleus.wait_for("SubscribeToConfigurationUpdate", 2);
    component.change(json!({"iotcore_backoff": 3}));
    component.daemon.stop();
}

#[test]
fn a_configuration_that_cannot_run_leaves_the_present_one_in_force() {
    let mut component = Deployed::start(json!({}));
    component.deploy(json!({"launch": "windows"}));
    let refused = component.observer.wait_for_status("configuration_refused", 1);
    assert!(
        refused["result"]["error"].as_str().unwrap().contains("windows"),
        "{refused}"
    );
    let request = component.nucleus.wait_for("UpdateState", 1);
    assert_eq!(request, json!({"state": "ERRORED"}));
    component.wait_for_inference("with the present configuration", |_| true);
    component.change(json!({"launch": "runner", "metrics_sleeptime_ms": 150}));
    let is_ok = |metrics: &Value| metrics["runner"]["health"]["configuration"] == "ok";
    component
        .observer
        .wait_for("model/metrics", "a healthy configuration", is_ok);
    assert_eq!(component.starts(), 1);
    component.daemon.stop();
}

#[test]
fn values_that_are_not_used_are_named_in_the_notice() {
    let mut component = Deployed::start(json!({}));
    let notice = component.change(json!({"iotcore_backoff": "many", "iotcore_qos": 0}));
    let warnings = notice["warnings"].as_array().unwrap();
    assert!(warnings[0].as_str().unwrap().contains("many"), "{notice}");
    assert_eq!(notice["changed"], json!(["iotcore_backoff", "iotcore_qos"]));
    component.daemon.stop();
}

#[test]
fn changes_during_an_outage_of_the_nucleus_are_applied_after_it() {
    let mut component = Deployed::start(json!({}));
    component.nucleus.stop();
    component.deploy(json!({"iotcore_backoff": 4}));
    component.nucleus.resume();
    let notice = component.observer.wait_for_status("reconfigured", 1);
    assert_eq!(notice["result"]["changed"], json!(["iotcore_backoff"]));
    component.daemon.stop();
}

#[test]
fn the_inference_server_restarts_in_place_with_a_new_port() {
    let site = Site::new();
    let (first, second) = (free_port(), free_port());
    let base = json!({
        "device_name": site.device(),
        "lock_filename": site.path().join("lock"),
        "work_dir": site.path(),
        "ei_local_model_file": site.scripted_model(&script(&[boxed(0.9)])),
        "eiparams": format!("--run-http-server {first}"),
    });
    let nucleus = Nucleus::start(base.clone());
    let daemon = Daemon::start(lifecycle_step(&site, &nucleus, &["run"]));
    daemon.wait_for_line(&format!(":{first}"));
    nucleus.wait_for("SubscribeToConfigurationUpdate", 1);
    nucleus.deploy(merged(base, json!({"eiparams": format!("--run-http-server {second}")})));
    daemon.wait_for_line(&format!(":{second}"));
    daemon.stop();
}
