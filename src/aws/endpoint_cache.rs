//! The IoT Core endpoint of the last time, for a start without network or permission.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::aws::IotHost;

const MAX_BYTES: u64 = 4096;

/// A file below the work directory that holds the endpoint and the region it was found in.
#[derive(Debug, Clone)]
pub struct EndpointCache {
    file: PathBuf,
}

impl EndpointCache {
    /// In the directory of a device.
    pub fn new(device_dir: &Path) -> Self {
        Self {
            file: device_dir.join("iot-endpoint.json"),
        }
    }

    /// The endpoint found last, if it was in this region (any region, when ours is not known).
    pub fn read(&self, region: Option<&str>) -> Option<IotHost> {
        let mut text = String::new();
        File::open(&self.file)
            .ok()?
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .ok()?;
        let json: Value = serde_json::from_str(&text).ok()?;
        let fits = region.is_none_or(|region| json["region"] == region);
        fits.then_some(json["endpoint"].as_str()?)?.parse().ok()
    }

    /// Keeps an endpoint; writes only when it is another one.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, region: &str, endpoint: &IotHost) -> io::Result<()> {
        if self.read(Some(region)).as_ref() == Some(endpoint) {
            return Ok(());
        }
        let text = json!({"region": region, "endpoint": endpoint.to_string()}).to_string();
        crate::util::atomic_file::replace(&self.file, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_endpoint_is_remembered_for_its_region() {
        let directory = tempfile::tempdir().unwrap();
        let remembered = EndpointCache::new(&directory.path().join("cam"));
        let endpoint: IotHost = "a1-ats.iot.eu-west-1.amazonaws.com".parse().unwrap();
        assert_eq!(remembered.read(None), None);
        remembered.write("eu-west-1", &endpoint).unwrap();
        assert_eq!(remembered.read(Some("eu-west-1")), Some(endpoint.clone()));
        assert_eq!(remembered.read(None), Some(endpoint));
        assert_eq!(remembered.read(Some("us-east-1")), None);
    }

    #[test]
    fn a_file_that_holds_something_else_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let remembered = EndpointCache::new(directory.path());
        for text in ["", "{", r#"{"endpoint":"a b","region":"r"}"#, "[]"] {
            std::fs::write(directory.path().join("iot-endpoint.json"), text).unwrap();
            assert_eq!(remembered.read(None), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_file_is_an_endpoint_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..80), name in "\\PC{0,20}") {
            let directory = tempfile::tempdir().unwrap();
            let remembered = EndpointCache::new(directory.path());
            for content in [bytes, json!({"region": "r", "endpoint": name}).to_string().into_bytes()] {
                std::fs::write(&remembered.file, content).unwrap();
                if let Some(host) = remembered.read(None) {
                    prop_assert_eq!(host.to_string(), name.to_ascii_lowercase());
                }
            }
        }
    }
}
