//! An S3 implementation on loopback (`s3s` with its file system backend, which checks every signature), with simulated faults.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use s3s::auth::{S3Auth, SecretKey, SimpleAuth};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;

use super::aws::token_exchange::Keys;
use super::daemon::LIMIT;
use super::events::Events;
use super::ports::free_port;

pub const ACCESS_KEY: &str = "AKIATEST";
pub const SECRET_KEY: &str = "very-secret-key-of-the-test";
pub const REGION: &str = "eu-central-1";

/// Behaviour of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Behaves like S3.
    Normal,
    /// Accepts connections and requests and never answers.
    Hang,
    /// Answers every request with this status and error code.
    Fault(u16, &'static str),
    /// The bucket belongs to another account: HEAD returns 404 or 403, and it cannot be created.
    SomebodyElses { head: u16 },
    /// Behaves like S3, but always refuses uploads of keys that contain this text.
    Refuse(&'static str),
    /// Refuses every request, because the time of the server differs.
    AnotherTime,
    /// Behaves like S3 with a bucket in this region.
    InRegion(&'static str),
}

/// A request with the status of its answer; 0: never answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub method: String,
    /// `/<bucket>/<key>`, decoded.
    pub path: String,
    pub access_key: String,
    /// The region that the request is signed for.
    pub region: String,
    pub body: String,
    pub status: u16,
}

/// The server. It ends when it is dropped.
pub struct S3 {
    pub port: u16,
    root: PathBuf,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Shared {
    service: S3Service,
    behaviour: Mutex<Behaviour>,
    answered: Events<Answered>,
}

/// The directory of the buckets, which several servers can use one after the other.
pub struct Storage {
    pub directory: TempDir,
    pub port: u16,
}

impl Storage {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            port: free_port(),
        }
    }

    /// Starts a server with this storage.
    pub fn serve(&self) -> S3 {
        self.serve_with(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY))
    }

    /// Starts a server that accepts these keys.
    pub fn serve_with(&self, auth: impl S3Auth) -> S3 {
        let root = self.directory.path().to_owned();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(&root).expect("a file system"));
        builder.set_auth(auth);
        let shared = Arc::new(Shared {
            service: builder.build(),
            behaviour: Mutex::new(Behaviour::Normal),
            answered: Events::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).expect("the port of S3");
        listener.set_nonblocking(true).expect("a listener");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let app = axum::Router::new().fallback(answer).with_state(shared.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, app).await
        });
        S3 {
            port: self.port,
            root,
            shared,
            runtime: Some(runtime),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets the environment variables with which a component uses this server.
    pub fn environment(&self, command: &mut Command) {
        command
            .env("AWS_ENDPOINT_URL_S3", self.endpoint())
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    }
}

/// The return type of an asynchronous function with `async_trait`.
type Soon<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Refuses keys after they expire.
impl S3Auth for Keys {
    fn get_secret_key<'a, 'b, 'c>(&'a self, id: &'b str) -> Soon<'c, s3s::S3Result<SecretKey>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        let found = self.find(id).map(|key| SecretKey::from(key.secret));
        Box::pin(std::future::ready(found.map_err(|problem| {
            s3s::S3Error::with_message(s3s::S3ErrorCode::InvalidAccessKeyId, problem)
        })))
    }
}

impl S3 {
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// Waits until `found` returns a value for the requests answered up to now.
    #[track_caller]
    pub fn wait_for<R>(&self, what: &str, found: impl FnMut(&[Answered]) -> Option<R>) -> R {
        self.shared.answered.wait_for(what, LIMIT, found)
    }

    /// Waits until `count` messages (`.json`) were uploaded. Returns the keys of all uploads in order.
    #[track_caller]
    pub fn wait_for_pairs(&self, count: usize) -> Vec<String> {
        self.wait_for(&format!("{count} pairs in S3"), |answered| {
            let keys = uploads(answered);
            (keys.iter().filter(|key| key.ends_with(".json")).count() >= count).then_some(keys)
        })
    }

    pub fn answered(&self) -> Vec<Answered> {
        self.shared.answered.with(<[_]>::to_vec)
    }

    pub fn object(&self, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.root.join(path.trim_start_matches('/'))).ok()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Paths of the uploaded objects, in order.
pub fn uploads(answered: &[Answered]) -> Vec<String> {
    answered
        .iter()
        .filter(|a| a.method == "PUT" && a.status == 200 && a.path.trim_end_matches('/').matches('/').count() > 1)
        .map(|a| a.path.clone())
        .collect()
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    };
    let scope = header("authorization").split("Credential=").nth(1).unwrap_or("");
    let mut scope = scope.split('/').map(str::to_owned);
    let mut answered = Answered {
        method: parts.method.to_string(),
        path: decoded(parts.uri.path()),
        access_key: scope.next().unwrap_or_default(),
        region: scope.nth(1).unwrap_or_default(),
        body: String::from_utf8_lossy(&body).chars().take(2000).collect(),
        status: 0,
    };
    let behaviour = shared.behaviour.lock().unwrap().clone();
    let response = match behaviour {
        Behaviour::InRegion(region) if answered.region != region => {
            (status(301), [("x-amz-bucket-region", region)]).into_response()
        }
        Behaviour::Refuse(text) if answered.path.contains(text) => fault(400, "KeyTooLongError"),
        Behaviour::Normal | Behaviour::InRegion(_) | Behaviour::Refuse(_) => {
            let request = Request::from_parts(parts, s3s::Body::from(body));
            let response = shared.service.call(request).await.expect("an answer of S3");
            response.map(Body::new)
        }
        Behaviour::Hang => {
            shared.answered.push(answered);
            return std::future::pending().await;
        }
        Behaviour::Fault(status, code) => fault(status, code),
        Behaviour::AnotherTime => {
            let fault = fault(403, "RequestTimeTooSkewed");
            ([("date", "Tue, 15 Nov 1994 08:12:31 GMT")], fault).into_response()
        }
        Behaviour::SomebodyElses { head } if answered.method == "HEAD" => status(head).into_response(),
        Behaviour::SomebodyElses { .. } => fault(409, "BucketAlreadyExists"),
    };
    answered.status = response.status().as_u16();
    shared.answered.push(answered);
    response
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a status")
}

fn fault(code: u16, name: &str) -> Response {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{name}</Code><Message>A test.</Message></Error>");
    (status(code), [("content-type", "application/xml")], body).into_response()
}

fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next(), rest.next()].map(|digit| digit.expect("two digits") as char);
            bytes.push(u8::from_str_radix(&hex.iter().collect::<String>(), 16).expect("a byte"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}
