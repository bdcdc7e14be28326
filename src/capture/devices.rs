//! Cameras and microphones as GStreamer's device monitor lists them.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::camera::{self, Need};
use super::error::CaptureError;
use super::launch_line::MediaKind;
use super::microphone;
use crate::config::RunnerOptions;

/// Device properties that hold a path or an address, by provider: v4l2, PipeWire, ALSA, PulseAudio.
const PATHS: [&str; 6] = [
    "device.path",
    "api.v4l2.path",
    "api.alsa.path",
    "device.string",
    "node.name",
    "object.path",
];
/// Properties of an element that say nothing about the device.
const NOT_THE_DEVICE: [&str; 4] = ["name", "parent", "typefind", "num-buffers"];

/// Which device is wanted, and what is asked of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceSelection {
    /// `--camera`: a name or a path.
    pub camera: Option<String>,
    /// `--microphone`: a name, a path or an ALSA address.
    pub microphone: Option<String>,
    /// `--camera-color-format`
    pub color_format: Option<String>,
    /// `--force-camera-resolution`
    pub resolution: Option<(u32, u32)>,
    /// `--enable-camera`: keep the camera open while the microphone is used.
    pub enable_camera: bool,
    /// Size of the model's input, in pixels.
    pub model_size: (u32, u32),
}

impl DeviceSelection {
    /// What `eiparams` says of devices.
    pub fn of(options: &RunnerOptions) -> Self {
        Self {
            camera: options.camera.clone(),
            microphone: options.microphone.clone(),
            color_format: options.camera_color_format.clone(),
            resolution: options.camera_resolution,
            enable_camera: options.enable_camera,
            model_size: (0, 0),
        }
    }

    /// The size that a camera is to give at least.
    pub fn need(&self) -> Need {
        self.resolution.map_or_else(
            || Need::of_model(self.model_size),
            |(width, height)| Need { width, height },
        )
    }

    /// The launch line of the device that fits best now. Blocks while devices are listed.
    ///
    /// # Errors
    /// [`CaptureError::NoCamera`] or [`CaptureError::NoMicrophone`] with what is there instead.
    pub fn find(&self, medium: MediaKind) -> Result<String, CaptureError> {
        super::init()?;
        match medium {
            MediaKind::Pictures => self.camera_line(),
            MediaKind::Sound { .. } => {
                let mut line = microphone::line(self.microphone.as_deref())?;
                if self.enable_camera {
                    match self.camera_line() {
                        Ok(camera) => line = beside(&camera, &line),
                        Err(error) => tracing::warn!("--enable-camera: {error}"),
                    }
                }
                Ok(line)
            }
        }
    }

    fn camera_line(&self) -> Result<String, CaptureError> {
        let cameras = camera::found()?;
        let choice = cameras.choose(self.camera.as_deref(), self.need(), self.color_format.as_deref())?;
        for remark in &choice.remarks {
            tracing::warn!("{remark}");
        }
        tracing::info!("camera {}, {}", choice.camera, choice.mode);
        Ok(choice.line())
    }
}

/// What kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `Video/Source`
    Camera,
    /// `Audio/Source`
    Microphone,
}

/// A device of the monitor.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// For people.
    pub name: String,
    /// `/dev/video0`, `hw:1`, or what else names it for good.
    pub path: Option<String>,
    /// The element that opens it, with its properties, as text for a launch line.
    pub source: String,
    /// What it delivers.
    pub caps: gst::Caps,
    /// It records what a loudspeaker plays.
    pub is_monitor: bool,
}

impl Device {
    /// The name of the source element.
    pub fn factory(&self) -> &str {
        self.source.split(' ').next().unwrap_or_default()
    }

    /// How well `wanted` names this device: 0 exactly, then less so; `None`: another device.
    pub fn matches(&self, wanted: &str) -> Option<u8> {
        let (name, wanted) = (self.name.to_lowercase(), wanted.trim().to_lowercase());
        let path = self.path.as_deref().unwrap_or_default().to_lowercase();
        if !path.is_empty() && (path == wanted || wanted.ends_with(&format!("({path})"))) {
            Some(0)
        } else if name == wanted {
            Some(1)
        } else if !wanted.is_empty() && name.contains(&wanted) {
            Some(2)
        } else {
            None
        }
    }

    /// Name and path.
    pub fn title(&self) -> String {
        match &self.path {
            Some(path) => format!("{} ({path})", self.name),
            None => self.name.clone(),
        }
    }
}

/// The device that `wanted` names: the best match, of equal ones the first.
pub fn named<'a>(devices: impl IntoIterator<Item = &'a Device>, wanted: &str) -> Option<&'a Device> {
    let matches = devices
        .into_iter()
        .filter_map(|device| Some((device.matches(wanted)?, device)));
    matches.min_by_key(|(quality, _)| *quality).map(|(_, device)| device)
}

/// A path with its links followed (`/dev/v4l/by-id/...`); anything else as it is.
pub fn resolved(wanted: &str) -> String {
    let path = Path::new(wanted.trim());
    let target = if path.is_absolute() {
        std::fs::canonicalize(path).ok()
    } else {
        None
    };
    target.map_or_else(|| wanted.trim().to_owned(), |target| target.display().to_string())
}

/// The devices that are there now, in the order of their paths.
///
/// # Errors
/// [`CaptureError::Init`] when GStreamer does not start.
pub fn list(class: Class) -> Result<Vec<Device>, CaptureError> {
    super::init()?;
    let monitor = gst::DeviceMonitor::new();
    let filter = match class {
        Class::Camera => "Video/Source",
        Class::Microphone => "Audio/Source",
    };
    if monitor.add_filter(Some(filter), None).is_none() {
        // No plugin knows devices of this class.
        return Ok(Vec::new());
    }
    // A monitor that was not started asks each provider once, and one that fails does not hide the others.
    let mut devices: Vec<_> = monitor.devices().iter().filter_map(describe).collect();
    // The tenth camera comes after the second one.
    devices.sort_by_key(|device| device.path.as_ref().map(|path| (path.len(), path.clone())));
    Ok(devices)
}

fn describe(device: &gst::Device) -> Option<Device> {
    let element = device.create_element(None).ok()?;
    let properties = device.properties();
    let text = |key: &str| properties.as_ref()?.get::<String>(key).ok();
    Some(Device {
        name: device.display_name().to_string(),
        path: PATHS.iter().find_map(|key| text(key)),
        source: launch_text(&element)?,
        caps: device.caps().unwrap_or_else(gst::Caps::new_any),
        is_monitor: text("device.class").is_some_and(|class| class == "monitor"),
    })
}

/// The element as a launch line names it: its factory and what is set differently from a new one.
fn launch_text(element: &gst::Element) -> Option<String> {
    let factory = element.factory()?;
    let plain = factory.create().build().ok()?;
    let mut text = factory.name().to_string();
    for property in element.list_properties() {
        let both = gst::glib::ParamFlags::READWRITE;
        if !property.flags().contains(both) || NOT_THE_DEVICE.contains(&property.name()) {
            continue;
        }
        let shown = |element: &gst::Element| {
            let value = element.property_value(property.name());
            match value.get::<Option<String>>() {
                Ok(value) => value.as_deref().map(quoted),
                Err(_) => value.serialize().ok().map(|text| text.to_string()),
            }
        };
        match shown(element) {
            Some(value) if shown(&plain).as_ref() != Some(&value) => {
                text.push_str(&format!(" {}={value}", property.name()));
            }
            _ => {}
        }
    }
    Some(text)
}

/// A text as a launch line takes it.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.,:@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether GStreamer has this element.
pub fn is_installed(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// A microphone's line with a camera that is only kept open: the branches share nothing, and the frames are thrown away.
fn beside(camera: &str, microphone: &str) -> String {
    format!("{camera} ! queue leaky=downstream max-size-buffers=1 ! fakesink sync=false async=false {microphone}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::capture::{AudioFormat, AudioMailbox, Capture, Inlet, Settings, Taken};
    use crate::config::SourceLine;

    fn device(name: &str, path: &str) -> Device {
        Device {
            name: name.to_owned(),
            path: Some(path.to_owned()),
            source: format!("v4l2src device={path}"),
            caps: gst::Caps::builder("video/x-raw").build(),
            is_monitor: false,
        }
    }

    #[test]
    fn a_microphone_is_heard_beside_a_camera_that_is_kept_open() {
        const LIMIT: Duration = Duration::from_secs(20);
        let line = beside("videotestsrc is-live=true", "audiotestsrc is-live=true");
        let slot = Arc::new(AudioMailbox::new());
        let format = AudioFormat {
            frequency: 16_000,
            window: 1600,
            step: 1600,
            continuous: false,
        };
        let settings = Settings::new(SourceLine::Launch(line));
        let capture = Capture::start(&settings, Inlet::Sound(slot.reserve(), format), &Arc::default(), |_| {}).unwrap();
        assert!(matches!(slot.take(LIMIT), Taken::Frame(_)));
        capture.stop(LIMIT);
    }

    #[test]
    fn a_device_is_found_by_path_name_or_a_part_of_it() {
        crate::capture::init().unwrap();
        let devices = [
            device("HD Pro Webcam C920 Plus", "/dev/video2"),
            device("HD Pro Webcam C920", "/dev/video4"),
            device("Integrated Camera", "/dev/video0"),
        ];
        for (wanted, path) in [
            ("/dev/video0", Some("/dev/video0")),
            ("HD Pro Webcam C920", Some("/dev/video4")),
            ("hd pro webcam c920 plus", Some("/dev/video2")),
            ("C920", Some("/dev/video2")),
            ("HD Pro Webcam C920 (/dev/video4)", Some("/dev/video4")),
            ("Brio", None),
            ("", None),
        ] {
            let found = named(&devices, wanted).and_then(|device| device.path.as_deref());
            assert_eq!(found, path, "{wanted}");
        }
    }

    #[test]
    fn a_link_to_a_device_names_the_device() {
        let dir = tempfile::tempdir().unwrap();
        let (node, link) = (dir.path().join("video0"), dir.path().join("by-id"));
        std::fs::write(&node, "").unwrap();
        std::os::unix::fs::symlink(&node, &link).unwrap();
        let node = node.canonicalize().unwrap();
        assert_eq!(resolved(link.to_str().unwrap()), node.display().to_string());
        assert_eq!(resolved(" USB Camera "), "USB Camera");
    }

    #[test]
    fn an_element_is_written_as_a_launch_line_builds_it_again() {
        crate::capture::init().unwrap();
        let path = "/tmp/a \"b\" \\c:d";
        let element = gst::ElementFactory::make("filesrc")
            .property("location", path)
            .property("blocksize", 77u32)
            .build()
            .unwrap();
        let text = launch_text(&element).unwrap();
        let again = gst::parse::launch(&format!("{text} ! fakesink")).unwrap();
        let again = again.downcast::<gst::Pipeline>().unwrap();
        let source = again.iterate_sources().into_iter().flatten().next().unwrap();
        assert_eq!(source.property::<String>("location"), path);
        assert_eq!(source.property::<u32>("blocksize"), 77);
        assert_eq!(
            launch_text(&gst::ElementFactory::make("filesrc").build().unwrap()).unwrap(),
            "filesrc"
        );
    }
}
