//! Uploads to an ingestion that has faults, with short limits.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ei_greengrass::status::StudioActivity;
use ei_greengrass::status::stats::Stats;
use ei_greengrass::studio::upload::{
    CollectedDetails, SampleKind, UploadError, UploadHandle, UploadLimits, UploadSample, UploadSettings, Uploader,
};
use ei_greengrass::util::backoff::BackoffPolicy;
use ei_greengrass::util::secret::Secret;
use parking_lot::Mutex;
use serde_json::json;

use crate::support::daemon::LIMIT;
use crate::support::exchange::Part;
use crate::support::http::{HttpServer, Reply};
use crate::support::ports::free_port;

/// An uploader with its spool.
struct Sender {
    uploads: UploadHandle,
    stats: Arc<Stats>,
    _uploader: Uploader,
    _directory: tempfile::TempDir,
}

impl Sender {
    fn to(port: u16) -> Self {
        Self::with_daily_limit(port, 0)
    }

    fn with_daily_limit(port: u16, daily_limit: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stats = Arc::<Stats>::default();
        let (uploader, uploads) = Uploader::start(UploadSettings {
            key: Box::new(|| Box::pin(async { Ok(Secret::new("ei_test")) })),
            ingestion: Ok(url::Url::parse(&format!("http://127.0.0.1:{port}")).unwrap()),
            directory: directory.path().join("samples"),
            daily_bytes: directory.path().join("bytes.json"),
            daily_limit: Box::new(move || daily_limit),
            limits: UploadLimits {
                answer: Duration::from_millis(300),
                backoff: BackoffPolicy {
                    min: Duration::from_millis(20),
                    max: Duration::from_millis(50),
                    reset_after: Duration::from_secs(60),
                },
                ..UploadLimits::default()
            },
            stats: stats.clone(),
            activity: StudioActivity::default(),
        });
        Self {
            uploads,
            stats,
            _uploader: uploader,
            _directory: directory,
        }
    }

    async fn upload(&self, label: &str) -> Result<(), UploadError> {
        self.uploads
            .upload(UploadSample {
                category: "training".to_owned(),
                label: label.to_owned(),
                kind: SampleKind::Jpeg,
                data: label.repeat(50_000).into(),
                collected: None,
            })
            .await
    }

    /// What the first attempt said, which keeps the sample on disk.
    async fn waits(&self, label: &str) -> String {
        match self.upload(label).await {
            Err(UploadError::Waiting(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn wait_until_stored(&self, samples: u64) {
        let stored = async {
            while self.stats.studio_uploads.get() < samples {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LIMIT, stored).await.expect("stored in time");
        assert_eq!(self.stats.studio_uploads.get(), samples);
        assert_eq!(
            self.stats.studio_uploads_refused.get() + self.stats.studio_uploads_dropped.get(),
            0
        );
    }
}

fn stored() -> Reply {
    Reply::json(&json!({"success": true, "files": [{"success": true}]}))
}

fn duplicate() -> Reply {
    Reply::bytes("text/plain", "An item with this hash already exists (ids: 1)").status(400)
}

/// Gives these answers one after the other, then success.
fn answering(answers: Vec<Reply>) -> HttpServer {
    let answers = Mutex::new(answers.into_iter());
    HttpServer::start(move |_| answers.lock().next().unwrap_or_else(stored))
}

fn labels(server: &HttpServer) -> Vec<String> {
    server
        .requests
        .with(|all| all.iter().map(|request| request.headers["x-label"].clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_keeps_the_sample_until_a_key_is_accepted() {
    let server = answering(vec![
        Reply::json(&json!({"success": false, "error": "Invalid API key"})).status(401),
    ]);
    let sender = Sender::to(server.port);
    let reason = sender.waits("first").await;
    assert!(
        reason.contains("the API key is refused") && reason.contains("Invalid API key"),
        "{reason}"
    );
    // It is tried again slowly, and at once after another sample was taken.
    sender.upload("second").await.unwrap();
    sender.wait_until_stored(2).await;
    assert_eq!(labels(&server), ["first", "second", "first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_attempts_for_a_collected_frame_stay_within_the_bytes_of_a_day() {
    let server = answering(vec![Reply::bytes("text/plain", "").status(500); 4]);
    let sender = Sender::with_daily_limit(server.port, 250_000);
    let frame = || UploadSample {
        category: "training".to_owned(),
        label: "x".to_owned(),
        kind: SampleKind::Jpeg,
        data: "x".repeat(50_000).into(),
        collected: Some(CollectedDetails {
            name: "d-1".to_owned(),
            boxes: Vec::new(),
            metadata: Default::default(),
        }),
    };
    sender.uploads.keep(frame()).await.unwrap();
    server
        .requests
        .wait_for("four attempts", LIMIT, |all| (all.len() == 4).then_some(()));
    // Samples that Studio asks for are not bounded.
    for label in ["a", "b", "c"] {
        sender.upload(label).await.unwrap();
    }
    assert_eq!(labels(&server), ["x", "x", "x", "x", "a", "b", "c"]);
    let bodies = server
        .requests
        .with(|all| all[..4].iter().map(|request| request.body.len() as u64).sum::<u64>());
    let counted = sender.stats.collect_bytes.get();
    assert!(bodies <= counted && counted <= 250_000, "{bodies} {counted}");
    // There is no room for another one either.
    sender.uploads.keep(frame()).await.unwrap();
    sender.upload("d").await.unwrap();
    assert_eq!(
        (
            sender.stats.collect_over_bytes.get(),
            sender.stats.collect_uploaded.get()
        ),
        (1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_wait_in_order_while_ingestion_is_away() {
    let port = free_port();
    let sender = Sender::to(port);
    for label in ["a", "b", "c"] {
        let reason = sender.waits(label).await;
        assert!(reason.contains("refused"), "{reason}");
    }
    let server = HttpServer::start_at(port, |_| stored());
    sender.wait_until_stored(3).await;
    assert_eq!(labels(&server), ["a", "b", "c"]);
    for (nth, label) in ["a", "b", "c"].iter().enumerate() {
        let part = Part::of(&server.requests.with(|all| all[nth].clone()));
        assert_eq!(part.data, label.repeat(50_000).into_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_or_is_incomplete_is_no_answer() {
    let half = Reply {
        announced: Some(10_000),
        ..stored()
    };
    for reply in [
        Reply::hang(),
        half,
        Reply::bytes("text/html", "<html>please log in</html>"),
        Reply::bytes("application/json", "x".repeat(10 << 20)),
        Reply::bytes("text/plain", "").status(500),
        Reply::bytes("text/plain", "").status(429),
    ] {
        let server = answering(vec![reply]);
        let sender = Sender::to(server.port);
        sender.waits("cat").await;
        sender.wait_until_stored(1).await;
        assert_eq!(server.count("/files"), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_arrived_without_an_answer_is_stored_when_ingestion_says_that_it_has_it() {
    let in_200 = Reply::json(&json!({"success": true, "files": [
        {"success": false, "error": "An item with this hash already exists (ids: 1)"},
    ]}));
    for second in [duplicate(), in_200] {
        let server = answering(vec![Reply::hang(), second]);
        let sender = Sender::to(server.port);
        sender.waits("cat").await;
        sender.wait_until_stored(1).await;
        assert_eq!(server.count("/files"), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_inside_a_200_and_a_duplicate_at_the_first_attempt_are_refusals() {
    let refusal = Reply::json(&json!({"success": true, "files": [{"success": false, "error": "no such category"}]}));
    let server = answering(vec![refusal, duplicate()]);
    let sender = Sender::to(server.port);
    for expected in ["no such category", "already exists"] {
        match sender.upload("cat").await {
            Err(UploadError::Refused(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (
            sender.stats.studio_uploads.get(),
            sender.stats.studio_uploads_refused.get()
        ),
        (0, 2)
    );
    assert_eq!(server.count("/files"), 2);
}

/// Reads a little of the first request and ends the connection; answers nothing else.
fn cut_first(listener: TcpListener, after: usize) -> std::thread::JoinHandle<TcpListener> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut vec![0; after]).unwrap();
        drop(stream);
        listener
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_in_the_middle_of_an_upload_is_made_again() {
    for after in [1, 20_000] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let first = cut_first(listener, after);
        let sender = Sender::to(port);
        sender.waits("cat").await;
        // The next attempt gets an answer and then also an end without a word.
        let listener = first.join().unwrap();
        let second = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut seen = Vec::new();
            let mut buffer = [0; 4096];
            while !seen.ends_with(b"--\r\n") {
                let length = stream.read(&mut buffer).unwrap();
                seen.extend_from_slice(&buffer[..length]);
            }
            let body = r#"{"success":true,"files":[{"success":true}]}"#;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        });
        sender.wait_until_stored(1).await;
        second.join().unwrap();
    }
}
