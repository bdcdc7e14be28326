//! The `runner` object of the metrics message: what this component adds to the figures of its predecessor.

use std::time::Duration;

use serde_json::{Map, Value};

use super::latency::Latency;
use super::metrics::six_places;
use crate::status::health::Health;
use crate::status::stats::Stats;

/// Figures about the process, for the metrics message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunnerFigures {
    /// Since the start of the daemon, or the `restart` command.
    pub uptime: Duration,
    /// Resident memory of this process in bytes; left out where it could not be read.
    pub rss_bytes: Option<u64>,
    /// Undelivered messages, in memory and on disk.
    pub waiting: u64,
    /// Health of each part.
    pub health: Health,
}

impl RunnerFigures {
    /// Every counter under its own name, then `inference_ms_last`, `inference_ms_p50`, `inference_ms_p95`, `waiting`,
    /// `uptime_s`, `rss_bytes`, `health` with the state of each part, and `problems` with a sentence for each unhealthy
    /// part.
    pub(super) fn to_json(&self, stats: &Stats, latency: Latency) -> Map<String, Value> {
        let mut runner: Map<String, Value> = stats
            .each()
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        for (name, ms) in [
            ("inference_ms_last", latency.last),
            ("inference_ms_p50", latency.p50),
            ("inference_ms_p95", latency.p95),
        ] {
            runner.insert(name.to_owned(), six_places(ms.into()).into());
        }
        runner.insert("waiting".to_owned(), self.waiting.into());
        runner.insert("uptime_s".to_owned(), self.uptime.as_secs().into());
        if let Some(bytes) = self.rss_bytes {
            runner.insert("rss_bytes".to_owned(), bytes.into());
        }
        runner.insert("health".to_owned(), self.health.words().into());
        runner.insert("problems".to_owned(), self.health.problems().into());
        runner
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::health::{HealthStatus, Part};

    #[test]
    fn the_object_has_every_counter_and_the_figures() {
        let stats = Stats::default();
        stats.spool_dropped.add(2);
        let figures = RunnerFigures {
            uptime: Duration::from_millis(61_900),
            rss_bytes: None,
            waiting: 7,
            health: Health::new([
                HealthStatus::well(Part::Model, "running"),
                HealthStatus::ill(Part::Source, "waiting", "no camera was found"),
            ]),
        };
        let runner = figures.to_json(
            &stats,
            Latency {
                last: 3.5,
                p50: 2.0,
                p95: 9.25,
            },
        );
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
