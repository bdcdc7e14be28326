//! The status for Prometheus (`/metrics`), in the OpenMetrics text format.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::snapshot::Snapshot;
use super::source::{EventStatus, LinkStatus};

/// Content type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a snapshot as text.
///
/// # Errors
/// A metric cannot be written; no value of a snapshot causes that.
pub(super) fn text(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ei_greengrass");
    registry.register_collector(Box::new(SnapshotCollector(snapshot)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct SnapshotCollector(Snapshot);

impl Collector for SnapshotCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(snapshot) = self;
        let mut counter = |name: &str, help: &str, count: u64| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(metric)
        };
        for (name, count) in &snapshot.counters {
            let help = format!("{} since the start or the restart command", name.replace('_', " "));
            counter(name, &help, *count)?;
        }
        counter(
            "page_pictures_encoded",
            "Pictures encoded as JPEG for clients of the live page",
            snapshot.viewers.pictures_encoded,
        )?;

        let is_connected = matches!(snapshot.link, LinkStatus::Online { .. } | LinkStatus::Stdout);
        let latency = snapshot.latency();
        for (name, help, value) in [
            (
                "mqtt_connected",
                "1 while there is a connection to the broker",
                f64::from(u8::from(is_connected)),
            ),
            (
                "messages_waiting",
                "Messages not yet acknowledged by the broker",
                snapshot.outbox.waiting as f64,
            ),
            (
                "inference_seconds_median",
                "Round trip to the model, median of the last ones",
                f64::from(latency.p50) / 1e3,
            ),
            (
                "inference_seconds_p95",
                "Round trip to the model, 95th percentile of the last ones",
                f64::from(latency.p95) / 1e3,
            ),
            (
                "page_viewers",
                "Clients of the live page",
                snapshot.viewers.viewers as f64,
            ),
            (
                "uptime_seconds",
                "Time since the start or the restart command",
                snapshot.uptime.as_secs_f64(),
            ),
            (
                "resident_bytes",
                "Resident memory of the process",
                snapshot.resident_bytes.unwrap_or(0) as f64,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        match &snapshot.events {
            Some(events) => encode_events(events, &mut encoder),
            None => Ok(()),
        }
    }
}

/// Events by rule, crossings by line, direction and label, objects by zone.
fn encode_events(events: &EventStatus, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let help = "Events that started since the totals were reset";
    let mut metric = encoder.encode_descriptor("rule_events", help, None, MetricType::Counter)?;
    for rule in &events.rules {
        let labels = [("rule", rule.name.as_str())];
        ConstCounter::new(rule.started).encode(metric.encode_family(&labels)?)?;
    }
    let help = "Events that have started and not ended";
    let mut metric = encoder.encode_descriptor("rule_events_open", help, None, MetricType::Gauge)?;
    for rule in &events.rules {
        let labels = [("rule", rule.name.as_str())];
        ConstGauge::new(rule.open as f64).encode(metric.encode_family(&labels)?)?;
    }
    let help = "Crossings since the totals were reset";
    let mut metric = encoder.encode_descriptor("line_crossings", help, None, MetricType::Counter)?;
    for (line, directions) in &events.lines {
        for (direction, counts) in directions {
            for (label, count) in counts {
                let labels = [("line", line.as_str()), ("direction", direction), ("label", label)];
                ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
            }
        }
    }
    let help = "Objects in the zone";
    let mut metric = encoder.encode_descriptor("zone_objects", help, None, MetricType::Gauge)?;
    for (zone, count) in &events.zones {
        let labels = [("zone", zone.as_str())];
        ConstGauge::new(*count as f64).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::source::RuleStatus;

    #[derive(Debug)]
    struct EventCollector(EventStatus);

    impl Collector for EventCollector {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            encode_events(&self.0, &mut encoder)
        }
    }

    #[test]
    fn events_have_their_names_as_labels() {
        let mut events = EventStatus {
            rules: vec![RuleStatus {
                name: "occupied".to_owned(),
                started: 5,
                open: 1,
            }],
            lines: vec![("gate".to_owned(), Default::default())],
            zones: vec![("bay".to_owned(), 2)],
            ..EventStatus::default()
        };
        let cars = events.lines[0].1.entry("in".into()).or_default();
        cars.insert("a \"car\"".to_owned(), 3);
        let mut registry = Registry::with_prefix("ei_greengrass");
        registry.register_collector(Box::new(EventCollector(events)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"ei_greengrass_rule_events_total{rule="occupied"} 5"#,
            r#"ei_greengrass_rule_events_open{rule="occupied"} 1.0"#,
            r#"ei_greengrass_line_crossings_total{line="gate",direction="in",label="a \"car\""} 3"#,
            r#"ei_greengrass_zone_objects{zone="bay"} 2.0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
