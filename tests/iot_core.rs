//! The real binary against stand-ins of IoT Core and what belongs to it.

mod certificates;
mod online;
mod signing;
use crate::support;
mod token_exchange;
mod tools;
mod trouble;

use std::process::Command;

use support::aws::certificates::Certificates;
use support::aws::gateway::{Door, Gateway, REGION};
use support::aws::http::{Answer, HttpServer};
use support::aws::sigv4::{Key, Scope, verify_headers};
use support::aws::token_exchange::Keys;
use support::daemon::{Daemon, Site};
use support::mosquitto::Mosquitto;
use support::observer::Observer;

const BALL: &str = "videotestsrc pattern=ball is-live=true ! video/x-raw,width=320,height=240,framerate=10/1";

/// A broker, IoT Core before it, and a device.
struct World {
    site: Site,
    certificates: Certificates,
    broker: Mosquitto,
    gateway: Gateway,
}

impl World {
    fn new(door: Door) -> Self {
        let site = Site::new();
        let certificates = Certificates::make(&site.path().join("tls"));
        let broker = Mosquitto::start();
        let gateway = Gateway::start(door, &certificates, broker.port);
        Self {
            site,
            certificates,
            broker,
            gateway,
        }
    }

    fn observer(&self) -> Observer {
        Observer::connect(self.broker.port, self.site.device())
    }

    /// A subcommand with the environment of Greengrass but for credentials, and every log line there is.
    fn command(&self, subcommand: &str, sets: &[&str]) -> Command {
        let mut command = self.command_without_model(subcommand, sets);
        command.args(["--model", "builtin:ball", "--gst", BALL]);
        command
    }

    /// The same without a model on the device.
    fn command_without_model(&self, subcommand: &str, sets: &[&str]) -> Command {
        let mut command = self.site.command(subcommand);
        for set in sets {
            command.args(["--set", set]);
        }
        for (name, _) in std::env::vars() {
            if name.starts_with("AWS_") || name.to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command
            .env("RUST_LOG", "trace")
            .env("AWS_REGION", REGION)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/nonexistent")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
            .env("SSL_CERT_FILE", self.certificates.path("ca.pem"));
        command
    }

    /// `run` with a fixed key in the environment.
    fn run_with_key(&self, key: &Key, sets: &[&str]) -> Daemon {
        Daemon::start(with_key(self.command("run", sets), key))
    }
}

fn with_key(mut command: Command, key: &Key) -> Command {
    command
        .env("AWS_ACCESS_KEY_ID", &key.id)
        .env("AWS_SECRET_ACCESS_KEY", &key.secret);
    if let Some(token) = &key.token {
        command.env("AWS_SESSION_TOKEN", token);
    }
    command
}

fn key(token: Option<&str>) -> Key {
    Key {
        id: "AKIAIOSFODNN7EXAMPLE".into(),
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        token: token.map(str::to_owned),
    }
}

/// IoT Core's control plane and STS in one: answers who signs properly with `endpoint`, and others as AWS does.
fn control_plane(keys: Keys, endpoint: String) -> HttpServer {
    HttpServer::start(move |request| {
        let service = if request.path() == "/endpoint" { "iot" } else { "sts" };
        let scope = Scope {
            region: REGION,
            service,
        };
        let verified = request
            .key_id()
            .and_then(|id| keys.find(&id))
            .and_then(|key| verify_headers(request, &key, &scope));
        match verified {
            Err(problem) => denied(&problem),
            Ok(()) if service == "sts" => Answer::new(
                200,
                "<R><GetCallerIdentityResult><Arn>arn:aws:sts::123456789012:assumed-role/Role/cam</Arn></R>",
            ),
            Ok(()) => {
                let kind = request.query().into_iter().find(|(name, _)| name == "endpointType");
                assert_eq!(kind.map(|(_, kind)| kind).as_deref(), Some("iot:Data-ATS"));
                Answer::new(200, serde_json::json!({"endpointAddress": endpoint}).to_string())
            }
        }
    })
}

fn denied(problem: &str) -> Answer {
    let mut answer = Answer::new(403, serde_json::json!({"message": problem}).to_string());
    answer
        .headers
        .push(("x-amzn-errortype", "AccessDeniedException:".into()));
    answer
}

/// Nothing of these keys is in the log, nor any signature that the gateway saw.
#[track_caller]
fn assert_no_secret_in(log: &str, keys: &[Key], gateway: &Gateway) {
    let signatures = gateway.attempts.with(|attempts| {
        let queries = attempts.iter().flat_map(|attempt| attempt.query.clone());
        let signatures = queries.filter(|(name, _)| name == "X-Amz-Signature");
        signatures.map(|(_, value)| value).collect::<Vec<_>>()
    });
    let tokens = keys.iter().filter_map(|key| key.token.clone());
    let secrets = keys.iter().map(|key| key.secret.clone());
    let mut forms: Vec<String> = signatures.into_iter().chain(tokens).chain(secrets).collect();
    forms.push("X-Amz-Signature".into());
    forms.push(support::aws::token_exchange::AUTHORIZATION.into());
    for form in forms {
        let encoded: String = url::form_urlencoded::byte_serialize(form.as_bytes()).collect();
        let found = log.lines().find(|line| line.contains(&form) || line.contains(&encoded));
        assert_eq!(found, None, "{form} is in the log");
    }
}
