//! Mocks of Edge Impulse Studio, Secrets Manager and the Greengrass token exchange service.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::aws::token_exchange::{Keys, TokenExchange};
use super::http::{HttpServer, Reply, Request};

/// The API key of these tests. No output may contain it.
pub const API_KEY: &str = "ei_5e1f0dd2c0ffee5e1f0dd2c0ffee5e1f";
/// The secret access key of these tests. No output may contain it.
pub const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMIsecretEXAMPLE";
pub const TARGET: &str = "runner-linux-x86_64";

/// A special answer to a request; `None`: the default answer.
type Instead = Box<dyn FnMut(&Request) -> Option<Reply> + Send>;

/// State and behaviour of the mock.
pub struct State {
    /// `None`: not built.
    pub version: Option<u64>,
    /// The result of the build job.
    pub job: Job,
    pub model: Vec<u8>,
    /// Answers that replace the default ones, by the end of the path.
    pub instead: Vec<(&'static str, Instead)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Job {
    /// Built with this version after some status requests.
    Builds(u64),
    Fails,
    Never,
}

pub type Shared = Arc<Mutex<State>>;

/// A Studio with version 3 of a model.
pub fn state(model: Vec<u8>) -> Shared {
    Arc::new(Mutex::new(State {
        version: Some(3),
        job: Job::Never,
        model,
        instead: Vec::new(),
    }))
}

/// Answers every request whose path has this ending with `reply`.
pub fn always(shared: &Shared, ending: &'static str, reply: Reply) {
    shared
        .lock()
        .instead
        .push((ending, Box::new(move |_| Some(reply.clone()))));
}

pub fn studio(shared: &Shared) -> HttpServer {
    studio_at(0, shared)
}

pub fn studio_at(port: u16, shared: &Shared) -> HttpServer {
    let (shared, looks) = (shared.clone(), AtomicUsize::new(0));
    HttpServer::start_at(port, move |request| {
        let mut state = shared.lock();
        for (ending, reply) in &mut state.instead {
            if request.path.ends_with(*ending)
                && let Some(reply) = reply(request)
            {
                return reply;
            }
        }
        if request.headers.get("x-api-key").map(String::as_str) != Some(API_KEY) {
            return Reply::json(&json!({"success": false, "error": "Invalid API key"})).status(401);
        }
        usual(request, &mut state, &looks)
    })
}

fn usual(request: &Request, state: &mut State, looks: &AtomicUsize) -> Reply {
    let path = request.path.strip_prefix("/v1/api/").unwrap_or_default();
    let right_impulse = request.query.get("impulseId").is_none_or(|id| id == "1");
    let answer = match (&*request.method, path) {
        ("GET", "projects") => json!({"projects": [{"id": 42, "name": "Tutorial", "owner": "tests"}]}),
        ("GET", "42/impulses") => json!({"impulses": [{"id": 1, "name": "Impulse #1"}]}),
        ("GET", "42/deployment/targets/data-sources") if right_impulse => json!({"targets": [
            {"format": "zip", "preferredEngine": "tflite-eon", "supportedEngines": ["tflite-eon"]},
            {"format": TARGET, "preferredEngine": "tflite", "supportedEngines": ["tflite", "tflite-eon"],
             "modelVariants": [{"variant": "float32", "supported": true}, {"variant": "int8", "supported": true}]},
        ]}),
        ("GET", "42/model-variants") if right_impulse => {
            json!({"modelVariants": [{"variant": "int8", "isSelected": true}, {"variant": "float32"}]})
        }
        ("GET", "42/deployment") if request.query["type"] == TARGET && request.query["engine"] == "tflite" => {
            match state.version {
                Some(version) => json!({"hasDeployment": true, "version": version}),
                None => json!({"hasDeployment": false}),
            }
        }
        ("POST", "42/jobs/build-ondevice-model") => {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(body, json!({"engine": "tflite", "modelType": "float32"}));
            json!({"id": 99})
        }
        ("GET", "42/jobs/99/status") => {
            let over = looks.fetch_add(1, Ordering::SeqCst) >= 2 && state.job != Job::Never;
            if let (Job::Builds(version), true) = (state.job, over) {
                state.version = Some(version);
            }
            let ok = matches!(state.job, Job::Builds(_));
            match over {
                true => json!({"job": {"id": 99, "finished": "2026-01-01T00:00:00Z", "finishedSuccessful": ok}}),
                false => json!({"job": {"id": 99}}),
            }
        }
        ("GET", "42/jobs/99/stdout") => json!({"stdout": [
            {"created": "2026-01-01T00:00:02Z", "data": "no rule to make target 'model'\nJob failed (see above)\n"},
            {"created": "2026-01-01T00:00:01Z", "data": "Compiling...\n"},
        ]}),
        ("GET", "42/deployment/download") if request.query["modelType"] == "float32" => {
            return Reply::bytes("application/octet-stream", state.model.clone());
        }
        _ => return Reply::json(&json!({"success": false, "error": "unknown route"})).status(404),
    };
    let mut answer = answer;
    answer["success"] = json!(true);
    Reply::json(&answer)
}

/// A Secrets Manager that returns this secret.
pub fn secrets(value: &Value) -> HttpServer {
    let reply = secret(value);
    HttpServer::start(move |_| reply.clone())
}

/// The answer with this secret: a text unchanged, other values as JSON.
pub fn secret(value: &Value) -> Reply {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Reply::bytes(
        "application/x-amz-json-1.1",
        json!({
            "ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:EI_API_KEY-abcdef",
            "Name": "EI_API_KEY",
            "VersionId": "00000000-0000-0000-0000-000000000000",
            "SecretString": text,
        })
        .to_string(),
    )
}

/// The secret of the tutorial.
pub fn good_secret() -> Value {
    json!({"ei_api_key": API_KEY})
}

/// A refusal in the format of AWS.
pub fn aws_error(code: &str, message: &str) -> Reply {
    let body = json!({"__type": code, "message": message});
    Reply::bytes("application/x-amz-json-1.1", body.to_string())
        .status(400)
        .header("x-amzn-errortype", code)
}

/// A Secrets Manager that accepts keys until they expire.
pub fn secrets_for(keys: Keys, answer: impl Fn() -> Reply + Send + Sync + 'static) -> HttpServer {
    HttpServer::start(move |request| {
        let id = request.headers["authorization"]
            .split(['=', '/'])
            .nth(1)
            .unwrap_or_default();
        let token = request.headers.get("x-amz-security-token");
        match keys.find(id) {
            Ok(key) if key.token.as_ref() == token => answer(),
            _ => aws_error(
                "ExpiredTokenException",
                "The security token included in the request is expired",
            ),
        }
    })
}

/// Configures the program to get its credentials only from `exchange`.
pub fn exchanged(command: &mut Command, exchange: &TokenExchange) {
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .envs(exchange.environment());
}

/// Configures the program to use only the mocks, with fixed credentials.
pub fn surround(command: &mut Command, secrets: &str, studio: &str) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.starts_with("EI_")) {
        command.env_remove(name);
    }
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ] {
        command.env_remove(name);
    }
    command
        .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets)
        .env("EI_HOST", studio)
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/nonexistent")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
}
