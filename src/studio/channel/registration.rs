//! What follows an accepted hello: the device is created in Studio and named. It serves the name and a log line only, so
//! a failure ends nothing.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::studio_device::StudioDevice;
use crate::studio::client::StudioClient;
use crate::studio::error::StudioError;
use crate::studio::fetch::first_project;
use crate::util::text::excerpt;

/// What a path segment may contain unencoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The device as Studio knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) device_name: String,
    pub(super) project: String,
    pub(super) project_id: u64,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device: NamedDevice,
}

#[derive(Deserialize)]
struct NamedDevice {
    #[serde(default)]
    name: String,
}

/// Creates the device if it does not exist, and gives it its name if it has none. A name that somebody gave in Studio stays.
pub(super) async fn register(studio: &StudioClient, device: &StudioDevice) -> Result<Registration, StudioError> {
    let project = first_project(studio).await?;
    let (id, encoded) = (project.id, utf8_percent_encode(&device.id, SEGMENT));
    let body = json!({"deviceId": device.id, "deviceType": device.kind, "ifNotExists": true});
    let path = format!("api/{id}/devices/create");
    let _: Value = studio.post("the creation of the device", &path, &[], &body).await?;
    let path = format!("api/{id}/device/{encoded}");
    let known: DeviceAnswer = studio.get("the device", &path, &[]).await?;
    let mut name = known.device.name;
    if name == device.id {
        let path = format!("api/{id}/devices/{encoded}/rename");
        let body = json!({"name": device.name});
        let _: Value = studio.post("the new name of the device", &path, &[], &body).await?;
        name = device.name.clone();
    }
    Ok(Registration {
        device_name: excerpt(&name),
        project: project.name,
        project_id: id,
    })
}
