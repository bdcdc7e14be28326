//! The daemon with nothing but a configuration: from the secret to messages on a broker.

use std::time::Duration;

use serde_json::{Value, json};

use super::{assert_no_secret, assert_none_of, leftovers, place, write_script};
use crate::support::aws::token_exchange::TokenExchange;
use crate::support::daemon::{Daemon, Site, scripted_model};
use crate::support::http::{HttpServer, Reply};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::ports::free_port;
use crate::support::scripts::{boxed, script};
use crate::support::studio::{self as stand_in, Shared, good_secret};

const SOURCE: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1";

pub struct Bench {
    pub site: Site,
    broker: Mosquitto,
    pub observer: Observer,
    pub secrets: HttpServer,
    pub state: Shared,
}

impl Bench {
    pub fn new() -> Self {
        let (site, broker) = (Site::new(), Mosquitto::start());
        for version in [3, 4] {
            write_script(site.path(), version, &script(&[boxed(0.5)]));
        }
        Self {
            observer: Observer::connect(broker.port, site.device()),
            state: stand_in::state(std::fs::read(scripted_model()).unwrap()),
            secrets: stand_in::secrets(&good_secret()),
            site,
            broker,
        }
    }

    pub fn run(&self, studio: &str, change: impl FnOnce(&mut std::process::Command)) -> Daemon {
        self.run_from(SOURCE, studio, change)
    }

    /// The same with another source.
    pub fn run_from(&self, source: &str, studio: &str, change: impl FnOnce(&mut std::process::Command)) -> Daemon {
        let mut command = self.site.command("run");
        command.args(["--mqtt", &self.broker.url(), "--gst", source]);
        command.args(["--set", "iotcore_backoff=1", "--set", "metrics_sleeptime_ms=500"]);
        command.args(["--set", "eiparams=--force-target runner-linux-x86_64"]);
        stand_in::surround(&mut command, &self.secrets.url(), studio);
        change(&mut command);
        Daemon::start(command)
    }

    /// Waits for metrics with such health and problems.
    fn wait_for_health(&self, what: &str, wanted: impl Fn(&Value, &[Value]) -> bool) {
        let skip = self.observer.all("model/metrics").len();
        self.observer.wait_for_nth("model/metrics", what, skip, |metrics| {
            let runner = &metrics["runner"];
            let problems = runner["problems"].as_array();
            problems.is_some_and(|problems| wanted(&runner["health"], problems))
        });
    }

    /// Waits until nothing is wrong any more.
    pub fn wait_for_no_problem(&self) {
        self.wait_for_health("no problem", |_, problems| problems.is_empty());
    }

    /// Waits until the model runs and has a problem that begins like this.
    pub fn wait_for_problem(&self, start: &str) {
        self.wait_for_health(start, |health, problems| {
            let starts = |problem: &Value| problem.as_str().is_some_and(|problem| problem.starts_with(start));
            health["model"] == "running" && problems.iter().any(starts)
        });
    }
}

#[test]
fn the_secret_becomes_a_model_becomes_messages_and_nobody_sees_the_key() {
    let bench = Bench::new();
    let mut failures = 1;
    bench.state.lock().instead.push((
        "/api/projects",
        Box::new(move |_| {
            failures -= 1;
            (failures >= 0).then(|| Reply::bytes("text/html", "<html>").status(503))
        }),
    ));
    let studio = stand_in::studio(&bench.state);
    let daemon = bench.run(&studio.url(), |c| {
        c.env("RUST_LOG", "trace");
    });
    daemon.wait_for_line("with HTTP 503");
    bench.observer.wait_for_count("inference/output", 5);
    assert!(place(bench.site.path(), 3).exists());
    assert_eq!(studio.count("/deployment/download"), 1);

    // `restart` looks for a changed version.
    bench.state.lock().version = Some(4);
    bench.observer.command(&json!({"cmd": "restart"}), |_| true);
    daemon.wait_for_line("Downloaded the model version=4");
    bench.observer.wait_for_status("started", 2);
    assert_no_secret(&daemon.stop());

    // The next start finds it there.
    let daemon = bench.run(&studio.url(), |_| {});
    daemon.wait_for_line("The model is already on this device version=4");
    bench.observer.wait_for_status("started", 3);
    assert_eq!(studio.count("/deployment/download"), 2);
    daemon.stop();
    assert!(leftovers(bench.site.path()).is_empty());
}

#[test]
fn a_stored_model_that_was_changed_is_not_started_and_is_downloaded_again() {
    let bench = Bench::new();
    let studio = stand_in::studio(&bench.state);
    let daemon = bench.run(&studio.url(), |_| {});
    bench.observer.wait_for_status("started", 1);
    daemon.stop();
    // Of the same size, and it would still start.
    let path = place(bench.site.path(), 3);
    let mut model = std::fs::read(&path).unwrap();
    *model.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &model).unwrap();

    let daemon = bench.run(&studio.url(), |_| {});
    daemon.wait_for_line("was changed or damaged: it has the SHA-256");
    daemon.wait_for_line("Downloaded the model version=3");
    bench.observer.wait_for_status("started", 2);
    assert_eq!(studio.count("/deployment/download"), 2);
    daemon.stop();
    assert_ne!(std::fs::read(&path).unwrap(), model);
}

#[test]
fn without_network_the_earlier_model_runs_and_a_newer_one_is_used_after_a_restart() {
    let bench = Bench::new();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let studio = stand_in::studio_at(port, &bench.state);
    let daemon = bench.run(&url, |_| {});
    bench.observer.wait_for_status("started", 1);
    daemon.stop();
    drop(studio);

    let daemon = bench.run(&url, |_| {});
    bench.observer.wait_for_status("started", 2);
    daemon.wait_for_line("using the one that was downloaded earlier");
    bench.wait_for_problem("model: it was downloaded earlier and may not be the newest: ");
    bench.state.lock().version = Some(4);
    let studio = stand_in::studio_at(port, &bench.state);
    daemon.wait_for_line(
        "Downloaded a new model; it is used after the next start or the command restart version=4 project=Tutorial",
    );
    bench.wait_for_no_problem();
    bench.observer.command(&json!({"cmd": "restart"}), |_| true);
    daemon.wait_for_line("The model is already on this device version=4");
    bench.observer.wait_for_status("started", 3);
    daemon.stop();
    assert_eq!(studio.count("/deployment/download"), 1);
}

#[test]
fn a_silent_studio_does_not_hold_up_the_stop() {
    let bench = Bench::new();
    stand_in::always(&bench.state, "/api/projects", Reply::hang());
    let studio = stand_in::studio(&bench.state);
    let mut daemon = bench.run(&studio.url(), |_| {});
    studio
        .requests
        .wait_for("a request", crate::support::daemon::LIMIT, |all| all.first().map(drop));
    daemon.signal(rustix::process::Signal::TERM);
    let (status, took) = daemon.wait_for_end(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_local_model_needs_no_key_and_one_that_appears_late_is_used() {
    let bench = Bench::new();
    let studio = stand_in::studio(&bench.state);
    let late = bench.site.path().join("late.eim");
    let denied = HttpServer::start(|_| stand_in::aws_error("AccessDeniedException", "no"));
    let daemon = bench.run(&studio.url(), |c| {
        c.args(["--model", late.to_str().unwrap()])
            .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", denied.url());
    });
    let line = daemon.wait_for_line("The model file (ei_local_model_file) is missing");
    assert!(line.contains("late.eim"), "{line}");
    daemon.wait_for_line("the secret EI_API_KEY cannot be read: Secrets Manager denies access");
    let model = bench.site.scripted_model(&script(&[boxed(0.5)]));
    std::fs::rename(format!("{}.json", model.display()), format!("{}.json", late.display())).unwrap();
    std::fs::rename(&model, &late).unwrap();
    bench.observer.wait_for_status("started", 1);
    daemon.stop();

    let daemon = bench.run(&studio.url(), |c| {
        c.args(["--model", late.to_str().unwrap()]);
    });
    bench.observer.wait_for_status("started", 2);
    daemon.stop();
    assert_eq!(bench.secrets.count("/"), 0);
    assert_eq!(studio.count(""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_secret_is_the_state_of_the_model() {
    let bench = Bench::new();
    let studio = stand_in::studio(&bench.state);
    let denied = HttpServer::start(|_| stand_in::aws_error("AccessDeniedException", "no"));
    let port = free_port();
    let daemon = bench.run(&studio.url(), |c| {
        let page = format!("preview_port={port}");
        c.args([
            "--set",
            "preview=on",
            "--set",
            &page,
            "--set",
            "metrics_sleeptime_ms=200",
        ])
        .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", denied.url());
    });
    let refused = |text: &serde_json::Value| {
        let text = text.as_str().unwrap_or_default();
        text.contains("the secret EI_API_KEY cannot be read: Secrets Manager denies access")
    };
    let metrics = bench
        .observer
        .wait_for("model/metrics", "the refused secret", |metrics| {
            refused(&metrics["runner"]["problems"][0])
        });
    assert_eq!(metrics["runner"]["health"]["model"], "waiting");
    daemon.wait_for_line("Listening server=\"live page\"");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{port}/api/status");
    let status: serde_json::Value = client.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(status["model"]["state"], "waiting");
    assert!(refused(&status["model"]["reason"]), "{status}");
    assert!(
        status["model"]["reason"].as_str().unwrap().contains("after 300 s"),
        "a refusal is tried again every 5 minutes: {status}"
    );
    assert_eq!(status["health"]["model"], "waiting");
    assert!(refused(&status["problems"][0]), "{status}");
    assert_no_secret(&status.to_string());
    daemon.stop();
}

#[test]
fn the_secret_is_asked_for_with_fresh_credentials_after_the_first_have_expired() {
    let bench = Bench::new();
    let exchange = TokenExchange::start(Duration::from_secs(2));
    let keys = exchange.keys();
    // Busy until the first credentials are worth nothing any more.
    let secrets = stand_in::secrets_for(exchange.keys(), move || match keys.all().first() {
        Some(first) if keys.find(&first.id).is_ok() => stand_in::aws_error("ThrottlingException", "Rate exceeded"),
        _ => stand_in::secret(&good_secret()),
    });
    let studio = stand_in::studio(&bench.state);
    let daemon = bench.run(&studio.url(), |c| {
        stand_in::exchanged(c, &exchange);
        c.env("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets.url())
            .env("RUST_LOG", "trace");
    });
    bench.observer.wait_for_status("started", 1);
    let log = daemon.stop();
    assert!(log.contains("DEBUG The log filter is set filter=trace"), "{log}");
    assert!(
        exchange.keys().all().len() > 1,
        "the first credentials were not the last"
    );
    assert!(!log.contains("ExpiredTokenException"), "{log}");
    assert_no_secret(&log);
    assert_none_of(&exchange.keys().secrets(), &log);
}

#[test]
fn the_earlier_model_runs_while_studio_builds_the_newer_one() {
    let bench = Bench::new();
    let studio = stand_in::studio(&bench.state);
    let daemon = bench.run(&studio.url(), |_| {});
    bench.observer.wait_for_status("started", 1);
    daemon.stop();
    {
        let mut state = bench.state.lock();
        state.version = None;
        state.job = stand_in::Job::Builds(4);
    }
    let daemon = bench.run(&studio.url(), |_| {});
    daemon.wait_for_line("Using an earlier model meanwhile reason=\"the newer one is still to be built\"");
    bench.observer.wait_for_status("started", 2);
    daemon.wait_for_line(
        "Downloaded a new model; it is used after the next start or the command restart version=4 project=Tutorial",
    );
    daemon.stop();
}

#[test]
fn a_model_that_is_deleted_while_it_runs_is_downloaded_again() {
    let bench = Bench::new();
    let studio = stand_in::studio(&bench.state);
    // It ends by itself after three pictures.
    let ending = json!({"exit": 1});
    write_script(
        bench.site.path(),
        3,
        &script(&[boxed(0.5), boxed(0.5), boxed(0.5), ending]),
    );
    let daemon = bench.run(&studio.url(), |_| {});
    bench.observer.wait_for_status("started", 1);
    std::fs::remove_file(place(bench.site.path(), 3)).unwrap();
    daemon.wait_for_lines("Downloaded the model version=3", 2);
    bench.observer.wait_for_status("started", 2);
    daemon.stop();
}
