//! Which microphone, when no line is given.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::devices::{self, Class, Device, is_installed, named, quoted};
use super::error::CaptureError;
use super::packages::MissingElement;

/// Sources of the machine's own choice, the first that opens is taken. `autoaudiosrc` comes in only where neither of the
/// others is installed: when it finds nothing it delivers silence without a word.
const DEFAULTS: [&str; 2] = ["alsasrc", "pulsesrc"];
const LAST_RESORT: &str = "autoaudiosrc";

/// The launch line of the microphone that `wanted` names, else of the machine's default one.
///
/// # Errors
/// [`CaptureError::NoMicrophone`], or what is not installed.
pub(super) fn line(wanted: Option<&str>) -> Result<String, CaptureError> {
    let chosen = match wanted {
        Some(wanted) => by_name(
            &devices::list(Class::Microphone)?,
            &devices::resolved(wanted),
            &is_installed,
        )?,
        None => default(&is_installed, &opens)?,
    };
    tracing::info!("microphone: {chosen}");
    Ok(chosen)
}

/// One line for each microphone that is there.
///
/// # Errors
/// [`CaptureError::Init`] when GStreamer does not start.
pub fn found() -> Result<Vec<String>, CaptureError> {
    Ok(titles(&devices::list(Class::Microphone)?))
}

fn titles(devices: &[Device]) -> Vec<String> {
    devices
        .iter()
        .map(|device| match device.is_monitor {
            true => format!("{}, what a loudspeaker plays", device.title()),
            false => device.title(),
        })
        .collect()
}

fn by_name(devices: &[Device], wanted: &str, installed: &dyn Fn(&str) -> bool) -> Result<String, CaptureError> {
    let (monitors, microphones): (Vec<_>, Vec<_>) = devices.iter().partition(|device| device.is_monitor);
    if let Some(device) = named(microphones, wanted).or_else(|| named(monitors, wanted)) {
        return Ok(device.source.clone());
    }
    // Addresses of ALSA (`hw:1,0`, `plughw:CARD=C920`, `default`) are in no list.
    if wanted == "default" || (wanted.contains(':') && !wanted.contains(' ')) {
        if !installed("alsasrc") {
            return Err(CaptureError::MissingElements {
                elements: vec![MissingElement::new("alsasrc")],
                line: format!("alsasrc device={wanted}"),
            });
        }
        return Ok(format!("alsasrc device={}", quoted(wanted)));
    }
    Err(CaptureError::NoMicrophone {
        wanted: Some(wanted.to_owned()),
        found: titles(devices),
        hint: None,
    })
}

/// `opens`: tries a source; `Err`: why it does not open.
fn default(
    installed: &dyn Fn(&str) -> bool,
    opens: &dyn Fn(&str) -> Result<(), String>,
) -> Result<String, CaptureError> {
    let candidates: Vec<_> = DEFAULTS.into_iter().filter(|name| installed(name)).collect();
    if candidates.is_empty() && installed(LAST_RESORT) {
        return Ok(LAST_RESORT.to_owned());
    }
    if candidates.is_empty() {
        return Err(CaptureError::MissingElements {
            elements: DEFAULTS.map(MissingElement::new).into(),
            line: DEFAULTS[0].to_owned(),
        });
    }
    let mut reasons = Vec::new();
    for name in candidates {
        match opens(name) {
            Ok(()) => return Ok(name.to_owned()),
            Err(reason) => reasons.push(format!("{name}: {reason}")),
        }
    }
    if !installed(DEFAULTS[0]) {
        reasons.push(format!("{} is not installed", MissingElement::new(DEFAULTS[0])));
    }
    Err(CaptureError::NoMicrophone {
        wanted: None,
        found: found().unwrap_or_default(),
        hint: Some(format!(
            "What was tried: {}. The service user must be in the group audio",
            reasons.join("; ")
        )),
    })
}

/// Opens the default device of a source and lets it go again.
fn opens(name: &str) -> Result<(), String> {
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
        (Err(_), _) => Err("it does not open and gives no reason".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn microphone(name: &str, path: &str, is_monitor: bool) -> Device {
        crate::capture::init().unwrap();
        Device {
            name: name.to_owned(),
            path: Some(path.to_owned()),
            source: format!("pulsesrc device={path}"),
            caps: gst::Caps::builder("audio/x-raw").build(),
            is_monitor,
        }
    }

    #[test]
    fn a_microphone_is_chosen_by_name_and_never_a_loudspeaker_instead() {
        let devices = [
            microphone("Monitor of USB Audio", "alsa_output.usb.monitor", true),
            microphone("USB Audio", "alsa_input.usb", false),
        ];
        let chosen = |wanted: &str| by_name(&devices, wanted, &|_| true);
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
        let text = by_name(&[], "hw:1", &|_| false).unwrap_err().to_string();
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
        assert_eq!(default(&|_| true, &|_| Ok(())), Ok("alsasrc".to_owned()));
        assert_eq!(default(&|_| true, &broken), Ok("pulsesrc".to_owned()));
        assert_eq!(
            default(&|name| name == "autoaudiosrc", &broken),
            Ok("autoaudiosrc".to_owned())
        );
        let text = default(&|name| name == "alsasrc", &broken).unwrap_err().to_string();
        assert!(text.contains("alsasrc: no card"), "{text}");
        let text = default(&|_| false, &broken).unwrap_err().to_string();
        assert!(
            text.contains("gstreamer1.0-alsa") && text.contains("gstreamer1.0-pulseaudio"),
            "{text}"
        );
    }
}
