//! The first message of the device after every connect.

use serde::Serialize;
use serde_json::{Value, json};

use super::studio_device::StudioDevice;
use crate::util::secret::Secret;

/// A sensor that Studio can ask for samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sensor {
    /// `Microphone`, `Camera (640x480)` or `Video (1280x720)`.
    pub name: String,
    /// Sample rates in Hz; empty for cameras.
    pub frequencies: Vec<f64>,
    /// The longest sample, in seconds.
    #[serde(rename = "maxSampleLengthS")]
    pub max_sample_length_s: u32,
}

/// What the device is connected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HelloMode {
    /// Collecting data.
    #[default]
    Ingestion,
    /// Monitoring a model.
    Inference,
}

/// What the services offer. Each service adds its part before every hello.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HelloOffer {
    /// The sensors that exist.
    pub sensors: Vec<Sensor>,
    /// Whether snapshot streams are offered.
    pub supports_snapshot_streaming: bool,
    /// `inference` needs the member `inferenceInfo` in [`Self::more`].
    pub mode: HelloMode,
    /// Further members of the hello, for example `inferenceInfo`.
    pub more: Vec<(&'static str, Value)>,
    /// Members that change all the time, for example `availableRecords`: they need no new hello.
    pub changing: Vec<(&'static str, Value)>,
}

impl HelloOffer {
    /// Whether Studio must be told that this offer replaces `earlier`.
    pub(super) fn differs_from(&self, earlier: &Self) -> bool {
        let lasting = |offer: &Self| Self {
            changing: Vec::new(),
            ..offer.clone()
        };
        lasting(self) != lasting(earlier)
    }
}

/// The hello of protocol version 4 as text. It contains the key: it is sent, and never logged.
pub(super) fn hello(key: &Secret, device: &StudioDevice, offer: &HelloOffer) -> String {
    let mut hello = json!({
        "apiKey": key.reveal(),
        "deviceId": device.id,
        "deviceType": device.kind,
        "connection": "ip",
        "sensors": offer.sensors,
        "supportsSnapshotStreaming": offer.supports_snapshot_streaming,
        "version": 4,
        "mode": offer.mode,
    });
    for (name, value) in offer.more.iter().chain(&offer.changing) {
        hello[*name] = value.clone();
    }
    json!({ "hello": hello }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hello_has_the_members_of_the_protocol() {
        let offer = HelloOffer {
            sensors: vec![Sensor {
                name: "Microphone".to_owned(),
                frequencies: vec![16_000.0],
                max_sample_length_s: 3600,
            }],
            supports_snapshot_streaming: true,
            mode: HelloMode::Inference,
            changing: vec![("availableRecords", json!({"firstIndex": 1}))],
            ..HelloOffer::default()
        };
        let device = StudioDevice {
            id: "02:00:00:00:00:01".to_owned(),
            kind: "EDGE_IMPULSE_LINUX",
            name: "Cam_020000000001".to_owned(),
        };
        let text = hello(&Secret::new("ei_1"), &device, &offer);
        let hello: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            hello,
            json!({"hello": {
                "apiKey": "ei_1", "deviceId": "02:00:00:00:00:01", "deviceType": "EDGE_IMPULSE_LINUX", "connection": "ip",
                "sensors": [{"name": "Microphone", "frequencies": [16000.0], "maxSampleLengthS": 3600}],
                "supportsSnapshotStreaming": true, "version": 4, "mode": "inference",
                "availableRecords": {"firstIndex": 1},
            }})
        );
    }
}
