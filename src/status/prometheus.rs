//! The figures for Prometheus (`/metrics`), in the OpenMetrics text format.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::registry::StatusRegistry;
use crate::inference::live_tap::LiveTap;
use crate::util::memory::resident_bytes;

/// Of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Reads everything anew for each request: nothing is kept up to date for nobody.
#[derive(Debug)]
struct Figures {
    status: Arc<StatusRegistry>,
    live_tap: Arc<LiveTap>,
}

/// All figures as text.
///
/// # Errors
/// None that figures can cause.
pub(crate) fn text(status: &Arc<StatusRegistry>, live_tap: &Arc<LiveTap>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ei_greengrass");
    registry.register_collector(Box::new(Figures {
        status: status.clone(),
        live_tap: live_tap.clone(),
    }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, count) in self.status.stats().each() {
            let help = format!("{} since the start or the restart command", name.replace('_', " "));
            let metric = encoder.encode_descriptor(name, &help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(metric)?;
        }
        let encoded = encoder.encode_descriptor(
            "page_pictures_encoded",
            "Pictures turned into JPEG for who looks at the page",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(self.live_tap.encoded.get()).encode(encoded)?;

        let (online, waiting) = self.status.delivery();
        let (median, p95) = self.status.latency();
        for (name, help, value) in [
            (
                "mqtt_connected",
                "1 while the broker can be reached",
                f64::from(u8::from(online)),
            ),
            (
                "messages_waiting",
                "Messages not yet acknowledged by the broker",
                waiting as f64,
            ),
            (
                "inference_seconds_median",
                "Round trip to the model, median of the last ones",
                f64::from(median) / 1e3,
            ),
            (
                "inference_seconds_p95",
                "Round trip to the model, 95th percentile of the last ones",
                f64::from(p95) / 1e3,
            ),
            (
                "page_viewers",
                "Clients that look at the page",
                self.live_tap.viewers().0 as f64,
            ),
            (
                "uptime_seconds",
                "Since the start or the restart command",
                self.status.uptime().as_secs_f64(),
            ),
            (
                "resident_bytes",
                "Resident memory of the process",
                resident_bytes().unwrap_or(0) as f64,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}
