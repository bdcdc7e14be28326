//! The device's name and its MQTT topics.

/// The four topics of a device. The leading slash belongs to the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// One message per published inference.
    pub inference_output: String,
    /// Metrics, every `metrics_sleeptime_ms`.
    pub metrics: String,
    /// Commands to the device.
    pub command_input: String,
    /// Answers to commands, and the state notices.
    pub command_output: String,
}

impl Topics {
    /// Topics for the (already cleaned) device name.
    pub fn new(device: &str) -> Self {
        let base = format!("/edgeimpulse/device/{device}");
        Self {
            inference_output: format!("{base}/inference/output"),
            metrics: format!("{base}/model/metrics"),
            command_input: format!("{base}/command/input"),
            command_output: format!("{base}/command/output"),
        }
    }
}
