//! The `runner` object of the MQTT metrics message.

use serde_json::{Map, Value};

use super::snapshot::Snapshot;
use crate::util::decimal::six_places;

/// Contains every counter under its own name, then `inference_ms_last`, `inference_ms_p50`, `inference_ms_p95`, `waiting`, `uptime_s`,
/// `rss_bytes`, `event_counts` while there are zones, lines or rules, `health` with the state of each part, and `problems` with a sentence for each part that fails.
pub(super) fn runner_object(snapshot: &Snapshot) -> Map<String, Value> {
    let mut runner = Map::new();
    let mut insert = |name: &str, value: Value| runner.insert(name.to_owned(), value);
    for (name, count) in &snapshot.counters {
        insert(name, (*count).into());
    }
    let latency = snapshot.latency();
    insert("inference_ms_last", six_places(latency.last.into()).into());
    insert("inference_ms_p50", six_places(latency.p50.into()).into());
    insert("inference_ms_p95", six_places(latency.p95.into()).into());
    insert("waiting", snapshot.outbox.waiting.into());
    insert("uptime_s", snapshot.uptime.as_secs().into());
    if let Some(bytes) = snapshot.resident_bytes {
        insert("rss_bytes", bytes.into());
    }
    if let Some(events) = &snapshot.events {
        insert("event_counts", events.to_json());
    }
    insert("health", snapshot.health.states().into());
    insert("problems", snapshot.health.problems().into());
    runner
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::config::{Criteria, FilterConfig};
    use crate::status::health::{Health, HealthStatus, Part};
    use crate::status::latency::Latency;
    use crate::status::model_versions::ModelVersionStatus;
    use crate::status::source::{CacheStatus, LinkStatus, OutboxStatus, ReportStatus, ViewerStatus};
    use crate::status::states::{ModelState, SourceState, StudioState};
    use crate::status::stats::Stats;
    use crate::status::studio_activity::StudioActivitySnapshot;

    #[test]
    fn the_object_contains_every_counter_and_the_other_values() {
        let stats = Stats::default();
        stats.spool_dropped.add(2);
        let snapshot = Snapshot {
            uptime: Duration::from_millis(61_900),
            resident_bytes: None,
            model: ModelState::Running,
            model_summary: None,
            model_versions: ModelVersionStatus::default(),
            caches: CacheStatus::default(),
            source: SourceState::Running,
            studio: StudioState::Off,
            studio_activity: StudioActivitySnapshot::default(),
            link: LinkStatus::Stdout,
            outbox: OutboxStatus {
                waiting: 7,
                ..OutboxStatus::default()
            },
            report: Some(ReportStatus {
                filter: FilterConfig {
                    enabled: false,
                    given: 0.7,
                    scores_are_probabilities: None,
                    criteria: Criteria::Greater,
                },
                publish_every: 1,
                latency: Latency {
                    last: 3.5,
                    p50: 2.0,
                    p95: 9.25,
                },
            }),
            viewers: ViewerStatus::default(),
            events: None,
            health: Health::new([
                HealthStatus::ok(Part::Model, "running"),
                HealthStatus::failing(Part::Source, "waiting", "no camera was found"),
            ]),
            counters: stats.each().collect(),
        };
        let runner = runner_object(&snapshot);
        assert_eq!(runner["spool_dropped"], 2);
        assert_eq!(runner["inference_ms_p95"], 9.25);
        assert_eq!(runner["uptime_s"], 61);
        assert_eq!(runner["waiting"], 7);
        assert_eq!(runner["health"], json!({"model": "running", "source": "waiting"}));
        assert_eq!(runner["problems"], json!(["source: no camera was found"]));
        assert!(!runner.contains_key("rss_bytes"));
        assert!(stats.each().all(|(name, _)| runner.contains_key(name)));
    }
}
