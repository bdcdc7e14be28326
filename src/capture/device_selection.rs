//! The device selection of `eiparams`, and the launch line of the device that it selects.

use super::camera;
use super::camera::MinimumSize;
use super::error::CaptureError;
use super::launch_line::MediaKind;
use super::microphone;
use crate::config::RunnerOptions;

/// Which device is wanted, and in which format.
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
    /// Size of the model's input in pixels.
    pub model_size: (u32, u32),
}

impl DeviceSelection {
    /// The selection in `eiparams`, for a model of unknown size.
    pub fn from_options(options: &RunnerOptions) -> Self {
        Self {
            camera: options.camera.clone(),
            microphone: options.microphone.clone(),
            color_format: options.camera_color_format.clone(),
            resolution: options.camera_resolution,
            enable_camera: options.enable_camera,
            model_size: (0, 0),
        }
    }

    /// The smallest size of a suitable camera mode.
    pub fn minimum_size(&self) -> MinimumSize {
        self.resolution.map_or_else(
            || MinimumSize::for_model(self.model_size),
            |(width, height)| MinimumSize { width, height },
        )
    }

    /// The launch line of the device that fits best now. Blocks while GStreamer lists the devices.
    ///
    /// # Errors
    /// [`CaptureError::NoCamera`] or [`CaptureError::NoMicrophone`], with the devices that are connected.
    pub fn find_launch_line(&self, kind: MediaKind) -> Result<String, CaptureError> {
        match kind {
            MediaKind::Video => self.camera_launch_line(),
            MediaKind::Audio { .. } => {
                let microphone = microphone::select(self.microphone.as_deref())?;
                tracing::info!(source = microphone, "Selected the microphone");
                if !self.enable_camera {
                    return Ok(microphone);
                }
                match self.camera_launch_line() {
                    Ok(camera) => Ok(with_idle_camera(&camera, &microphone)),
                    Err(error) => {
                        tracing::warn!(%error, "Cannot keep a camera open while the microphone is used (--enable-camera)");
                        Ok(microphone)
                    }
                }
            }
        }
    }

    fn camera_launch_line(&self) -> Result<String, CaptureError> {
        let cameras = camera::list()?;
        let selected = cameras.select(
            self.camera.as_deref(),
            self.minimum_size(),
            self.color_format.as_deref(),
        )?;
        for reason in &selected.warnings {
            tracing::warn!(reason, "The camera does not support a requested option");
        }
        tracing::info!(device = selected.name, mode = %selected.mode, "Selected the camera");
        Ok(selected.launch_line())
    }
}

/// The microphone's launch line with a second branch that opens the camera and drops its frames. Some cameras with a
/// built-in microphone deliver sound only while they are open.
fn with_idle_camera(camera: &str, microphone: &str) -> String {
    format!("{camera} ! queue leaky=downstream max-size-buffers=1 ! fakesink sync=false async=false {microphone}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::capture::{AudioFormat, AudioMailbox, Capture, CaptureOutput, CaptureSettings, Received};
    use crate::config::SourceLine;

    #[test]
    fn a_microphone_delivers_sound_beside_a_camera_that_is_only_kept_open() {
        const LIMIT: Duration = Duration::from_secs(20);
        let line = with_idle_camera("videotestsrc is-live=true", "audiotestsrc is-live=true");
        let mailbox = Arc::new(AudioMailbox::new());
        let format = AudioFormat {
            sample_rate: 16_000,
            window: 1600,
            step: 1600,
            continuous: false,
        };
        let settings = CaptureSettings::new(SourceLine(line));
        let capture = Capture::start(
            &settings,
            CaptureOutput::Audio(mailbox.reserve(), format),
            &Arc::default(),
            |_| {},
        )
        .unwrap();
        assert!(matches!(mailbox.receive(LIMIT), Received::Value(_)));
        capture.stop(LIMIT);
    }
}
