//! Launch lines that name a secret of AWS Secrets Manager: `{{secret:NAME:KEY}}`.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde_json::json;

use crate::support::daemon::{Daemon, Site};
use crate::support::http::{HttpServer, Reply};
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::scripts::{boxed, script};
use crate::support::studio::{aws_error, secret, surround};

const USER: &str = "cam user";
/// All that a launch line, a shell, a URI or GStreamer's own quoting reads in a special way.
const PASSWORD: &str = "Canary91735 \"a'b\\c!d@e#f/g?h%i,j;k=l{m}\\";
const NEW_PASSWORD: &str = "Canary91735-new ! \"x\"";

/// A camera that gives a still picture for the right user and password.
fn camera(password: &Arc<Mutex<String>>) -> HttpServer {
    let picture = image::RgbImage::from_pixel(64, 48, image::Rgb([200, 20, 20]));
    let mut jpeg = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut jpeg, image::ImageFormat::Jpeg)
        .expect("a picture");
    let (password, jpeg) = (password.clone(), jpeg.into_inner());
    HttpServer::start(move |request| {
        let wanted = BASE64_STANDARD.encode(format!("{USER}:{}", password.lock()));
        match request.headers.get("authorization") {
            Some(given) if *given == format!("Basic {wanted}") => Reply::bytes("image/jpeg", jpeg.clone()),
            _ => Reply::bytes("text/plain", "")
                .status(401)
                .header("WWW-Authenticate", "Basic realm=\"camera\""),
        }
    })
}

/// A Secrets Manager with the user and the password, and a switch that takes it off the network.
fn secrets_manager(password: &Arc<Mutex<String>>) -> (HttpServer, Arc<AtomicBool>) {
    let (password, is_down) = (password.clone(), Arc::new(AtomicBool::new(false)));
    let down = is_down.clone();
    let server = HttpServer::start(move |_| match down.load(Ordering::SeqCst) {
        true => aws_error("InternalServiceError", "down").status(500),
        false => secret(&json!({"user": USER, "password": *password.lock()})),
    });
    (server, is_down)
}

fn command(site: &Site, subcommand: &str, line: &str, secrets: &HttpServer) -> Command {
    let mut command = site.command(subcommand);
    let model = site.scripted_model(&script(&[boxed(0.5)]));
    command.arg("--model").arg(model).args(["--gst", line]);
    surround(&mut command, &secrets.url(), "http://127.0.0.1:9");
    command.env("AWS_MAX_ATTEMPTS", "1");
    command
}

fn start(site: &Site, broker: &Mosquitto, line: &str, secrets: &HttpServer) -> Daemon {
    let mut command = command(site, "run", line, secrets);
    command.args(["--mqtt", &broker.url()]).env("RUST_LOG", "trace");
    for set in ["iotcore_backoff=1", "metrics_sleeptime_ms=200", "still_interval_ms=200"] {
        command.args(["--set", set]);
    }
    Daemon::start(command)
}

/// No part of a secret in any form in which GStreamer or HTTP may repeat it.
#[track_caller]
fn assert_clean(out: &str) {
    for canary in ["Canary", "Q2FuYXJ5", "43616e617279"] {
        assert!(!out.contains(canary), "{canary} in {out}");
    }
}

fn accepted(camera: &HttpServer, password: &str) -> usize {
    let wanted = format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{password}")));
    camera.requests.with(|all| {
        let is_accepted = |given: Option<&String>| given == Some(&wanted);
        all.iter()
            .filter(|request| is_accepted(request.headers.get("authorization")))
            .count()
    })
}

#[test]
fn a_source_gets_its_password_from_secrets_manager_and_a_new_one_after_a_change() {
    let (at_camera, at_aws) = (
        Arc::new(Mutex::new(PASSWORD.to_owned())),
        Arc::new(Mutex::new(PASSWORD.to_owned())),
    );
    let camera = camera(&at_camera);
    let (secrets, is_down) = secrets_manager(&at_aws);
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let line = format!(
        "souphttpsrc:location={}/snap.jpg:user-id={{{{secret:cam:user}}}}:user-pw={{{{secret:cam:password}}}}:!:jpegdec",
        camera.url()
    );
    let daemon = start(&site, &broker, &line, &secrets);
    observer.wait_for_count("inference/output", 3);
    assert!(accepted(&camera, PASSWORD) >= 3);
    assert_eq!(
        secrets.count("/"),
        1,
        "one request for one secret, and none for each picture"
    );

    *at_aws.lock() = NEW_PASSWORD.to_owned();
    *at_camera.lock() = NEW_PASSWORD.to_owned();
    daemon.wait_for_line("A secret of the launch line has changed");
    let before = observer.all("inference/output").len();
    observer.wait_for_count("inference/output", before + 2);

    is_down.store(true, Ordering::SeqCst);
    *at_camera.lock() = "another".to_owned();
    daemon.wait_for_line("the value that was read last is used");
    *at_camera.lock() = NEW_PASSWORD.to_owned();
    let before = observer.all("inference/output").len();
    observer.wait_for_count("inference/output", before + 2);

    let log = daemon.stop();
    assert!(log.contains("user-pw={{secret:cam:password}}"), "{log}");
    assert_clean(&log);
    for seen in observer.all("") {
        assert_clean(&String::from_utf8_lossy(&seen.payload));
    }
}

#[test]
fn a_password_within_a_uri_is_encoded() {
    let password = Arc::new(Mutex::new(PASSWORD.to_owned()));
    let (camera, (secrets, _)) = (camera(&password), secrets_manager(&password));
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:cam-AbCdEf";
    let line = format!(
        "souphttpsrc location=http://{{{{secret:{arn}:user}}}}:{{{{secret:{arn}:password}}}}@127.0.0.1:{}/snap.jpg ! jpegdec",
        camera.port
    );
    let daemon = start(&site, &broker, &line, &secrets);
    observer.wait_for_count("inference/output", 2);
    assert!(accepted(&camera, PASSWORD) >= 2);
    assert_clean(&daemon.stop());
}

#[test]
fn a_secret_that_cannot_be_had_is_a_problem_of_the_source_with_its_remedy() {
    let denied = aws_error(
        "AccessDeniedException",
        "User: arn:aws:sts::123456789012:assumed-role/Role/cam is not authorized to perform: secretsmanager:GetSecretValue",
    );
    for (answer, part) in [
        (denied, "needs secretsmanager:GetSecretValue"),
        (aws_error("ResourceNotFoundException", "no"), "there is no such secret"),
        (secret(&json!({"user": "Canary91735"})), "the secret has no such key"),
        (secret(&json!("Canary91735")), "the secret is plain text"),
    ] {
        let secrets = HttpServer::start(move |_| answer.clone());
        let (site, broker) = (Site::new(), Mosquitto::start());
        let observer = Observer::connect(broker.port, site.device());
        let line = "souphttpsrc location=http://127.0.0.1:9/ user-pw={{secret:cam:password}} ! jpegdec";
        let daemon = start(&site, &broker, line, &secrets);
        let metrics = observer.wait_for("model/metrics", "a problem of the source", |metrics| {
            let problems = metrics["runner"]["problems"].to_string();
            problems.contains("{{secret:cam:password}}") && problems.contains(part)
        });
        assert_eq!(metrics["runner"]["health"]["source"], "waiting");
        let online = command(&site, "check", line, &secrets)
            .arg("--online")
            .output()
            .unwrap();
        let online = String::from_utf8_lossy(&online.stdout).into_owned();
        let probe = online
            .lines()
            .find(|line| line.contains("source_secrets"))
            .expect("a line");
        assert!(probe.contains("FAILS") && probe.contains(part), "{probe}");
        assert_clean(&(daemon.stop() + &online));
    }
}

#[test]
fn check_shows_the_reference_and_asks_for_nothing() {
    let password = Arc::new(Mutex::new(PASSWORD.to_owned()));
    let (secrets, _) = secrets_manager(&password);
    let site = Site::new();
    let line = "rtspsrc:location=rtsp://admin:{{secret:cam:password}}@10.0.0.5/cam:latency=0:!:decodebin";
    let output = command(&site, "check", line, &secrets).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("line: rtspsrc location=rtsp://admin:{{secret:cam:password}}@10.0.0.5/cam latency=0 ! decodebin"),
        "{text}"
    );
    assert_eq!(secrets.requests.with(|all| all.len()), 0);
    let output = command(&site, "check", line, &secrets)
        .arg("--online")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let probe = text
        .lines()
        .find(|line| line.contains("source_secrets"))
        .expect("a line");
    assert!(
        probe.contains("ok") && probe.contains("{{secret:cam:password}} can be read (secretsmanager:GetSecretValue)"),
        "{probe}"
    );
    assert_clean(&text);
}
