//! The source of pictures or sound in the report of `check`.

use crate::capture::{CaptureError, DeviceSelection, PipelineDescription, camera, describe_pipeline, microphone};
use crate::config::{Config, Launch, SourceLine};
use crate::model::ModelInput;
use crate::util::text::sentence;

/// What was found out about the source.
#[derive(Default)]
pub(super) struct SourceCheck {
    /// For the report.
    pub lines: Vec<String>,
    /// Why GStreamer cannot build the pipeline.
    pub fault: Option<String>,
    /// Elements that this machine lacks. The configuration may be right for another one.
    pub not_installed: Option<String>,
    /// What is not connected or not there now.
    pub absent: Option<String>,
}

impl SourceCheck {
    /// Lets GStreamer build the configured launch line, or looks for devices. Opens no device.
    pub(super) fn new(config: &Config, input: Option<&ModelInput>) -> Self {
        if config.runner.http_server.is_some() {
            let line = "not used: the clients of the inference server (--run-http-server) send pictures or features";
            return Self {
                lines: vec![line.to_owned()],
                ..Self::default()
            };
        }
        let audio = ModelInput::Audio {
            frequency: 16_000,
            slice_size: 0,
            continuous: false,
        };
        let input = match config.launch {
            Launch::Linux if config.runner.disable_camera => Some(&audio),
            _ => input,
        };
        match &config.source {
            Some(source) => Self::of_line(source, input, config),
            None => Self::of_devices(input, &DeviceSelection::from_options(&config.runner)),
        }
    }

    fn of_devices(input: Option<&ModelInput>, selection: &DeviceSelection) -> Self {
        let mut lines = vec![
            "not configured: each start looks for a camera, or for a microphone if the model takes audio".to_owned(),
        ];
        let (cameras, has_camera) = find_cameras(selection);
        let (microphones, has_microphone) = find_microphones();
        lines.extend(cameras.into_iter().map(|line| format!("camera: {line}")));
        lines.extend(microphones.into_iter().map(|line| format!("microphone: {line}")));
        let absent = match input {
            Some(ModelInput::Audio { .. }) if !has_microphone && selection.microphone.is_none() => {
                Some("no microphone is connected")
            }
            Some(ModelInput::Audio { .. }) => None,
            _ if !has_camera => Some("no camera is connected that can be used"),
            _ => None,
        };
        Self {
            lines,
            absent: absent.map(str::to_owned),
            ..Self::default()
        }
    }

    fn of_line(source: &SourceLine, input: Option<&ModelInput>, config: &Config) -> Self {
        match describe_pipeline(source, input, config.microphone_channel) {
            Ok(PipelineDescription {
                line,
                effective_line,
                changes,
                missing_elements,
                missing_files,
            }) => {
                let mut lines = vec![format!("line: {line}"), format!("runs: {effective_line}")];
                lines.extend(changes.iter().map(|change| format!("changed: {change}")));
                let elements: Vec<_> = missing_elements.iter().map(ToString::to_string).collect();
                lines.extend(elements.iter().map(|element| format!("missing: {element}")));
                lines.extend(missing_files.iter().map(|file| format!("not there now: {file}")));
                let list = |names: &[String]| (!names.is_empty()).then(|| names.join(", "));
                Self {
                    lines,
                    fault: None,
                    not_installed: list(&elements).map(|list| format!("not installed: {list}")),
                    absent: list(&missing_files).map(|list| format!("{list} is not there")),
                }
            }
            Err(e) => {
                let reason = capture_sentence(&e);
                Self {
                    lines: vec![format!(
                        "GStreamer refuses it; `run` would retry until it works: {reason}"
                    )],
                    fault: Some(reason),
                    ..Self::default()
                }
            }
        }
    }
}

/// The connected cameras, and the one that would be used for a model of common size.
pub(super) fn cameras(selection: &DeviceSelection) -> Vec<String> {
    find_cameras(selection).0
}

/// The connected microphones.
pub(super) fn microphones() -> Vec<String> {
    find_microphones().0
}

/// The lines about cameras, and whether one can be used.
fn find_cameras(selection: &DeviceSelection) -> (Vec<String>, bool) {
    match camera::list() {
        Err(e) => (vec![capture_sentence(&e)], false),
        Ok(cameras) => {
            let mut lines = cameras.descriptions();
            match cameras.select(
                selection.camera.as_deref(),
                selection.minimum_size(),
                selection.color_format.as_deref(),
            ) {
                Ok(camera) => {
                    lines.push(format!("used, for models up to 640 x 480: {camera}"));
                    lines.push(format!("the same as gst_args: {}", camera.launch_line()));
                    lines.extend(camera.warnings);
                    (lines, true)
                }
                Err(e) => {
                    lines.push(capture_sentence(&e));
                    (lines, false)
                }
            }
        }
    }
}

/// The lines about microphones, and whether one is connected.
fn find_microphones() -> (Vec<String>, bool) {
    match microphone::list() {
        Err(e) => (vec![capture_sentence(&e)], false),
        Ok(found) if found.is_empty() => {
            let line = "none was found; --microphone also takes an ALSA address such as hw:1,0";
            (vec![line.to_owned()], false)
        }
        Ok(found) => (found, true),
    }
}

fn capture_sentence(error: &CaptureError) -> String {
    sentence(error).replace('\n', " ")
}
