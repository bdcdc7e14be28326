//! Selects the camera and its mode when the configuration has no launch line.
//!
//! The selection is a pure function of the connected devices. GStreamer's device monitor does not recognise two kinds
//! of cameras. The CSI camera of a Jetson is listed as a V4L2 node with unprocessed (Bayer) frames, and must be opened
//! with `nvarguscamerasrc`. The camera of a Raspberry Pi must be opened with `libcamerasrc`; the V4L2 nodes of its
//! parts are not usable alone.

mod mode;
#[cfg(test)]
mod tests;

use std::fmt;

pub use mode::{CameraMode, MinimumSize, StreamFormat};

use super::devices::{Device, DeviceClass, find_by_name, list_devices, resolve_link};
use super::error::CaptureError;
use super::registry::is_installed;
use mode::{best_mode, supported_modes};

/// Start of the node names of a Jetson's CSI cameras (driver `tegra-video`): `vi-output, imx219 9-0010`.
const JETSON_CSI_NODE: &str = "vi-output";
/// Start of the node names of a Raspberry Pi's camera and codec, which deliver no pictures alone.
const RASPBERRY_PI_NODES: [&str; 8] = [
    "unicam",
    "rp1-cfe",
    "bcm2835-isp",
    "bcm2835-codec",
    "pispbe",
    "rpivid",
    "rpi-hevc",
    "rpi-codec",
];
/// The nodes of a Raspberry Pi that belong to a sensor.
const RASPBERRY_PI_SENSORS: [&str; 2] = ["unicam", "rp1-cfe"];
/// What a Jetson's image processor delivers: the sizes of common sensor modes, all 16:9.
const JETSON_CAPS: &str = "video/x-raw(memory:NVMM), width=1280, height=720; video/x-raw(memory:NVMM), width=1920, height=1080; \
     video/x-raw(memory:NVMM), width=3840, height=2160";
/// Sizes for a Raspberry Pi's camera when libcamera lists none.
const LIBCAMERA_CAPS: &str = "video/x-raw, format=NV12, width=640, height=480; video/x-raw, format=NV12, width=1280, height=720; \
     video/x-raw, format=NV12, width=1920, height=1080";

/// The cameras of this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Cameras {
    usable: Vec<Device>,
    /// One line for each other camera: its title and why it is not usable.
    unusable: Vec<String>,
    /// The probable cause when no camera is usable.
    hint: Option<String>,
}

/// A camera and the mode to use.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectedCamera {
    /// Name and path.
    pub name: String,
    /// The mode to request.
    pub mode: CameraMode,
    /// One sentence for each requested option that the camera does not support.
    pub warnings: Vec<String>,
    source: String,
}

impl SelectedCamera {
    /// The launch line; it ends in the caps of the mode.
    pub fn launch_line(&self) -> String {
        format!("{} ! {}", self.source, self.mode.caps())
    }
}

impl fmt::Display for SelectedCamera {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.name, self.mode)
    }
}

/// The cameras that are connected now. Blocks while GStreamer lists the devices.
///
/// # Errors
/// [`CaptureError::Init`]
pub fn list() -> Result<Cameras, CaptureError> {
    let mut cameras = Cameras::from_devices(list_devices(DeviceClass::Camera)?, &is_installed);
    if cameras.usable.is_empty() {
        cameras.hint = probable_cause();
    }
    Ok(cameras)
}

/// Why GStreamer may list no camera.
fn probable_cause() -> Option<String> {
    if !is_installed("v4l2src") {
        return Some("v4l2src is not installed (gstreamer1.0-plugins-good)".to_owned());
    }
    let nodes = std::fs::read_dir("/dev").ok()?.flatten().map(|entry| entry.path());
    let forbidden = nodes
        .filter(|path| path.to_string_lossy().starts_with("/dev/video"))
        .find(|path| {
            std::fs::File::open(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        })?;
    Some(format!(
        "no permission to open {}: the service user must be in the group video",
        forbidden.display()
    ))
}

impl Cameras {
    /// Sorts the devices of the monitor. `installed` returns whether GStreamer has an element.
    fn from_devices(devices: Vec<Device>, installed: &dyn Fn(&str) -> bool) -> Self {
        let mut cameras = Self {
            usable: Vec::new(),
            unusable: Vec::new(),
            hint: None,
        };
        let has_libcamera = devices.iter().any(|device| device.factory() == "libcamerasrc");
        let mut built_in = Vec::new();
        for device in devices {
            let name_starts_with = |names: &[&str]| names.iter().any(|name| device.name.starts_with(name));
            if device.name.starts_with(JETSON_CSI_NODE) {
                match installed("nvarguscamerasrc") {
                    true => built_in.push(jetson_camera(&device, built_in.len())),
                    false => cameras.add_unusable(&device, "needs nvarguscamerasrc (nvidia-l4t-gstreamer)"),
                }
            } else if name_starts_with(&RASPBERRY_PI_SENSORS) && !has_libcamera {
                match installed("libcamerasrc") {
                    true if built_in.is_empty() => built_in.push(raspberry_pi_camera(&device)),
                    true => {}
                    false => cameras.add_unusable(&device, "needs libcamerasrc (gstreamer1.0-libcamera)"),
                }
            } else if name_starts_with(&RASPBERRY_PI_NODES) {
                // Not a camera.
            } else if supported_modes(&device.caps).is_empty() {
                cameras.add_unusable(&device, "delivers neither raw pictures nor JPEG");
            } else if device.factory() == "libcamerasrc" {
                // libcamera lists USB cameras too, but without the names that V4L2 has.
                if !device.source.contains("usb") {
                    built_in.push(device);
                }
            } else {
                cameras.usable.push(device);
            }
        }
        // Built-in cameras come first: USB cameras may be unplugged.
        cameras.usable.splice(0..0, built_in);
        cameras
    }

    fn add_unusable(&mut self, device: &Device, reason: &str) {
        self.unusable.push(format!("{}, which {reason}", device.title()));
    }

    /// One line for each camera, the usable ones first.
    pub fn descriptions(&self) -> Vec<String> {
        let usable = self.usable.iter().map(Device::title);
        usable.chain(self.unusable.iter().cloned()).collect()
    }

    /// The camera that `wanted` names, or the first one, in its smallest mode of at least `minimum`.
    ///
    /// # Errors
    /// [`CaptureError::NoCamera`], with the cameras that are connected.
    pub fn select(
        &self,
        wanted: Option<&str>,
        minimum: MinimumSize,
        color_format: Option<&str>,
    ) -> Result<SelectedCamera, CaptureError> {
        let device = match wanted {
            Some(wanted) => find_by_name(&self.usable, &resolve_link(wanted)),
            None => self.usable.first(),
        };
        let selected = device.and_then(|device| {
            let modes = supported_modes(&device.caps);
            Some((device, best_mode(&modes, minimum, color_format)?))
        });
        let Some((device, (mode, has_format))) = selected else {
            return Err(CaptureError::NoCamera {
                wanted: wanted.map(str::to_owned),
                found: self.descriptions(),
                hint: self.hint.clone(),
            });
        };
        let mut warnings = Vec::new();
        if let (false, Some(format)) = (has_format, color_format) {
            warnings.push(format!(
                "--camera-color-format: {} does not deliver {format:?}; {mode} is used",
                device.title()
            ));
        }
        if mode.width < minimum.width || mode.height < minimum.height {
            warnings.push(format!(
                "{} delivers at most {mode}, which is smaller than the wanted {} x {}",
                device.title(),
                minimum.width,
                minimum.height
            ));
        }
        Ok(SelectedCamera {
            name: device.title(),
            mode,
            warnings,
            source: device.source.clone(),
        })
    }
}

fn jetson_camera(node: &Device, sensor: usize) -> Device {
    let name = node
        .name
        .trim_start_matches(JETSON_CSI_NODE)
        .trim_start_matches([',', ' ']);
    Device {
        name: format!("CSI camera {name}"),
        source: format!("nvarguscamerasrc sensor-id={sensor}"),
        caps: parse_caps(JETSON_CAPS),
        ..node.clone()
    }
}

fn raspberry_pi_camera(node: &Device) -> Device {
    Device {
        name: "Raspberry Pi camera".to_owned(),
        source: "libcamerasrc".to_owned(),
        caps: parse_caps(LIBCAMERA_CAPS),
        ..node.clone()
    }
}

fn parse_caps(text: &str) -> gstreamer::Caps {
    text.parse().unwrap_or_else(|_| gstreamer::Caps::new_empty())
}
