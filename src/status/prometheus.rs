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
use super::source::LinkStatus;

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
        Ok(())
    }
}
