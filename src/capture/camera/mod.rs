//! Which camera, and in which of its modes, when no line is given.
//!
//! The choice is a pure function of what the machine has. GStreamer's device monitor does not know two kinds: the CSI
//! camera of a Jetson shows up as a V4L2 node with unprocessed (Bayer) pictures and is opened by `nvarguscamerasrc`; that of
//! a Raspberry Pi by `libcamerasrc`, while the nodes of its parts are of no use alone.

mod mode;
#[cfg(test)]
mod table;

use std::fmt;

pub use mode::{Mode, Need, Stream};

use super::devices::{self, Class, Device, is_installed, named};
use super::error::CaptureError;
use mode::{modes, nearest};

/// Names of the nodes of a Jetson's CSI cameras (`tegra-video`): `vi-output, imx219 9-0010`.
const JETSON_CSI: &str = "vi-output";
/// Names of the nodes of a Raspberry Pi's camera and codec that give no pictures alone.
const RASPBERRY_PARTS: [&str; 8] = [
    "unicam",
    "rp1-cfe",
    "bcm2835-isp",
    "bcm2835-codec",
    "pispbe",
    "rpivid",
    "rpi-hevc",
    "rpi-codec",
];
/// Of which these are its sensors.
const RASPBERRY_SENSORS: [&str; 2] = ["unicam", "rp1-cfe"];
/// What a Jetson's image processor gives: the sizes of common sensors' modes, all 16:9.
const JETSON_CAPS: &str = "video/x-raw(memory:NVMM), width=1280, height=720; video/x-raw(memory:NVMM), width=1920, height=1080; \
     video/x-raw(memory:NVMM), width=3840, height=2160";
/// Sizes to ask of a Raspberry Pi's camera where libcamera does not list any.
const LIBCAMERA_CAPS: &str = "video/x-raw, format=NV12, width=640, height=480; video/x-raw, format=NV12, width=1280, height=720; \
     video/x-raw, format=NV12, width=1920, height=1080";

/// What the machine has.
#[derive(Debug, Clone, PartialEq)]
pub struct Cameras {
    usable: Vec<Device>,
    /// Why the others cannot be used, one line each.
    unusable: Vec<String>,
    hint: Option<String>,
}

/// A camera in one of its modes.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Name and path.
    pub camera: String,
    /// What it is asked for.
    pub mode: Mode,
    /// What was wanted and cannot be had.
    pub remarks: Vec<String>,
    source: String,
}

impl Choice {
    /// As a launch line, ending in what the camera delivers.
    pub fn line(&self) -> String {
        format!("{} ! {}", self.source, self.mode.caps())
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.camera, self.mode)
    }
}

/// The cameras that are there now. Blocks while devices are listed.
///
/// # Errors
/// [`CaptureError::Init`] when GStreamer does not start.
pub fn found() -> Result<Cameras, CaptureError> {
    let mut cameras = Cameras::of(devices::list(Class::Camera)?, &is_installed);
    if cameras.usable.is_empty() {
        cameras.hint = hint();
    }
    Ok(cameras)
}

/// What the machine shows of cameras that GStreamer does not see.
fn hint() -> Option<String> {
    if !is_installed("v4l2src") {
        return Some("v4l2src is not installed (gstreamer1.0-plugins-good)".to_owned());
    }
    let nodes = std::fs::read_dir("/dev").ok()?.flatten().map(|entry| entry.path());
    let closed = nodes
        .filter(|path| path.to_string_lossy().starts_with("/dev/video"))
        .find(|path| {
            std::fs::File::open(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        })?;
    Some(format!(
        "{} is there and may not be opened: the service user must be in the group video",
        closed.display()
    ))
}

impl Cameras {
    /// Sorts out what the monitor listed. `installed`: which elements GStreamer has.
    pub fn of(devices: Vec<Device>, installed: &dyn Fn(&str) -> bool) -> Self {
        let mut cameras = Self {
            usable: Vec::new(),
            unusable: Vec::new(),
            hint: None,
        };
        let has_libcamera = devices.iter().any(|device| device.factory() == "libcamerasrc");
        let mut built_in = Vec::new();
        for device in devices {
            let is_part = |names: &[&str]| names.iter().any(|name| device.name.starts_with(name));
            if device.name.starts_with(JETSON_CSI) {
                match installed("nvarguscamerasrc") {
                    true => built_in.push(jetson(&device, built_in.len())),
                    false => cameras.refuse(&device, "needs nvarguscamerasrc (nvidia-l4t-gstreamer)"),
                }
            } else if is_part(&RASPBERRY_SENSORS) && !has_libcamera {
                match installed("libcamerasrc") {
                    true if built_in.is_empty() => built_in.push(raspberry(&device)),
                    true => {}
                    false => cameras.refuse(&device, "needs libcamerasrc (gstreamer1.0-libcamera)"),
                }
            } else if is_part(&RASPBERRY_PARTS) {
                // Not a camera.
            } else if modes(&device.caps).is_empty() {
                cameras.refuse(&device, "delivers neither raw pictures nor JPEG");
            } else if device.factory() == "libcamerasrc" {
                // libcamera lists USB cameras too; V4L2 does it better, with their names.
                if !device.source.contains("usb") {
                    built_in.push(device);
                }
            } else {
                cameras.usable.push(device);
            }
        }
        // What is built in comes before what somebody may plug in or out.
        cameras.usable.splice(0..0, built_in);
        cameras
    }

    fn refuse(&mut self, device: &Device, reason: &str) {
        self.unusable.push(format!("{}, which {reason}", device.title()));
    }

    /// One line for each camera, the usable ones first.
    pub fn lines(&self) -> Vec<String> {
        let usable = self.usable.iter().map(Device::title);
        usable.chain(self.unusable.iter().cloned()).collect()
    }

    /// The camera that `wanted` names, else the first, in the mode nearest at or above `need`.
    ///
    /// # Errors
    /// [`CaptureError::NoCamera`] with what is there instead.
    pub fn choose(&self, wanted: Option<&str>, need: Need, color_format: Option<&str>) -> Result<Choice, CaptureError> {
        let device = match wanted {
            Some(wanted) => named(&self.usable, &devices::resolved(wanted)),
            None => self.usable.first(),
        };
        let modes = device.map(|device| (device, modes(&device.caps)));
        let chosen = modes.and_then(|(device, modes)| Some((device, nearest(&modes, need, color_format)?)));
        let Some((device, (mode, has_format))) = chosen else {
            return Err(CaptureError::NoCamera {
                wanted: wanted.map(str::to_owned),
                found: self.lines(),
                hint: self.hint.clone(),
            });
        };
        let mut remarks = Vec::new();
        if let (false, Some(format)) = (has_format, color_format) {
            remarks.push(format!(
                "--camera-color-format: {} does not deliver {format:?}; {mode} is used",
                device.title()
            ));
        }
        if mode.width < need.width || mode.height < need.height {
            remarks.push(format!(
                "{} delivers at most {mode}, which is smaller than the wanted {} x {}",
                device.title(),
                need.width,
                need.height
            ));
        }
        Ok(Choice {
            camera: device.title(),
            mode,
            remarks,
            source: device.source.clone(),
        })
    }
}

fn jetson(node: &Device, sensor: usize) -> Device {
    let name = node.name.trim_start_matches(JETSON_CSI).trim_start_matches([',', ' ']);
    Device {
        name: format!("CSI camera {name}"),
        source: format!("nvarguscamerasrc sensor-id={sensor}"),
        caps: caps(JETSON_CAPS),
        ..node.clone()
    }
}

fn raspberry(node: &Device) -> Device {
    Device {
        name: "Raspberry Pi camera".to_owned(),
        source: "libcamerasrc".to_owned(),
        caps: caps(LIBCAMERA_CAPS),
        ..node.clone()
    }
}

fn caps(text: &str) -> gstreamer::Caps {
    text.parse().unwrap_or_else(|_| gstreamer::Caps::new_empty())
}
