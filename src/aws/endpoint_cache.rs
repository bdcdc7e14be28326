//! Stores the IoT Core endpoint that was discovered last, for a start without a network or without permission.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::iot_host::IotHost;
use crate::util::atomic_file;
use crate::util::private_file;

const MAX_BYTES: u64 = 4096;

/// A file in the device directory with the endpoint and its region.
#[derive(Debug, Clone)]
pub struct EndpointCache {
    file: PathBuf,
}

impl EndpointCache {
    /// The file in the directory of a device.
    pub fn new(device_dir: &Path) -> Self {
        Self {
            file: device_dir.join("iot-endpoint.json"),
        }
    }

    /// Returns the endpoint of the last discovery if its region is `region`; `None` accepts any region.
    pub fn read(&self, region: Option<&str>) -> Option<IotHost> {
        let mut text = String::new();
        private_file::open(&self.file)
            .ok()?
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .ok()?;
        let json: Value = serde_json::from_str(&text).ok()?;
        let is_same_region = region.is_none_or(|region| json["region"] == region);
        is_same_region.then_some(json["endpoint"].as_str()?)?.parse().ok()
    }

    /// Stores an endpoint. Writes only if it differs from the stored one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, region: &str, endpoint: &IotHost) -> io::Result<()> {
        if self.read(Some(region)).as_ref() == Some(endpoint) {
            return Ok(());
        }
        let text = json!({"region": region, "endpoint": endpoint.to_string()}).to_string();
        atomic_file::replace(&self.file, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_endpoint_is_stored_for_its_region() {
        let directory = tempfile::tempdir().unwrap();
        let cache = EndpointCache::new(&directory.path().join("cam"));
        let endpoint: IotHost = "a1-ats.iot.eu-west-1.amazonaws.com".parse().unwrap();
        assert_eq!(cache.read(None), None);
        cache.write("eu-west-1", &endpoint).unwrap();
        assert_eq!(cache.read(Some("eu-west-1")), Some(endpoint.clone()));
        assert_eq!(cache.read(None), Some(endpoint));
        assert_eq!(cache.read(Some("us-east-1")), None);
    }

    #[test]
    fn a_file_with_other_content_gives_no_endpoint() {
        let directory = tempfile::tempdir().unwrap();
        let cache = EndpointCache::new(directory.path());
        for text in ["", "{", r#"{"endpoint":"a b","region":"r"}"#, "[]"] {
            std::fs::write(directory.path().join("iot-endpoint.json"), text).unwrap();
            assert_eq!(cache.read(None), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_file_gives_an_endpoint_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80), name in "\\PC{0,20}") {
            let directory = tempfile::tempdir().unwrap();
            let cache = EndpointCache::new(directory.path());
            for content in [bytes, json!({"region": "r", "endpoint": name}).to_string().into_bytes()] {
                std::fs::write(&cache.file, content).unwrap();
                if let Some(host) = cache.read(None) {
                    prop_assert_eq!(host.to_string(), name.to_ascii_lowercase());
                }
            }
        }
    }
}
