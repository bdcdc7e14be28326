//! The status as JSON, for `/api/status` and the live page.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::snapshot::Snapshot;
use super::source::{ComponentInfo, EventStatus, LinkStatus, PublishedMessage};
use super::states::ModelState;
use super::studio_activity::ShownUpload;
use crate::util::clock::now_ms;
use crate::util::redact;

/// Larger payloads (free-form results) are shown without their large fields.
const MAX_SHOWN_PAYLOAD: usize = 16 * 1024;
/// A field of this size or larger, as JSON text, is left out of such a payload.
const LARGE_FIELD: usize = 1024;

/// Builds the status document.
pub(super) fn status_document(info: &ComponentInfo, snapshot: &Snapshot, per_second: f64) -> Map<String, Value> {
    let latency = snapshot.latency();
    let document = json!({
        "device": info.device,
        "version": env!("CARGO_PKG_VERSION"),
        "ts": now_ms(),
        "uptime_s": snapshot.uptime.as_secs(),
        "rss_bytes": snapshot.resident_bytes,
        "model": model(snapshot),
        "source": {"state": snapshot.source.name(), "reason": redacted(snapshot.source.reason())},
        "mqtt": link(snapshot),
        "studio": studio(snapshot),
        "health": snapshot.health.states(),
        "problems": snapshot.health.problems(),
        "filter": snapshot.report.map(|report| report.filter.to_json()),
        "gate": {"publish_every": snapshot.report.map(|report| report.publish_every)},
        "cache": {
            "file": snapshot.caches.files.is_some(),
            "s3_bucket": snapshot.caches.s3.as_ref().map(|(bucket, _)| bucket),
        },
        "inference": {
            "per_second": per_second,
            "ms_last": latency.last, "ms_p50": latency.p50, "ms_p95": latency.p95,
        },
        "event_counts": snapshot.events.as_ref().map(EventStatus::to_json),
        "last_events": snapshot.events.as_ref().map(|events| &*events.recent).unwrap_or_default(),
        "counters": snapshot.counters.iter().map(|(name, n)| ((*name).to_owned(), (*n).into())).collect::<Map<_, _>>(),
        "page": {
            "viewers": snapshot.viewers.viewers,
            "picture_viewers": snapshot.viewers.picture_viewers,
            "pictures_encoded": snapshot.viewers.pictures_encoded,
        },
        "published": snapshot.outbox.published.iter().map(published).collect::<Vec<_>>(),
    });
    match document {
        Value::Object(document) => document,
        _ => Map::new(),
    }
}

fn model(snapshot: &Snapshot) -> Value {
    let state = &snapshot.model;
    let mut model = Map::new();
    model.insert("state".to_owned(), state.name().into());
    model.insert("reason".to_owned(), redacted(state.reason()).into());
    if let ModelState::WarmingUp(since) = state {
        model.insert("for_s".to_owned(), since.elapsed().as_secs().into());
    }
    if let Value::Object(summary) = json!(snapshot.model_summary.as_deref()) {
        model.extend(summary);
    }
    model.extend(snapshot.model_versions.to_json(Instant::now()));
    Value::Object(model)
}

/// Removes secrets from a reason, because the page can be read without a token.
fn redacted(reason: Option<&str>) -> Option<String> {
    reason.map(redact::credentials)
}

fn studio(snapshot: &Snapshot) -> Value {
    let activity = &snapshot.studio_activity;
    let project = activity
        .project
        .as_ref()
        .map(|project| json!({"name": project.name, "device": project.device, "link": project.link}));
    json!({
        "state": snapshot.studio.name(),
        "reason": redacted(snapshot.studio.reason()),
        "project": project,
        "waiting": activity.waiting,
        "uploads": activity.uploads.iter().map(upload).collect::<Vec<_>>(),
    })
}

fn upload(ShownUpload { ts, record }: &ShownUpload) -> Value {
    json!({
        "ts": ts, "name": record.name, "label": record.label, "category": record.category, "bytes": record.bytes,
        "state": record.state.name(), "reason": redacted(record.state.reason()),
    })
}

fn link(snapshot: &Snapshot) -> Value {
    let waiting = snapshot.outbox.waiting;
    match &snapshot.link {
        LinkStatus::Stdout => json!({"state": "screen", "waiting": waiting}),
        LinkStatus::Off => json!({"state": "off", "waiting": waiting}),
        LinkStatus::Connecting { attempt } => json!({"state": "connecting", "attempt": attempt, "waiting": waiting}),
        LinkStatus::Online { duration } => {
            json!({"state": "online", "for_s": duration.as_secs(), "waiting": waiting})
        }
        LinkStatus::Offline {
            reason,
            duration,
            retry_in,
        } => json!({
            "state": "offline", "for_s": duration.as_secs(), "reason": redact::credentials(reason),
            "retry_in_s": retry_in.as_secs(), "waiting": waiting,
        }),
    }
}

/// A published message; the size of its picture replaces the picture.
fn published(message: &PublishedMessage) -> Value {
    let mut payload: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
    if let Some(image) = payload.get_mut("image") {
        let length = image.as_str().map_or(0, str::len);
        *image = json!(format!("({length} characters)"));
    }
    if message.payload.len() > MAX_SHOWN_PAYLOAD
        && let Some(payload) = payload.as_object_mut()
    {
        payload.retain(|_, value| value.to_string().len() < LARGE_FIELD);
    }
    json!({"ts": message.ts, "topic": &*message.topic, "bytes": message.payload.len(), "payload": payload})
}
