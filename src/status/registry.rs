//! Collects the status. The supervisor writes values that change rarely; the others are read for each request.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::document::status_document;
use super::health::{Health, HealthFlag, HealthStatus, Part};
use super::metrics_message::runner_object;
use super::model_versions::ModelVersionCell;
use super::prometheus;
use super::snapshot::Snapshot;
use super::source::{
    CacheStatus, ComponentInfo, EventStatus, LinkStatus, ModelSummary, OutboxStatus, ReportStatus, StatusSource,
    ViewerStatus,
};
use super::states::{ModelState, SourceState, StudioStateCell};
use super::stats::Stats;
use super::studio_activity::StudioActivity;
use crate::util::memory::resident_bytes;

/// Shortest time over which a rate is measured.
const RATE_PERIOD: Duration = Duration::from_millis(900);

/// The status of the component.
#[derive(Debug)]
pub struct StatusRegistry {
    info: ComponentInfo,
    stats: Arc<Stats>,
    link: Arc<dyn StatusSource<LinkStatus>>,
    outbox: Arc<dyn StatusSource<OutboxStatus>>,
    viewers: Arc<dyn StatusSource<ViewerStatus>>,
    /// Not set: nothing makes events.
    events: OnceLock<Arc<dyn StatusSource<Option<EventStatus>>>>,
    live_page: HealthFlag,
    configuration: HealthFlag,
    local_topics: HealthFlag,
    studio: StudioStateCell,
    studio_activity: StudioActivity,
    model_versions: ModelVersionCell,
    model_resolver: HealthFlag,
    /// Whether the last update of the model succeeded.
    model_update: HealthFlag,
    shared_memory: HealthFlag,
    results: HealthFlag,
    session: Mutex<SessionStatus>,
    rate: Mutex<InferenceRate>,
}

/// Status of a session; reset by each `restart` command.
#[derive(Debug)]
struct SessionStatus {
    started: Instant,
    model: ModelState,
    /// The model that was loaded last, in this or an earlier session.
    model_summary: Option<Arc<ModelSummary>>,
    source: SourceState,
    /// `None` before the first session.
    report: Option<Arc<dyn StatusSource<ReportStatus>>>,
    caches: CacheStatus,
}

/// Inferences per second between two readings.
#[derive(Debug)]
struct InferenceRate {
    measured: Instant,
    count: u64,
    per_second: f64,
}

impl StatusRegistry {
    /// The registry of a process that has just started.
    pub fn new(
        info: ComponentInfo,
        link: Arc<dyn StatusSource<LinkStatus>>,
        viewers: Arc<dyn StatusSource<ViewerStatus>>,
        outbox: Arc<dyn StatusSource<OutboxStatus>>,
        stats: Arc<Stats>,
    ) -> Self {
        let now = Instant::now();
        Self {
            info,
            stats,
            link,
            outbox,
            viewers,
            events: OnceLock::new(),
            live_page: HealthFlag::default(),
            configuration: HealthFlag::default(),
            local_topics: HealthFlag::default(),
            studio: StudioStateCell::default(),
            studio_activity: StudioActivity::default(),
            model_versions: ModelVersionCell::default(),
            model_resolver: HealthFlag::default(),
            model_update: HealthFlag::default(),
            shared_memory: HealthFlag::default(),
            results: HealthFlag::default(),
            session: Mutex::new(SessionStatus {
                started: now,
                model: ModelState::Starting,
                model_summary: None,
                source: SourceState::Starting,
                report: None,
                caches: CacheStatus::default(),
            }),
            rate: Mutex::new(InferenceRate {
                measured: now,
                count: 0,
                per_second: 0.0,
            }),
        }
    }

    /// Sets what makes events, once.
    pub fn set_events(&self, events: Arc<dyn StatusSource<Option<EventStatus>>>) {
        // A second one would be ignored.
        let _ = self.events.set(events);
    }

    /// Begins a session with its own report and caches.
    pub fn begin_session(&self, report: Arc<dyn StatusSource<ReportStatus>>, caches: CacheStatus) {
        self.model_resolver.set_ok();
        self.model_update.set_ok();
        self.shared_memory.set_ok();
        self.results.set_ok();
        let mut session = self.session.lock();
        *session = SessionStatus {
            started: Instant::now(),
            model: ModelState::Starting,
            model_summary: session.model_summary.take(),
            source: SourceState::Starting,
            report: Some(report),
            caches,
        };
    }

    /// The enabled caches have changed.
    pub fn set_caches(&self, caches: CacheStatus) {
        self.session.lock().caches = caches;
    }

    /// Whether the configuration that was deployed last is in force.
    pub fn configuration_flag(&self) -> &HealthFlag {
        &self.configuration
    }

    /// The model is loaded and has described itself.
    pub fn set_model_summary(&self, summary: ModelSummary) {
        self.session.lock().model_summary = Some(Arc::new(summary));
    }

    /// The model's state changed.
    pub fn set_model_state(&self, state: ModelState) {
        self.session.lock().model = state;
    }

    /// The source's state changed.
    pub fn set_source_state(&self, state: SourceState) {
        self.session.lock().source = state;
    }

    /// The source was started. A source that stalled before stays stalled until [`Self::set_source_delivers`].
    pub fn set_source_started(&self) {
        let source = &mut self.session.lock().source;
        if !matches!(source, SourceState::Stalled(_)) {
            *source = SourceState::Running;
        }
    }

    /// A frame or window of the source was inferred.
    pub fn set_source_delivers(&self) {
        let source = &mut self.session.lock().source;
        if matches!(source, SourceState::Stalled(_)) {
            *source = SourceState::Running;
        }
    }

    /// Whether the running model is the configured one.
    pub fn model_resolver_flag(&self) -> &HealthFlag {
        &self.model_resolver
    }

    /// Fails while a new version of the model cannot be used.
    pub fn model_update_flag(&self) -> &HealthFlag {
        &self.model_update
    }

    /// Whether the model receives its features in shared memory, if it supports that.
    pub fn shared_memory_flag(&self) -> &HealthFlag {
        &self.shared_memory
    }

    /// Whether the model's results fit into messages.
    pub fn results_flag(&self) -> &HealthFlag {
        &self.results
    }

    /// Whether the live page is served.
    pub(crate) fn live_page_flag(&self) -> &HealthFlag {
        &self.live_page
    }

    /// Whether the local topics of Greengrass work.
    pub(crate) fn local_topics_flag(&self) -> &HealthFlag {
        &self.local_topics
    }

    /// The connection to Edge Impulse Studio.
    pub(crate) fn studio_state(&self) -> &StudioStateCell {
        &self.studio
    }

    /// The project in Studio, and the last uploads.
    pub(crate) fn studio_activity(&self) -> &StudioActivity {
        &self.studio_activity
    }

    /// The versions of the model beside the running one.
    pub(crate) fn model_versions(&self) -> &ModelVersionCell {
        &self.model_versions
    }

    /// The status as JSON, for `/api/status` and the live page.
    pub(crate) fn status_document(&self) -> Map<String, Value> {
        status_document(&self.info, &self.snapshot(), self.inferences_per_second(Instant::now()))
    }

    /// The status in the text format of Prometheus; its content type is [`prometheus::CONTENT_TYPE`].
    ///
    /// # Errors
    /// A metric cannot be written; no status causes that.
    pub(crate) fn prometheus_text(&self) -> Result<String, fmt::Error> {
        prometheus::text(self.snapshot())
    }

    /// The `runner` object of the MQTT metrics message.
    pub fn runner_object(&self) -> Map<String, Value> {
        runner_object(&self.snapshot())
    }

    fn snapshot(&self) -> Snapshot {
        let (link, outbox, viewers) = (self.link.status(), self.outbox.status(), self.viewers.status());
        let (report, mut snapshot) = {
            let session = self.session.lock();
            let snapshot = Snapshot {
                uptime: session.started.elapsed(),
                resident_bytes: resident_bytes(),
                model: session.model.clone(),
                model_summary: session.model_summary.clone(),
                model_versions: self.model_versions.get(),
                source: session.source.clone(),
                studio: self.studio.get(),
                studio_activity: self.studio_activity.snapshot(),
                health: self.health(&session, &link, &outbox),
                link,
                outbox,
                report: None,
                viewers,
                events: None,
                caches: session.caches.clone(),
                counters: self.stats.each().collect(),
            };
            (session.report.clone(), snapshot)
        };
        // Read last and without the lock on the session, because the inference loop also uses the lock of the report.
        snapshot.report = report.map(|report| report.status());
        snapshot.events = self.events.get().and_then(|events| events.status());
        snapshot
    }

    fn health(&self, session: &SessionStatus, link: &LinkStatus, outbox: &OutboxStatus) -> Health {
        let has_spool = !matches!(link, LinkStatus::Stdout | LinkStatus::Off);
        let (files, s3) = (&session.caches.files, &session.caches.s3);
        Health::new([
            session.model.health(&[
                &self.model_resolver,
                &self.model_update,
                &self.results,
                &self.shared_memory,
            ]),
            session.source.health(),
            link_health(link),
            HealthStatus::from_flag(Part::Spool, "ok", has_spool.then_some(&outbox.spool)),
            HealthStatus::from_flag(Part::CacheFile, "ok", files.as_ref()),
            HealthStatus::from_flag(Part::CacheS3, "ok", s3.as_ref().map(|(_, flag)| flag)),
            HealthStatus::from_flag(Part::EventClips, "ok", session.caches.clips.as_ref()),
            HealthStatus::from_flag(Part::Preview, "on", self.info.live_page.then_some(&self.live_page)),
            HealthStatus::from_flag(Part::Configuration, "ok", Some(&self.configuration)),
            HealthStatus::from_flag(
                Part::LocalTopics,
                "online",
                self.info.local_topics.then_some(&self.local_topics),
            ),
            self.studio.get().health(),
            work_dir_health(self.stats.files_damaged.get()),
        ])
    }

    fn inferences_per_second(&self, now: Instant) -> f64 {
        let mut rate = self.rate.lock();
        let elapsed = now.saturating_duration_since(rate.measured);
        if elapsed >= RATE_PERIOD {
            let count = self.stats.inferences.get();
            // The counter starts at zero again after the `restart` command.
            let new = count.checked_sub(rate.count).unwrap_or(count);
            *rate = InferenceRate {
                measured: now,
                count,
                per_second: new as f64 / elapsed.as_secs_f64(),
            };
        }
        (rate.per_second * 10.0).round() / 10.0
    }
}

/// Remains until the next start or `restart` command: somebody may want to look at the files.
fn work_dir_health(damaged: u64) -> HealthStatus {
    if damaged == 0 {
        return HealthStatus::ok(Part::WorkDir, "ok");
    }
    let reason = format!("{damaged} damaged files or directories were renamed to <name>.damaged-<time>, see the log");
    HealthStatus::failing(Part::WorkDir, "damaged", reason)
}

fn link_health(link: &LinkStatus) -> HealthStatus {
    match link {
        LinkStatus::Stdout => HealthStatus::ok(Part::Mqtt, "screen"),
        LinkStatus::Off => HealthStatus::ok(Part::Mqtt, "off"),
        LinkStatus::Connecting { .. } => HealthStatus::ok(Part::Mqtt, "connecting"),
        LinkStatus::Online { .. } => HealthStatus::ok(Part::Mqtt, "online"),
        LinkStatus::Offline { reason, .. } => HealthStatus::failing(Part::Mqtt, "offline", reason),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::source::PublishedMessage;

    #[derive(Debug, Default)]
    struct FixedStatus(OutboxStatus);

    impl StatusSource<OutboxStatus> for FixedStatus {
        fn status(&self) -> OutboxStatus {
            self.0.clone()
        }
    }

    impl StatusSource<ViewerStatus> for FixedStatus {
        fn status(&self) -> ViewerStatus {
            ViewerStatus::default()
        }
    }

    fn registry(outbox: OutboxStatus) -> StatusRegistry {
        let info = ComponentInfo {
            device: "d".to_owned(),
            live_page: false,
            local_topics: false,
        };
        let fixed = Arc::new(FixedStatus(outbox));
        StatusRegistry::new(info, Arc::new(LinkStatus::Stdout), fixed.clone(), fixed, Arc::default())
    }

    #[test]
    fn the_status_is_complete_before_the_first_session() {
        let registry = registry(OutboxStatus::default());
        let status = registry.status_document();
        assert_eq!(
            status["model"],
            json!({
                "state": "starting", "reason": null, "previous_version": null, "probation_s": null, "update": null, "bad_version": null,
            })
        );
        assert_eq!(
            status["studio"],
            json!({"state": "off", "reason": null, "project": null, "waiting": 0, "uploads": []})
        );
        assert_eq!(status["mqtt"], json!({"state": "screen", "waiting": 0}));
        assert_eq!((&status["filter"], &status["published"]), (&Value::Null, &json!([])));
        assert_eq!(status["cache"], json!({"file": false, "s3_bucket": null}));
        registry.set_caches(CacheStatus {
            files: Some(HealthFlag::default()),
            s3: Some(("b".to_owned(), HealthFlag::default())),
            clips: None,
        });
        let status = registry.status_document();
        assert_eq!(status["cache"], json!({"file": true, "s3_bucket": "b"}));
    }

    #[test]
    fn published_messages_are_shown_without_their_pictures() {
        let payload = json!({"time_ms": 3, "image": "x".repeat(50_000), "box": []}).to_string();
        let message = PublishedMessage {
            ts: 1,
            topic: "t".into(),
            payload: payload.into(),
        };
        let status = registry(OutboxStatus {
            waiting: 1,
            published: vec![message],
            ..OutboxStatus::default()
        })
        .status_document();
        assert_eq!(
            status["published"][0]["payload"],
            json!({"time_ms": 3, "image": "(50000 characters)", "box": []})
        );
        assert_eq!(status["mqtt"]["waiting"], 1);
    }

    #[test]
    fn a_stalled_source_is_running_again_when_it_delivers() {
        let registry = registry(OutboxStatus::default());
        let source = || {
            let runner = registry.runner_object();
            (runner["health"]["source"].clone(), runner["problems"].clone())
        };
        registry.set_source_started();
        assert_eq!(source(), (json!("running"), json!([])));
        registry.set_source_state(SourceState::Stalled("it delivered no frame for 30 s".to_owned()));
        registry.set_source_started();
        let problem = "source: it delivered no frame for 30 s";
        assert_eq!(source(), (json!("stalled"), json!([problem])));
        registry.set_source_delivers();
        assert_eq!(source(), (json!("running"), json!([])));
    }

    #[test]
    fn the_rate_is_measured_between_readings_and_survives_a_restart() {
        let registry = registry(OutboxStatus::default());
        let begin = registry.rate.lock().measured;
        registry.stats.inferences.add(20);
        assert_eq!(registry.inferences_per_second(begin + Duration::from_secs(2)), 10.0);
        assert_eq!(
            registry.inferences_per_second(begin + Duration::from_millis(2100)),
            10.0,
            "too soon for a new measurement"
        );
        registry.stats.reset();
        registry.stats.inferences.add(5);
        assert_eq!(registry.inferences_per_second(begin + Duration::from_secs(3)), 5.0);
    }
}
