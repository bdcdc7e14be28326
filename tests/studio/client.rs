//! The steps at Studio, with short limits.

use std::time::{Duration, Instant};

use ei_greengrass::studio::{
    FetchRequest, FetchStage, Machine, ModelOrigin, ModelSelection, ModelStore, StoredModel, StudioClient, StudioError,
    StudioLimits, base_url,
};
use ei_greengrass::util::backoff::Retry;
use ei_greengrass::util::secret::Secret;
use serde_json::json;
use tokio::sync::watch;

use super::{leftovers, place};
use crate::support::http::{HttpServer, Reply};
use crate::support::small_disk::SmallDisk;
use crate::support::studio::{self as stand_in, API_KEY, Shared, TARGET};

fn limits() -> StudioLimits {
    StudioLimits {
        connect: Duration::from_millis(500),
        answer: Duration::from_millis(700),
        stall: Duration::from_millis(700),
        poll: Duration::from_millis(10),
        ..StudioLimits::default()
    }
}

fn program() -> Vec<u8> {
    std::fs::read("/bin/true").unwrap()
}

struct Bench {
    state: Shared,
    server: HttpServer,
    limits: StudioLimits,
    work_dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let state = stand_in::state(program());
        Self {
            server: stand_in::studio(&state),
            state,
            limits: limits(),
            work_dir: tempfile::tempdir().unwrap(),
        }
    }

    fn instead(&self, ending: &'static str, reply: Reply) -> &Self {
        stand_in::always(&self.state, ending, reply);
        self
    }

    async fn fetch_wanting(&self, wanted: ModelSelection) -> Result<StoredModel, StudioError> {
        let base = base_url(Some(&self.server.url())).unwrap();
        let origin = ModelOrigin {
            studio: base.to_string(),
            secret_id: "s".into(),
            secret_name: "k".into(),
            impulse_id: None,
        };
        let studio = StudioClient::new(base, &Secret::new(API_KEY), self.limits).unwrap();
        let job = FetchRequest {
            selection: &wanted,
            machine: &Machine::default(),
            store: &ModelStore::new(self.work_dir.path()),
            origin: &origin,
        };
        ei_greengrass::studio::fetch(&studio, job, &watch::Sender::new(FetchStage::Selecting)).await
    }

    async fn fetch(&self) -> Result<StoredModel, StudioError> {
        self.fetch_wanting(ModelSelection {
            target: Some(TARGET.into()),
            ..ModelSelection::default()
        })
        .await
    }

    /// The sentence of the failure, and when to try again. Nothing is left behind.
    #[track_caller]
    fn failure(&self, result: Result<StoredModel, StudioError>) -> (String, Retry) {
        let error = result.unwrap_err();
        assert!(leftovers(self.work_dir.path()).is_empty(), "{error}");
        assert!(!place(self.work_dir.path(), 3).exists(), "{error}");
        (error.to_string(), error.retry())
    }
}

#[tokio::test]
async fn a_model_is_downloaded_once_and_the_second_time_it_is_there() {
    let bench = Bench::new();
    let model = bench.fetch().await.unwrap();
    assert_eq!(model.path, place(bench.work_dir.path(), 3));
    assert_eq!(std::fs::read(&model.path).unwrap(), program());
    assert_eq!(bench.fetch().await.unwrap().path, model.path);
    assert_eq!(bench.server.count("/deployment/download"), 1);
    assert!(leftovers(bench.work_dir.path()).is_empty());
}

#[tokio::test]
async fn a_model_that_is_not_built_is_built_first() {
    let bench = Bench::new();
    {
        let mut state = bench.state.lock();
        state.version = None;
        state.job = stand_in::Job::Builds(8);
    }
    let model = bench.fetch().await.unwrap();
    assert_eq!(model.metadata.version, 8);
    assert!(bench.server.count("/jobs/99/status") >= 3);
}

#[tokio::test]
async fn a_look_at_the_build_that_fails_for_the_network_is_done_again() {
    let bench = Bench::new();
    {
        let mut state = bench.state.lock();
        state.version = None;
        state.job = stand_in::Job::Builds(8);
        let mut left = 3;
        state.instead.push((
            "/status",
            Box::new(move |_| {
                left -= 1;
                (left >= 0).then(|| Reply::bytes("text/html", "<html>").status(503))
            }),
        ));
    }
    assert_eq!(bench.fetch().await.unwrap().metadata.version, 8);
}

#[tokio::test]
async fn a_failed_build_shows_the_end_of_its_output() {
    let bench = Bench::new();
    {
        let mut state = bench.state.lock();
        state.version = None;
        state.job = stand_in::Job::Fails;
    }
    let (said, retry) = bench.failure(bench.fetch().await);
    assert!(
        said.contains("job 99") && said.contains("Compiling... | no rule to make target 'model' | Job failed"),
        "{said}"
    );
    assert_eq!(retry, Retry::Later);
}

#[tokio::test]
async fn a_build_that_never_ends_is_given_up() {
    let mut bench = Bench::new();
    bench.limits.build = Duration::from_millis(200);
    bench.state.lock().version = None;
    let (said, retry) = bench.failure(bench.fetch().await);
    assert!(said.contains("has not finished building"), "{said}");
    assert_eq!(retry, Retry::Soon);
}

#[tokio::test]
async fn a_build_that_outlasts_an_attempt_is_waited_for_by_the_next_and_not_begun_again() {
    let mut bench = Bench::new();
    bench.limits.build = Duration::from_millis(200);
    bench.state.lock().version = None;
    for _ in 0..2 {
        bench.failure(bench.fetch().await);
    }
    bench.limits = limits();
    bench.state.lock().job = stand_in::Job::Builds(8);
    assert_eq!(bench.fetch().await.unwrap().metadata.version, 8);
    assert_eq!(bench.server.count("/jobs/build-ondevice-model"), 1);

    // It was used, so that the next one that is missing is begun anew.
    {
        let mut state = bench.state.lock();
        (state.version, state.job) = (None, stand_in::Job::Builds(9));
    }
    assert_eq!(bench.fetch().await.unwrap().metadata.version, 9);
    assert_eq!(bench.server.count("/jobs/build-ondevice-model"), 2);
}

#[tokio::test]
async fn a_job_that_studio_no_longer_knows_is_followed_by_another() {
    let mut bench = Bench::new();
    bench.limits.build = Duration::from_millis(200);
    bench.state.lock().version = None;
    bench.failure(bench.fetch().await);
    bench.limits = limits();
    {
        let mut state = bench.state.lock();
        state.job = stand_in::Job::Builds(8);
        let mut left = 1;
        state.instead.push((
            "/status",
            Box::new(move |_| {
                left -= 1;
                (left >= 0).then(|| Reply::json(&json!({"success": false, "error": "No such job"})))
            }),
        ));
    }
    assert_eq!(bench.fetch().await.unwrap().metadata.version, 8);
    assert_eq!(bench.server.count("/jobs/build-ondevice-model"), 2);
}

#[tokio::test]
async fn a_model_that_is_here_is_used_although_the_disk_takes_nothing_more() {
    let bench = Bench::new();
    bench.state.lock().model = std::fs::read("/bin/true").unwrap();
    let Some(disk) = SmallDisk::mount(&bench.work_dir.path().join("models"), "8m") else {
        eprintln!("not tried: file systems may not be mounted here");
        return;
    };
    let model = bench.fetch().await.unwrap();
    disk.remount("ro");
    assert_eq!(bench.fetch().await.unwrap().path, model.path);
    assert_eq!(bench.server.count("/deployment/download"), 1);
}

#[tokio::test]
async fn each_wrong_answer_has_its_own_sentence_and_retry_rule() {
    let html = || Reply::bytes("text/html", "<!DOCTYPE html><title>Log in</title>");
    let refused = || Reply::json(&json!({"success": false, "error": "Project is being deleted"}));
    let cases = [
        ("/api/projects", html(), "is a web page, not JSON", Retry::Soon),
        (
            "/impulses",
            Reply::bytes("application/json", "{\"succ"),
            "is incomplete",
            Retry::Soon,
        ),
        (
            "/impulses",
            refused(),
            "refuses the list of impulses: Project is being deleted",
            Retry::Later,
        ),
        (
            "/api/projects",
            refused().status(403),
            "refuses the API key (HTTP 403",
            Retry::Later,
        ),
        ("/data-sources", html().status(503), "with HTTP 503", Retry::Soon),
        (
            "/data-sources",
            refused().status(404),
            "with HTTP 404: Project is being deleted",
            Retry::Later,
        ),
        (
            "/api/projects",
            Reply::json(&json!({"success": true})),
            "belongs to no Edge Impulse project",
            Retry::Later,
        ),
        (
            "/api/projects",
            Reply::json(&json!({"success": true, "projects": "x"})),
            "is not understood",
            Retry::Later,
        ),
        (
            "/api/projects",
            Reply::json(&json!([1])),
            "is not understood",
            Retry::Later,
        ),
        (
            "/deployment/download",
            refused(),
            "refuses the model file: Project is being deleted",
            Retry::Later,
        ),
        ("/deployment/download", html(), "is a web page", Retry::Later),
        (
            "/deployment/download",
            Reply {
                announced: Some(1 << 20),
                ..Reply::bytes("application/octet-stream", program()[..5000].to_vec())
            },
            "stopped after 5000 bytes of 1048576",
            Retry::Soon,
        ),
        (
            "/deployment/download",
            Reply::bytes("application/octet-stream", program()[..5000].to_vec()),
            "is not complete: it has 5000 bytes",
            Retry::Later,
        ),
        (
            "/deployment/download",
            Reply::bytes("application/octet-stream", foreign()),
            "is built for ELF machine 8, this machine is",
            Retry::Later,
        ),
        (
            "/deployment",
            Reply::bytes("text/plain", "")
                .status(302)
                .header("Location", "http://other.invalid/login"),
            "sends the deployment on to",
            Retry::Later,
        ),
    ];
    for (ending, reply, expected, rule) in cases {
        let bench = Bench::new();
        bench.instead(ending, reply);
        let (said, retry) = match (ending, expected) {
            // Nobody is at the other host.
            ("/deployment", _) => {
                let (said, _) = bench.failure(bench.fetch().await);
                assert!(said.contains("for the deployment failed"), "{said}");
                continue;
            }
            _ => bench.failure(bench.fetch().await),
        };
        assert!(said.contains(expected), "{ending}: {said} lacks {expected}");
        assert_eq!(retry, rule, "{said}");
    }
}

/// A program for a machine that nobody has any more.
fn foreign() -> Vec<u8> {
    let mut bytes = program();
    bytes[18] = 8;
    bytes
}

#[tokio::test]
async fn the_key_is_not_taken_along_to_another_host() {
    let bench = Bench::new();
    let other = HttpServer::start(|request| {
        assert!(!request.headers.contains_key("x-api-key"));
        Reply::bytes("application/octet-stream", program())
    });
    let to = format!("{}/bucket/model.eim?signature=x", other.url());
    bench.instead(
        "/deployment/download",
        Reply::bytes("text/plain", "").status(302).header("Location", &to),
    );
    bench.fetch().await.unwrap();
    assert_eq!(other.count("/bucket/model.eim"), 1);
}

#[tokio::test]
async fn answers_and_models_are_bounded() {
    let mut bench = Bench::new();
    bench.limits.json_bytes = 1000;
    bench.instead("/impulses", Reply::bytes("application/json", vec![b' '; 5000]));
    let (said, _) = bench.failure(bench.fetch().await);
    assert!(said.contains("the list of impulses is larger than"), "{said}");
    let mut bench = Bench::new();
    bench.limits.model_bytes = 1000;
    let (said, _) = bench.failure(bench.fetch().await);
    assert!(said.contains("the model file is larger than"), "{said}");
}

#[tokio::test]
async fn silence_ends_at_its_limit() {
    for ending in ["/api/projects", "/deployment/download"] {
        let bench = Bench::new();
        bench.instead(ending, Reply::hang());
        let begun = Instant::now();
        let (said, retry) = bench.failure(bench.fetch().await);
        assert!(said.contains("no answer"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(retry, Retry::Soon);
    }
}

#[tokio::test]
async fn what_was_asked_for_and_is_not_there_is_refused_with_what_there_is() {
    let bench = Bench::new();
    let wanted = |change: fn(&mut ModelSelection)| {
        let mut wanted = ModelSelection {
            target: Some(TARGET.into()),
            ..ModelSelection::default()
        };
        change(&mut wanted);
        wanted
    };
    for (wanted, expected) in [
        (
            wanted(|w| w.impulse_id = Some(7)),
            "no impulse 7 (--impulse-id); it has 1 Impulse #1",
        ),
        (
            wanted(|w| w.target = Some("runner-mac".into())),
            "it builds runner-linux-x86_64",
        ),
        (
            wanted(|w| w.engine = Some("tensorrt".into())),
            "it has tflite, tflite-eon",
        ),
        (wanted(|w| w.variant = Some("akida".into())), "it runs float32, int8"),
    ] {
        let (said, retry) = bench.failure(bench.fetch_wanting(wanted).await);
        assert!(said.contains(expected), "{said} lacks {expected}");
        assert_eq!(retry, Retry::Later);
    }
}
