//! Cameras and microphones as GStreamer's device monitor lists them.

use std::path::Path;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::error::CaptureError;
use super::launch_tokens::quote;
use super::registry::init;

/// Device properties that hold a path or an address, by provider: V4L2, PipeWire, ALSA, PulseAudio.
const PATH_PROPERTIES: [&str; 6] = [
    "device.path",
    "api.v4l2.path",
    "api.alsa.path",
    "device.string",
    "node.name",
    "object.path",
];
/// Element properties that do not identify the device.
const IGNORED_PROPERTIES: [&str; 4] = ["name", "parent", "typefind", "num-buffers"];

/// Which devices to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceClass {
    Camera,
    Microphone,
}

impl DeviceClass {
    /// The class as the device monitor names it.
    fn monitor_filter(self) -> &'static str {
        match self {
            Self::Camera => "Video/Source",
            Self::Microphone => "Audio/Source",
        }
    }
}

/// A device of the monitor.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// The display name.
    pub name: String,
    /// `/dev/video0`, `hw:1`, or another stable address.
    pub path: Option<String>,
    /// The element that opens the device, with its properties, in launch-line syntax.
    pub source: String,
    /// The formats that it delivers.
    pub caps: gst::Caps,
    /// Whether the device records what a loudspeaker plays.
    pub is_monitor: bool,
}

impl Device {
    /// The factory name of the source element.
    pub fn factory(&self) -> &str {
        self.source.split(' ').next().unwrap_or_default()
    }

    /// How well `wanted` matches this device: 0 is an exact match of the path, larger is worse. `None`: no match.
    pub fn match_rank(&self, wanted: &str) -> Option<u8> {
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

/// The best match for `wanted`; among equal matches the first.
pub(super) fn find_by_name<'a>(devices: impl IntoIterator<Item = &'a Device>, wanted: &str) -> Option<&'a Device> {
    let matches = devices
        .into_iter()
        .filter_map(|device| Some((device.match_rank(wanted)?, device)));
    matches.min_by_key(|(rank, _)| *rank).map(|(_, device)| device)
}

/// The target of a link such as `/dev/v4l/by-id/...`; any other text unchanged, without surrounding white space.
pub(super) fn resolve_link(wanted: &str) -> String {
    let path = Path::new(wanted.trim());
    let target = if path.is_absolute() {
        std::fs::canonicalize(path).ok()
    } else {
        None
    };
    target.map_or_else(|| wanted.trim().to_owned(), |target| target.display().to_string())
}

/// The devices that are connected now, sorted by path.
///
/// # Errors
/// [`CaptureError::Init`]
pub(super) fn list_devices(class: DeviceClass) -> Result<Vec<Device>, CaptureError> {
    init()?;
    let monitor = gst::DeviceMonitor::new();
    if monitor.add_filter(Some(class.monitor_filter()), None).is_none() {
        // No installed plugin provides devices of this class.
        return Ok(Vec::new());
    }
    // A monitor that was not started asks each provider once. A provider that fails does not hide the others.
    let mut devices: Vec<_> = monitor.devices().iter().filter_map(read_device).collect();
    // By length first, so that /dev/video10 comes after /dev/video2.
    devices.sort_by_key(|device| device.path.as_ref().map(|path| (path.len(), path.clone())));
    Ok(devices)
}

fn read_device(device: &gst::Device) -> Option<Device> {
    let element = device.create_element(None).ok()?;
    let properties = device.properties();
    let text = |key: &str| properties.as_ref()?.get::<String>(key).ok();
    Some(Device {
        name: device.display_name().to_string(),
        path: PATH_PROPERTIES.iter().find_map(|key| text(key)),
        source: launch_text(&element)?,
        caps: device.caps().unwrap_or_else(gst::Caps::new_any),
        is_monitor: text("device.class").is_some_and(|class| class == "monitor"),
    })
}

/// The element in launch-line syntax: its factory, and each property that differs from its default.
fn launch_text(element: &gst::Element) -> Option<String> {
    let factory = element.factory()?;
    let default_element = factory.create().build().ok()?;
    let mut text = factory.name().to_string();
    for property in element.list_properties() {
        let read_write = gst::glib::ParamFlags::READWRITE;
        if !property.flags().contains(read_write) || IGNORED_PROPERTIES.contains(&property.name()) {
            continue;
        }
        let serialized = |element: &gst::Element| {
            let value = element.property_value(property.name());
            match value.get::<Option<String>>() {
                Ok(value) => value.as_deref().map(quote),
                Err(_) => value.serialize().ok().map(|text| text.to_string()),
            }
        };
        match serialized(element) {
            Some(value) if serialized(&default_element).as_ref() != Some(&value) => {
                text.push_str(&format!(" {}={value}", property.name()));
            }
            _ => {}
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_device_is_found_by_path_by_name_or_by_part_of_its_name() {
        init().unwrap();
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
            let found = find_by_name(&devices, wanted).and_then(|device| device.path.as_deref());
            assert_eq!(found, path, "{wanted}");
        }
    }

    #[test]
    fn a_link_is_resolved_to_the_device_node() {
        let dir = tempfile::tempdir().unwrap();
        let (node, link) = (dir.path().join("video0"), dir.path().join("by-id"));
        std::fs::write(&node, "").unwrap();
        std::os::unix::fs::symlink(&node, &link).unwrap();
        let node = node.canonicalize().unwrap();
        assert_eq!(resolve_link(link.to_str().unwrap()), node.display().to_string());
        assert_eq!(resolve_link(" USB Camera "), "USB Camera");
    }

    #[test]
    fn the_text_of_an_element_builds_the_same_element_again() {
        init().unwrap();
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
