//! Selects the microphone when the configuration has no launch line.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::devices::{Device, DeviceClass, find_by_name, list_devices, resolve_link};
use super::error::CaptureError;
use super::launch_tokens::quote;
use super::packages::MissingElement;
use super::registry::{init, is_installed};

/// Sources that open the machine's default device; the first one that opens is taken.
const DEFAULT_SOURCES: [&str; 2] = ["alsasrc", "pulsesrc"];
/// Used only when none of the [`DEFAULT_SOURCES`] is installed: without a device it delivers silence and reports no
/// error.
const LAST_RESORT: &str = "autoaudiosrc";

/// The launch line of the microphone that `wanted` names, or of the machine's default one. Blocks while the device
/// opens.
///
/// # Errors
/// [`CaptureError::NoMicrophone`], or [`CaptureError::MissingElements`].
pub(super) fn select(wanted: Option<&str>) -> Result<String, CaptureError> {
    init()?;
    match wanted {
        Some(wanted) => {
            let devices = list_devices(DeviceClass::Microphone)?;
            select_by_name(&devices, &resolve_link(wanted), &is_installed)
        }
        None => select_default(&is_installed, &try_open),
    }
}

/// One line of text for each microphone that is connected.
///
/// # Errors
/// [`CaptureError::Init`]
pub fn list() -> Result<Vec<String>, CaptureError> {
    Ok(descriptions(&list_devices(DeviceClass::Microphone)?))
}

fn descriptions(devices: &[Device]) -> Vec<String> {
    devices
        .iter()
        .map(|device| match device.is_monitor {
            true => format!("{}, which records what a loudspeaker plays", device.title()),
            false => device.title(),
        })
        .collect()
}

fn select_by_name(devices: &[Device], wanted: &str, installed: &dyn Fn(&str) -> bool) -> Result<String, CaptureError> {
    let (monitors, microphones): (Vec<_>, Vec<_>) = devices.iter().partition(|device| device.is_monitor);
    if let Some(device) = find_by_name(microphones, wanted).or_else(|| find_by_name(monitors, wanted)) {
        return Ok(device.source.clone());
    }
    // The device monitor does not list addresses of ALSA (`hw:1,0`, `plughw:CARD=C920`, `default`).
    if wanted == "default" || (wanted.contains(':') && !wanted.contains(' ')) {
        if !installed("alsasrc") {
            return Err(CaptureError::MissingElements {
                elements: vec![MissingElement::new("alsasrc")],
                line: format!("alsasrc device={wanted}"),
            });
        }
        return Ok(format!("alsasrc device={}", quote(wanted)));
    }
    Err(CaptureError::NoMicrophone {
        wanted: Some(wanted.to_owned()),
        found: descriptions(devices),
        hint: None,
    })
}

/// `try_open` opens the default device of a source, and returns the reason when that fails.
fn select_default(
    installed: &dyn Fn(&str) -> bool,
    try_open: &dyn Fn(&str) -> Result<(), String>,
) -> Result<String, CaptureError> {
    let candidates: Vec<_> = DEFAULT_SOURCES.into_iter().filter(|name| installed(name)).collect();
    if candidates.is_empty() && installed(LAST_RESORT) {
        return Ok(LAST_RESORT.to_owned());
    }
    if candidates.is_empty() {
        return Err(CaptureError::MissingElements {
            elements: DEFAULT_SOURCES.map(MissingElement::new).into(),
            line: DEFAULT_SOURCES[0].to_owned(),
        });
    }
    let mut reasons = Vec::new();
    for name in candidates {
        match try_open(name) {
            Ok(()) => return Ok(name.to_owned()),
            Err(reason) => reasons.push(format!("{name}: {reason}")),
        }
    }
    if !installed(DEFAULT_SOURCES[0]) {
        reasons.push(format!("{} is not installed", MissingElement::new(DEFAULT_SOURCES[0])));
    }
    Err(CaptureError::NoMicrophone {
        wanted: None,
        found: list().unwrap_or_default(),
        hint: Some(format!(
            "These were tried: {}. The service user must be in the group audio",
            reasons.join("; ")
        )),
    })
}

/// Opens and closes the default device of a source.
fn try_open(name: &str) -> Result<(), String> {
    let source = gst::ElementFactory::make(name)
        .build()
        .map_err(|e| e.message.to_string())?;
    let bus = gst::Bus::new();
    source.set_bus(Some(&bus));
    let result = source.set_state(gst::State::Ready);
    let reason = bus.pop_filtered(&[gst::MessageType::Error]);
    let _ = source.set_state(gst::State::Null);
    match (result, reason.as_ref().map(|message| message.view())) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(gst::MessageView::Error(error))) => Err(error.error().message().to_owned()),
        (Err(_), _) => Err("it does not open, and GStreamer gives no reason".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::registry::init;

    fn microphone(name: &str, path: &str, is_monitor: bool) -> Device {
        init().unwrap();
        Device {
            name: name.to_owned(),
            path: Some(path.to_owned()),
            source: format!("pulsesrc device={path}"),
            caps: gst::Caps::builder("audio/x-raw").build(),
            is_monitor,
        }
    }

    #[test]
    fn a_microphone_is_preferred_to_the_monitor_of_a_loudspeaker_with_the_same_name() {
        let devices = [
            microphone("Monitor of USB Audio", "alsa_output.usb.monitor", true),
            microphone("USB Audio", "alsa_input.usb", false),
        ];
        let chosen = |wanted: &str| select_by_name(&devices, wanted, &|_| true);
        assert_eq!(chosen("usb audio"), Ok("pulsesrc device=alsa_input.usb".to_owned()));
        assert_eq!(chosen("usb"), Ok("pulsesrc device=alsa_input.usb".to_owned()));
        assert_eq!(
            chosen("Monitor of"),
            Ok("pulsesrc device=alsa_output.usb.monitor".to_owned())
        );
        assert_eq!(chosen("hw:1,0"), Ok("alsasrc device=hw:1,0".to_owned()));
        assert_eq!(
            chosen("plughw:CARD=C920"),
            Ok("alsasrc device=\"plughw:CARD=C920\"".to_owned())
        );
        let text = chosen("Brio").unwrap_err().to_string();
        assert!(
            text.contains("no microphone \"Brio\"; found: Monitor of USB Audio"),
            "{text}"
        );
    }

    #[test]
    fn an_alsa_address_without_alsa_names_the_package() {
        let text = select_by_name(&[], "hw:1", &|_| false).unwrap_err().to_string();
        assert!(text.contains("gstreamer1.0-alsa"), "{text}");
    }

    #[test]
    fn the_default_is_the_first_source_that_opens() {
        let broken = |name: &str| {
            if name == "alsasrc" {
                Err("no card".to_owned())
            } else {
                Ok(())
            }
        };
        assert_eq!(select_default(&|_| true, &|_| Ok(())), Ok("alsasrc".to_owned()));
        assert_eq!(select_default(&|_| true, &broken), Ok("pulsesrc".to_owned()));
        assert_eq!(
            select_default(&|name| name == "autoaudiosrc", &broken),
            Ok("autoaudiosrc".to_owned())
        );
        let text = select_default(&|name| name == "alsasrc", &broken)
            .unwrap_err()
            .to_string();
        assert!(text.contains("alsasrc: no card"), "{text}");
        let text = select_default(&|_| false, &broken).unwrap_err().to_string();
        assert!(
            text.contains("gstreamer1.0-alsa") && text.contains("gstreamer1.0-pulseaudio"),
            "{text}"
        );
    }
}
