//! What is known about the device at the moment: written by the supervisor when something changes, read by who looks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::states::{ModelState, SourceState};
use crate::commands::filter_config;
use crate::config::Threshold;
use crate::inference::live_tap::LiveTap;
use crate::inference::publisher::Caches;
use crate::model::{ModelInfo, ModelInput};
use crate::report::Report;
use crate::status::health::{Health, HealthFlag, HealthStatus, Part};
use crate::status::stats::Stats;
use crate::uplink::recent::RecentMessage;
use crate::uplink::{LinkState, Outbox};
use crate::util::clock::now_ms;
use crate::util::memory::resident_bytes;

/// A rate is taken over at least this long.
const RATE_OVER: Duration = Duration::from_millis(900);

/// Where messages go.
#[derive(Debug, Clone)]
pub enum LinkView {
    /// A broker.
    Broker(watch::Receiver<LinkState>),
    /// The screen (`demo`).
    Screen,
}

/// What stays the same as long as the daemon runs.
#[derive(Debug, Clone)]
pub struct About {
    /// The device's name.
    pub device: String,
    /// Whether pairs are cached in files.
    pub file_cache: bool,
    /// The bucket of the S3 cache.
    pub s3_cache: Option<String>,
    /// Whether the live page is on.
    pub page: bool,
}

/// See the module.
#[derive(Debug)]
pub struct StatusRegistry {
    about: About,
    stats: Arc<Stats>,
    outbox: Arc<Outbox>,
    live_tap: Arc<LiveTap>,
    link: LinkView,
    page: HealthFlag,
    model_supply: HealthFlag,
    state: Mutex<State>,
    model: watch::Sender<Option<Arc<ModelInfo>>>,
    rate: Mutex<Rate>,
}

#[derive(Debug)]
struct State {
    model: ModelState,
    source: SourceState,
    report: Option<Arc<Mutex<Report>>>,
    file_cache: HealthFlag,
    s3_cache: HealthFlag,
    started: Instant,
}

/// Inferences a second between two looks.
#[derive(Debug)]
struct Rate {
    at: Instant,
    count: u64,
    per_second: f64,
}

impl StatusRegistry {
    /// A registry of a daemon that has just started.
    pub fn new(about: About, link: LinkView, live_tap: Arc<LiveTap>, outbox: Arc<Outbox>, stats: Arc<Stats>) -> Self {
        let now = Instant::now();
        Self {
            about,
            stats,
            outbox,
            live_tap,
            link,
            page: HealthFlag::default(),
            model_supply: HealthFlag::default(),
            state: Mutex::new(State {
                model: ModelState::Starting,
                source: SourceState::Starting,
                report: None,
                file_cache: HealthFlag::default(),
                s3_cache: HealthFlag::default(),
                started: now,
            }),
            model: watch::Sender::new(None),
            rate: Mutex::new(Rate {
                at: now,
                count: 0,
                per_second: 0.0,
            }),
        }
    }

    /// A generation begins, with this state and these caches of its own.
    pub fn begin(&self, report: Arc<Mutex<Report>>, caches: &Caches) {
        self.live_tap.thresholds.clear();
        self.model_supply.works();
        let mut state = self.state.lock();
        state.report = Some(report);
        state.file_cache = caches.files.as_ref().map(|cache| cache.flag()).unwrap_or_default();
        state.s3_cache = caches.s3.as_ref().map(|cache| cache.flag()).unwrap_or_default();
        state.started = Instant::now();
        state.model = ModelState::Starting;
        state.source = SourceState::Starting;
    }

    /// The model said what it is.
    pub fn model_is(&self, info: &Arc<ModelInfo>) {
        self.model.send_replace(Some(info.clone()));
    }

    /// The model's state changed.
    pub fn model(&self, model: ModelState) {
        self.state.lock().model = model;
    }

    /// Whether the model that runs is the one that was asked for.
    pub fn model_supply(&self) -> &HealthFlag {
        &self.model_supply
    }

    /// The source's state changed.
    pub fn source(&self, source: SourceState) {
        self.state.lock().source = source;
    }

    /// How each part is.
    pub fn health(&self) -> Health {
        let (model, source, file_cache, s3_cache) = {
            let state = self.state.lock();
            let (model, source) = (state.model.condition(&self.model_supply), state.source.condition());
            (model, source, state.file_cache.clone(), state.s3_cache.clone())
        };
        let About {
            file_cache: has_files,
            s3_cache: bucket,
            page,
            ..
        } = &self.about;
        let has_spool = matches!(self.link, LinkView::Broker(_));
        Health::new([
            model,
            source,
            self.link_condition(),
            HealthStatus::read(Part::Spool, has_spool, "ok", self.outbox.spool_flag()),
            HealthStatus::read(Part::CacheFile, *has_files, "ok", &file_cache),
            HealthStatus::read(Part::CacheS3, bucket.is_some(), "ok", &s3_cache),
            HealthStatus::read(Part::Preview, *page, "on", &self.page),
        ])
    }

    /// Where the live page notes whether its port could be opened.
    pub(crate) fn page_flag(&self) -> &HealthFlag {
        &self.page
    }

    /// Follows what the model says it is.
    pub(crate) fn model_info(&self) -> watch::Receiver<Option<Arc<ModelInfo>>> {
        self.model.subscribe()
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The `hello` of the existing runner's WebSocket.
    pub(crate) fn hello(&self, info: &ModelInfo) -> Value {
        let mut parameters = info.parameters_with_sensor_type();
        show_changed(&mut parameters, &self.live_tap.thresholds.applied());
        json!({
            "type": "hello",
            "project": info.raw_project,
            "modelParameters": parameters,
            "inferencingEngine": info.raw_engine,
        })
    }

    /// Everything, for `/api/status` and the page.
    pub(crate) fn status(&self) -> Map<String, Value> {
        let (model, source, report, started) = {
            let state = self.state.lock();
            (
                state.model.clone(),
                state.source.clone(),
                state.report.clone(),
                state.started,
            )
        };
        let figures = report.map(|report| {
            let report = report.lock();
            (report.filter(), report.publish_every(), report.latency())
        });
        let (filter, every, latency) = match &figures {
            Some((filter, every, latency)) => (filter_config(filter), json!(every), *latency),
            None => (Value::Null, Value::Null, Default::default()),
        };
        let (viewers, picture_viewers) = self.live_tap.viewers();
        let health = self.health();
        let status = json!({
            "device": self.about.device,
            "version": env!("CARGO_PKG_VERSION"),
            "ts": now_ms(),
            "uptime_s": started.elapsed().as_secs(),
            "rss_bytes": resident_bytes(),
            "model": self.model_value(&model),
            "source": {"state": source.word(), "reason": source.reason()},
            "mqtt": self.link_value(),
            "health": health.words(),
            "problems": health.problems(),
            "filter": filter,
            "gate": {"publish_every": every},
            "cache": {
                "file": self.about.file_cache,
                "s3_bucket": self.about.s3_cache,
            },
            "inference": {
                "per_second": self.rate(Instant::now()),
                "ms_last": latency.last, "ms_p50": latency.p50, "ms_p95": latency.p95,
            },
            "counters": self.stats.each().map(|(name, n)| (name.to_owned(), n.into())).collect::<Map<_, _>>(),
            "page": {"viewers": viewers, "picture_viewers": picture_viewers, "pictures_encoded": self.live_tap.encoded.get()},
            "published": self.outbox.recent().newest_first().iter().map(published_value).collect::<Vec<_>>(),
        });
        match status {
            Value::Object(status) => status,
            _ => Map::new(),
        }
    }

    /// Whether the broker can be reached, and what waits for it.
    pub(crate) fn delivery(&self) -> (bool, u64) {
        let online = match &self.link {
            LinkView::Broker(state) => matches!(*state.borrow(), LinkState::Online { .. }),
            LinkView::Screen => true,
        };
        (online, self.outbox.waiting())
    }

    /// Round trips to the model in milliseconds: median and 95th percentile.
    pub(crate) fn latency(&self) -> (f32, f32) {
        let report = self.state.lock().report.clone();
        let latency = report.map(|report| report.lock().latency()).unwrap_or_default();
        (latency.p50, latency.p95)
    }

    /// Since the start of the daemon, or the `restart` command.
    pub(crate) fn uptime(&self) -> Duration {
        self.state.lock().started.elapsed()
    }

    fn rate(&self, now: Instant) -> f64 {
        let mut rate = self.rate.lock();
        let passed = now.saturating_duration_since(rate.at);
        if passed >= RATE_OVER {
            let count = self.stats.inferences.get();
            // After a `restart` the counter begins again.
            let new = count.checked_sub(rate.count).unwrap_or(count);
            *rate = Rate {
                at: now,
                count,
                per_second: (new as f64 / passed.as_secs_f64() * 10.0).round() / 10.0,
            };
        }
        rate.per_second
    }

    fn model_value(&self, state: &ModelState) -> Value {
        let mut model = json!({"state": state.word(), "reason": state.reason()});
        if let ModelState::WarmingUp(since) = state {
            model["for_s"] = since.elapsed().as_secs().into();
        }
        if let Some(info) = &*self.model.borrow() {
            let input = match info.input {
                ModelInput::Image { width, height, .. } => json!({"kind": "image", "width": width, "height": height}),
                ModelInput::Audio { frequency, .. } => json!({"kind": "audio", "frequency": frequency}),
                ModelInput::Unsupported(sensor) => json!({"kind": sensor}),
            };
            model["name"] = json!(info.name);
            model["owner"] = json!(info.owner);
            model["version"] = json!(format!("v{}", info.deploy_version));
            model["type"] = json!(info.model_type);
            model["labels"] = json!(info.labels);
            model["input"] = input;
        }
        model
    }

    fn link_condition(&self) -> HealthStatus {
        let LinkView::Broker(state) = &self.link else {
            return HealthStatus::well(Part::Mqtt, "screen");
        };
        match &*state.borrow() {
            LinkState::Connecting { .. } => HealthStatus::well(Part::Mqtt, "connecting"),
            LinkState::Online { .. } => HealthStatus::well(Part::Mqtt, "online"),
            LinkState::Offline { reason, .. } => HealthStatus::ill(Part::Mqtt, "offline", reason),
        }
    }

    fn link_value(&self) -> Value {
        let waiting = self.outbox.waiting();
        let LinkView::Broker(state) = &self.link else {
            return json!({"state": "screen", "waiting": waiting});
        };
        match &*state.borrow() {
            LinkState::Connecting { attempt } => json!({"state": "connecting", "attempt": attempt, "waiting": waiting}),
            LinkState::Online { since } => {
                json!({"state": "online", "for_s": since.elapsed().as_secs(), "waiting": waiting})
            }
            LinkState::Offline {
                reason,
                since,
                retry_in,
            } => json!({
                "state": "offline", "for_s": since.elapsed().as_secs(), "reason": reason.to_string(),
                "retry_in_s": retry_in.as_secs(), "waiting": waiting,
            }),
        }
    }
}

/// A published message without its picture: that is only measured.
fn published_value(recent: &RecentMessage) -> Value {
    let mut payload: Value = serde_json::from_slice(&recent.message.payload).unwrap_or_default();
    if let Some(image) = payload.get_mut("image") {
        let bytes = image.as_str().map_or(0, str::len);
        *image = json!(format!("({bytes} characters)"));
    }
    // Freeform results are as large as a message may be.
    if recent.message.payload.len() > 16 * 1024
        && let Some(payload) = payload.as_object_mut()
    {
        payload.retain(|_, value| value.to_string().len() < 1024);
    }
    json!({"ts": recent.ts, "topic": &*recent.message.topic, "bytes": recent.message.payload.len(), "payload": payload})
}

/// Puts thresholds that were changed since into the parameters that the model sent.
fn show_changed(parameters: &mut Map<String, Value>, changed: &[Threshold]) {
    let Some(Value::Array(blocks)) = parameters.get_mut("thresholds") else {
        return;
    };
    for Threshold { id, key, value } in changed {
        let block = blocks.iter_mut().find(|block| block["id"].as_i64() == Some(*id));
        if let Some(current) = block.and_then(|block| block.get_mut(key)) {
            *current = json!(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Qos;
    use crate::device::Topics;
    use crate::uplink::Message;
    use crate::uplink::outbox::Bounds;

    fn registry() -> (StatusRegistry, Arc<Stats>, Arc<Outbox>) {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(Bounds::default(), stats.clone()));
        let about = About {
            device: "d".to_owned(),
            file_cache: true,
            s3_cache: None,
            page: false,
        };
        let registry = StatusRegistry::new(about, LinkView::Screen, Arc::default(), outbox.clone(), stats.clone());
        (registry, stats, outbox)
    }

    #[test]
    fn before_anything_runs_the_status_says_so() {
        let (registry, ..) = registry();
        let status = registry.status();
        assert_eq!(status["model"], json!({"state": "starting", "reason": null}));
        assert_eq!(status["mqtt"], json!({"state": "screen", "waiting": 0}));
        assert_eq!((&status["filter"], &status["published"]), (&Value::Null, &json!([])));
        assert_eq!(status["cache"], json!({"file": true, "s3_bucket": null}));
    }

    #[test]
    fn published_messages_are_shown_without_their_pictures() {
        let (registry, _, outbox) = registry();
        let topics = Topics::new("d");
        let payload = json!({"time_ms": 3, "image": "x".repeat(50_000), "box": []}).to_string();
        outbox.push(Message::inference(&topics, payload, Qos::AtLeastOnce));
        let status = registry.status();
        assert_eq!(
            status["published"][0]["payload"],
            json!({"time_ms": 3, "image": "(50000 characters)", "box": []})
        );
        assert_eq!(status["mqtt"]["waiting"], 1);
    }

    #[test]
    fn the_rate_is_taken_between_looks_and_survives_a_restart() {
        let (registry, stats, _) = registry();
        let begin = registry.rate.lock().at;
        stats.inferences.add(20);
        assert_eq!(registry.rate(begin + Duration::from_secs(2)), 10.0);
        assert_eq!(
            registry.rate(begin + Duration::from_millis(2100)),
            10.0,
            "too soon to tell anew"
        );
        stats.reset();
        stats.inferences.add(5);
        assert_eq!(registry.rate(begin + Duration::from_secs(3)), 5.0);
    }

    #[test]
    fn a_changed_threshold_is_shown_in_the_next_hello() {
        let mut parameters = Map::new();
        parameters.insert(
            "thresholds".to_owned(),
            json!([{"id": 18, "type": "object_detection", "min_score": 0.5}]),
        );
        let changed = |id, key: &str| Threshold {
            id,
            key: key.to_owned(),
            value: 0.25,
        };
        show_changed(
            &mut parameters,
            &[changed(18, "min_score"), changed(18, "other"), changed(1, "min_score")],
        );
        assert_eq!(
            parameters["thresholds"],
            json!([{"id": 18, "type": "object_detection", "min_score": 0.25}])
        );
    }
}
